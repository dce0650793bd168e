"""Jobs as they are asked for: the members, the options under their names, the plan, the states."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from softxent import TILE, OptionError, Options
from softxent.errors import SoftxentError
from softxent_service.jobs.errors import SpecificationError, TransitionError
from softxent_service.jobs.plan import Plan, make_plan
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.specification import JOB, Specification
from softxent_service.jobs.states import ENDS, STATES, TRANSITIONS, Event, State, after

PLACES = {"logits": "file:///a/x", "labels": "file:///a/y.npy", "output": "file:///a/out"}


def test_the_default_output_is_the_loss() -> None:
    job = Specification.from_json(PLACES)
    assert job.options == Options(outputs=("loss",))
    assert job.on_error == "fail"
    assert job.to_json() == PLACES


def test_a_job_is_told_as_it_was_asked() -> None:
    asked = {
        **PLACES,
        "outputs": ["loss", "gradient", "rank"],
        "reduction": "mean",
        "denominator": 3,
        "ignore_index": None,
        "softcap": 30.0,
        "on_error": "skip",
    }
    job = Specification.from_json(asked)
    assert job.options.ignore_index is None
    assert job.to_json() == {**asked, "denominator": 3.0}
    assert Specification.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("changed", "error", "field", "text"),
    [
        ({"logit": "file:///a"}, SpecificationError, "logit", "unknown member 'logit'"),
        ({"logits": None}, SpecificationError, "logits", "logits is required"),
        ({"output": 3}, SpecificationError, "output", "output must be a URL"),
        ({"labels": ["file:///a"]}, SpecificationError, "labels", "labels must be a URL"),
        ({"on_error": "retry"}, SpecificationError, "on_error", "one of fail, skip"),
        ({"on_error": ["fail"]}, SpecificationError, "on_error", "one of fail, skip"),
        ({"reduction": "max"}, OptionError, "reduction", "none, mean, sum"),
        ({"temperature": "2"}, OptionError, "temperature", "must be a number"),
        ({"temperature": {"a": 1}}, SpecificationError, "temperature", "not an object"),
        ({"label_smoothing": True}, OptionError, "label_smoothing", "must be a number"),
        ({"outputs": ["loss", "loss"]}, OptionError, "outputs", "more than once"),
        ({"outputs": [["loss"]]}, OptionError, "outputs", "unknown output"),
        ({"outputs": []}, OptionError, "outputs", "empty"),
        (
            {"on_error": "skip", "reduction": "mean", "outputs": ["gradient"]},
            SpecificationError,
            "denominator",
            "needs a denominator",
        ),
    ],
)
def test_what_is_no_job_is_refused(
    changed: dict[str, Any], error: type[SoftxentError], field: str, text: str
) -> None:
    with pytest.raises(error, match=text) as refused:
        Specification.from_json({**PLACES, **changed})
    assert refused.value.field == field


@pytest.mark.parametrize("missing", ["logits", "output"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SpecificationError, match=f"{missing} is required"):
        Specification.from_json({n: url for n, url in PLACES.items() if n != missing})


@pytest.mark.parametrize("members", [[], "x", 1, None])
def test_a_job_is_an_object(members: Any) -> None:
    with pytest.raises(SpecificationError, match="JSON object"):
        Specification.from_json(members)


def test_every_option_of_the_library_is_a_member() -> None:
    given = {name: getattr(Options(outputs=("loss",)), name) for name in JOB.options}
    assert Specification.from_json({**PLACES, **given}).to_json() == PLACES


def plan(shape: tuple[int, ...], chunks: tuple[int, ...], block: int, **rest: Any) -> Plan:
    return make_plan(shape, chunks, 4, whole_rows=rest.get("whole_rows", False), block_bytes=block)


@pytest.mark.parametrize(
    ("shape", "chunks", "block", "step", "columns"),
    [
        ((100, 10), (1, 10), 400, 10, 10),
        ((100, 10), (7, 10), 400, 7, 10),
        ((100, 10), (3, 10), 400, 9, 10),
        ((100, 10), (100, 10), 400, 100, 10),
        ((5, 10), (1, 10), 1 << 20, 5, 10),
        ((0, 10), (1, 10), 400, 1, 10),
        ((0, 0), (1, 1), 400, 1, 0),
        # Columns are cut where the rows of a chunk do not fit, on tiles that are chunks if it can.
        ((100, 3 * TILE), (10, TILE), 10 * TILE * 4, 10, TILE),
        ((100, 9 * TILE), (10, 2 * TILE), 50 * TILE * 4, 10, 4 * TILE),
        ((100, 9 * TILE), (10, 1000), 50 * TILE * 4, 10, 5 * TILE),
        ((100, 9 * TILE), (10, 9 * TILE), 10 * TILE * 4, 10, 9 * TILE),
        ((100, TILE), (100, 1000), 4 * TILE, 100, TILE),
        ((6, 5, 10), (1, 5, 10), 450, 2, 10),
    ],
)
def test_blocks_are_whole_chunks_that_fit(
    shape: tuple[int, ...], chunks: tuple[int, ...], block: int, step: int, columns: int
) -> None:
    made = plan(shape, chunks, block)
    assert (made.step, made.columns) == (step, columns)
    assert made.rows == shape[0] * (shape[1] if len(shape) == 3 else 1)
    entries = [made.entries_of(i) for i in range(made.blocks)]
    assert [e for s in entries for e in range(s.start, s.stop)] == list(range(shape[0]))
    cut = [c for s in made.columns_of() for c in range(s.start, s.stop)]
    assert cut == list(range(shape[-1]))


def test_rows_that_must_be_whole_are_fewer() -> None:
    made = plan((100, 3 * TILE), (10, TILE), 10 * TILE * 4, whole_rows=True)
    assert (made.step, made.columns) == (3, 3 * TILE)


def test_states_change_by_the_table_alone() -> None:
    events: list[Event] = ["start", "succeed", "fail", "cancel", "recover"]
    told: dict[tuple[State, Event], State] = {}
    for state, event in itertools.product(STATES, events):
        if event in TRANSITIONS[state]:
            told[state, event] = after(state, event)
            continue
        with pytest.raises(TransitionError, match=f"{state} cannot {event}"):
            after(state, event)
    assert told == {
        ("queued", "start"): "running",
        ("queued", "cancel"): "cancelled",
        ("running", "succeed"): "succeeded",
        ("running", "fail"): "failed",
        ("running", "cancel"): "cancelled",
        ("running", "recover"): "queued",
    }
    assert set(ENDS) == {"succeeded", "failed", "cancelled"}
    assert set(TRANSITIONS) == set(STATES)


def test_progress_tells_rate_and_time_left_of_the_present_run() -> None:
    start = Progress(rows=1000, blocks=10)
    assert start.at(0, 0, 0, 0.0).seconds_left is None
    half = start.at(rows_done=600, blocks_done=6, rows_before=200, seconds=2.0)
    assert (half.rows_a_second, half.seconds_left) == (200.0, 2.0)
    assert half.to_json()["rows_done"] == 600
    assert start.at(200, 2, 200, 5.0).rows_a_second is None
