"""Every target through the clients: whole or in parts, the library's bits and refusals."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client_support import ENCODINGS, KINDS, OUTPUTS, assert_same, target_batch
from relay import Relay, relay_before

import softxent
from conftest import running_service
from softxent.errors import EmptyReductionError, LabelError, RowsError, SoftxentError
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client

ROWS = 1_500
"""Bodies of 100 kB and more, over the limit of the service below."""

OPTIONS: tuple[dict[str, Any], ...] = (
    {"outputs": OUTPUTS},
    {"outputs": OUTPUTS, "reduction": "mean", "z_loss": 0.01, "temperature": 2.5},
    {"reduction": "mean", "mean_over": "rows", "softcap": 5.0},
    {"reduction": "sum", "label_smoothing": 0.1, "smoothing": "others"},
)


@pytest.fixture(scope="module")
def tight_url() -> Iterator[str]:
    with running_service("--binary-bytes=60000", "--json-bytes=60000") as url:
        yield url


@pytest.fixture(params=ENCODINGS)
def client(request: pytest.FixtureRequest, tight_url: str) -> Iterator[Client]:
    with Client(tight_url, encoding=request.param) as client:
        yield client


@pytest.fixture
def relay(service_url: str) -> Iterator[Relay]:
    with relay_before(service_url) as relay:
        yield relay


def test_the_signature_is_the_librarys() -> None:
    wanted = dict(inspect.signature(softxent.cross_entropy).parameters)
    for name in ("out", "num_threads"):
        del wanted[name]
    for cls in (Client, AsyncClient):
        found = dict(inspect.signature(cls.cross_entropy).parameters)
        del found["self"]
        assert found == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [5, ROWS])
def test_results_are_the_librarys_whole_and_in_parts(client: Client, kind: str, rows: int) -> None:
    call = target_batch(kind, rows)
    for options in OPTIONS:
        given = {**call, **options}
        assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))


@pytest.mark.parametrize("tail", ["bucket", "none"])
def test_tails_in_parts(client: Client, tail: str) -> None:
    given = {**target_batch("top_k", ROWS), "reduction": "mean", "tail": tail}
    del given["class_weights"]
    assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_row", [False, True])
def test_masks_in_parts(client: Client, kind: str, per_row: bool) -> None:
    call = target_batch(kind, ROWS)
    mask = np.ones(call["logits"].shape, np.bool_)
    mask[1::2, -1] = False
    given = {**call, "class_mask": mask if per_row else mask[1], "reduction": "mean"}
    assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["probabilities", "labels and top_k"])
def test_other_dtypes_in_parts(client: Client, kind: str, dtype: str) -> None:
    for given in (target_batch(kind, ROWS, dtype), target_batch(kind, ROWS, dtype, soft="float32")):
        assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_in_parts(client: Client, kind: str) -> None:
    flat = target_batch(kind, ROWS)
    leading = (3, ROWS // 3)
    given: dict[str, Any] = {
        name: value.reshape(*leading, *value.shape[1:])
        if isinstance(value, np.ndarray) and name != "class_weights"
        else value
        for name, value in flat.items()
    }
    given["class_mask"] = np.ones(given["logits"].shape, np.bool_)
    assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leading", [(0,), (2, 0)])
def test_no_rows_of_every_target(client: Client, kind: str, leading: tuple[int, ...]) -> None:
    given: dict[str, Any] = {
        name: np.empty((*leading, *value.shape[1:]), value.dtype)
        if isinstance(value, np.ndarray) and name != "class_weights"
        else value
        for name, value in target_batch(kind, 5).items()
    }
    for mask in (np.ones(10, np.bool_), np.ones((*leading, 10), np.bool_)):
        call: dict[str, Any] = {**given, "class_mask": mask}
        assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_faults_of_a_target_in_a_later_part_are_rows_of_the_whole(client: Client) -> None:
    given = target_batch("top_k", ROWS)
    given["row_weights"][1_400] = 1
    given["target_indices"][1_400, 0] = 10
    with pytest.raises(LabelError) as caught:
        client.cross_entropy(**given)
    assert caught.value.details() == {
        "field": "target_indices",
        "rows": [1_400],
        "values": [10],
        "total": 1,
    }
    given = target_batch("probabilities", ROWS)
    given["row_weights"][1_400] = 1
    given["target_probabilities"][1_400, 3] = np.inf
    with pytest.raises(RowsError) as theirs:
        client.cross_entropy(**given)
    assert (theirs.value.rows, theirs.value.values) == ((1_400,), ("Infinity",))


def test_means_over_no_rows(client: Client) -> None:
    given = {**target_batch("labels", ROWS), "reduction": "mean", "mean_over": "rows"}
    given["labels"][:] = -100
    assert_same(client.cross_entropy(**given), softxent.cross_entropy(**given))
    with pytest.raises(EmptyReductionError):
        client.cross_entropy(**given, empty="error")


P = np.full((2, 3), 1 / 3, np.float32)
INDICES, LOGS = np.array([[0, 1], [1, 2]]), np.full((2, 2), -1.0)
LOGITS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"target_probabilities": P[:, :2]},
        {"target_probabilities": P > 0},
        {"target_probabilities": P, "target_indices": INDICES, "target_log_probabilities": LOGS},
        {"target_indices": INDICES},
        {"target_indices": INDICES[:, :1], "target_log_probabilities": LOGS},
        {"target_indices": INDICES + 0.5, "target_log_probabilities": LOGS},
        {"labels": [0, 1], "target_probabilities": P},
        {"labels": [0, 1], "hard_weight": 0.5},
        {"labels": [0, 1], "tail": "none"},
        {"labels": [0, 1], "mean_over": "rows"},
        {"labels": [0, 1], "class_mask": [1, 1, 0]},
        {"labels": [0, 1], "class_mask": [True]},
        {
            "target_indices": INDICES,
            "target_log_probabilities": LOGS,
            "tail": "bucket",
            "class_weights": [1, 1, 1],
        },
    ],
    ids=repr,
)
def test_what_shapes_and_options_show_is_refused_before_anything_is_sent(
    relay: Relay, given: dict[str, Any]
) -> None:
    with pytest.raises(SoftxentError) as ours:
        softxent.cross_entropy(LOGITS, **given)
    with Client(relay.url) as client, pytest.raises(SoftxentError) as theirs:
        client.cross_entropy(LOGITS, **given)
    assert type(theirs.value) is type(ours.value)
    assert str(theirs.value) == str(ours.value)
    assert relay.paths == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_async_client_takes_every_target(tight_url: str, encoding: Any) -> None:
    async def run(given: dict[str, Any]) -> CrossEntropyResult:
        async with AsyncClient(tight_url, encoding=encoding) as client:
            return await client.cross_entropy(**given)

    for kind in KINDS:
        given = {**target_batch(kind, ROWS), "reduction": "mean"}
        assert_same(asyncio.run(run(given)), softxent.cross_entropy(**given))
