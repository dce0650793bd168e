"""The histogram of a job's losses: the same counts however the job is cut, stopped or ordered."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import accepted, attributes_of, batch, run, save

import softxent
from softxent_service.jobs import engine
from softxent_service.jobs.block_result import Tally
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError
from softxent_service.jobs.histogram import BINS, Histogram, edge
from softxent_service.jobs.progress import Progress

EDGES = [2.0**power * quarter / 4 for power in range(-32, 24) for quarter in (4, 5, 6, 7)]
"""What the document says: four equally wide bins between two powers of 2."""


def logits_of(losses: list[float]) -> Any:
    """Return rows of two classes whose loss, for class 0, is log(1 + exp(d)), and so `losses`."""
    return np.array([[-math.log(math.expm1(loss)), 0.0] for loss in losses])


def middle(first: float, last: float) -> float:
    return (first + last) / 2


def histogram(folder: Path, cluster: Cluster, **members: Any) -> dict[str, Any]:
    found: dict[str, Any] = run(accepted(folder, **members), cluster)["loss_histogram"]
    return found


def test_the_edges_are_those_of_the_document() -> None:
    assert [edge(place) for place in range(BINS + 1)] == [*EDGES, 2.0**24]
    assert all(float(np.float32(value)) == value for value in EDGES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_at_an_edge_belongs_to_the_bin_above(dtype: Any) -> None:
    for place, value in enumerate(EDGES):
        there = dtype(value)
        counts = Histogram.of(np.array([np.nextafter(there, dtype(0)), there], dtype)).counts
        assert counts.nonzero()[0].tolist() == [place, place + 1]


def test_what_no_bin_takes_is_counted_beside_them() -> None:
    values = [0.0, -0.0, -3.0, 5e-324, 2.0**-33, 2.0**24, 1e300, math.nan, math.inf, -math.inf]
    told = Histogram.of(np.array(values)).to_json()
    assert told == {"edges": [], "counts": [], "below": 5, "above": 2, "non_finite": 3}


def test_losses_that_mathematics_tells_lie_in_their_bins(tmp_path: Path, cluster: Cluster) -> None:
    # Between neighbouring edges from 2^-4 to 2^3: k rows in the k-th bin.
    places = [place for place, value in enumerate(EDGES) if 2.0**-4 <= value < 8]
    bins = list(itertools.pairwise([EDGES[place] for place in (*places, places[-1] + 1)]))
    losses = [middle(*bounds) for k, bounds in enumerate(bins) for _ in range(k + 1)]
    save(tmp_path, {"logits": logits_of(losses), "labels": np.zeros(len(losses), np.int64)})
    assert histogram(tmp_path, cluster) == {
        "edges": [EDGES[place] for place in (*places, places[-1] + 1)],
        "counts": [k + 1 for k in range(len(bins))],
        "below": 0,
        "above": 0,
        "non_finite": 0,
    }
    assert attributes_of(tmp_path)["loss_histogram"]["counts"][0] == 1


def test_ignored_rows_are_not_counted(tmp_path: Path, cluster: Cluster) -> None:
    tensors = {
        "logits": logits_of([0.3, 0.3, 0.3, 5.5]),
        "labels": np.array([0, -100, 0, 0]),
        "row_weights": np.array([1.0, 1.0, 0.0, 2.0]),
    }
    save(tmp_path, tensors)
    # A weighted loss is counted as it is, 11.
    assert histogram(tmp_path, cluster) | {"edges": 0, "counts": 0} == {
        "edges": 0,
        "counts": 0,
        "below": 0,
        "above": 0,
        "non_finite": 0,
    }
    told = attributes_of(tmp_path)["loss_histogram"]
    assert (told["edges"][0], told["edges"][-1]) == (0.25, 12.0)
    assert (told["counts"][0], told["counts"][-1], sum(told["counts"])) == (1, 1, 2)


def test_skipped_rows_are_not_counted(tmp_path: Path, cluster: Cluster) -> None:
    logits, labels = logits_of([0.3] * 6), np.zeros(6, np.int64)
    labels[2], logits[4, 0] = 7, math.nan
    save(tmp_path, {"logits": logits, "labels": labels})
    job = accepted(tmp_path, on_error="skip")
    attributes = run(job, cluster)
    assert (attributes["skipped"], attributes["count"]) == (2, 4)
    assert attributes["loss_histogram"]["counts"] == [4]


def test_losses_that_are_not_finite_are_counted_apart(tmp_path: Path, cluster: Cluster) -> None:
    logits = logits_of([0.3, 0.3, 0.3])
    logits[1] = math.inf, 0
    save(tmp_path, {"logits": logits, "labels": np.zeros(3, np.int64)})
    told = histogram(tmp_path, cluster, non_finite="propagate")
    assert (told["counts"], told["non_finite"]) == ([2], 1)


@pytest.mark.parametrize("tail", ["renormalize", "none"])
def test_rows_without_a_top_k_target_are_not_counted(
    tmp_path: Path, cluster: Cluster, tail: str
) -> None:
    save(
        tmp_path,
        {
            "logits": logits_of([0.3, 0.3, 0.3]),
            "target_indices": np.array([[0, -1], [-1, -1], [0, -1]]),
            "target_log_probabilities": np.array([[0.0, 0], [0, 0], [-np.inf, 0]]),
        },
    )
    attributes = run(accepted(tmp_path, tail=tail), cluster)
    counted = attributes["loss_histogram"]
    assert sum(counted["counts"]) + counted["below"] == attributes["count"]
    assert counted["counts"] == [1]
    # Without renormalisation the third row has a target of no mass, and so no loss.
    assert counted["below"] == (1 if tail == "none" else 0)


def test_any_cut_gives_the_same_counts(tmp_path: Path, cluster: Cluster) -> None:
    classes, found = 3 * softxent.TILE + 5, []
    tensors = batch(97, classes)
    for name, chunks, block_bytes in (
        ("rows", (10, classes), 1 << 30),
        ("few", (10, classes), 10 * classes * 4),
        ("columns", (20, softxent.TILE), 1000),
    ):
        folder = tmp_path / name
        folder.mkdir()
        save(folder, tensors, chunks)
        job = accepted(folder, block_bytes)
        found.append((job.plan.blocks, job.plan.is_sharded, run(job, cluster)["loss_histogram"]))
    assert [(blocks > 1, sharded) for blocks, sharded, _ in found] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert found[0][2] == found[1][2] == found[2][2]
    assert sum(found[0][2]["counts"]) == int((tensors["labels"] >= 0).sum())


def test_a_job_that_was_stopped_has_the_counts_of_one_that_was_not(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, batch(400, 20))
    want = histogram(tmp_path, cluster, output="whole")
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    told: list[Progress] = []
    job = accepted(tmp_path, block_bytes=800)
    with pytest.raises(StoppedError):
        engine.run_job(job, cluster, told.append, lambda: told[-1].blocks_done >= 10)
    assert run(accepted(tmp_path, block_bytes=800), cluster)["loss_histogram"] == want


def test_merging_knows_no_order() -> None:
    random = np.random.default_rng(7)
    losses = np.exp(random.normal(size=3000) * 12)
    losses[:3] = 0, math.inf, math.nan
    whole = Histogram.of(losses)
    parts = np.split(losses, [1, 2, 500, 1100])
    for order in itertools.permutations(range(5)):
        tally = Tally().histogram
        for part in order:
            tally = tally.plus(Histogram.of(parts[part]))
        assert (tally.counts == whole.counts).all()
    assert whole.rows == 3000


@pytest.mark.parametrize("record", [{"-1": 1}, {"x": 1}, {"3": -1}, {"9999": 1}, {"3": "1"}, [3]])
def test_a_record_that_is_no_histogram_is_not_believed(record: Any) -> None:
    with pytest.raises((TypeError, ValueError, IndexError, AttributeError)):
        Histogram.from_record(record)
