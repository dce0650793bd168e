"""Batches over the service's limit: sent in parts, merged to the bits of the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from client_support import ENCODINGS, OUTPUTS, assert_same, batch
from relay import problem, relay_before

import softxent
from conftest import free_port, running_service
from softxent.errors import (
    EmptyReductionError,
    LabelError,
    NonFiniteError,
    SoftxentError,
    WeightError,
)
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client
from softxent_client.batches import ASK_LIMIT_BYTES
from softxent_client.wire import LimitExceededError

LIMITS = {"binary": 60_000, "json": 50_000}
FLAGS = ("--binary-bytes=60000", "--json-bytes=50000")
ROWS = 3_000
"""168 kB in binary and 500 kB in JSON: sent whole and refused, which tells the limit."""

MANY_ROWS = 25_000
"""1.4 MB in binary: the limit is asked for first."""


@pytest.fixture(scope="module")
def tight_url() -> Iterator[str]:
    with running_service(*FLAGS) as url:
        yield url


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(encoding: Any, tight_url: str) -> Iterator[Client]:
    with Client(tight_url, encoding=encoding) as client:
        yield client


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("outputs", [("loss",), ("gradient",), OUTPUTS])
def test_parts_merge_to_the_bits_of_the_whole(
    client: Client, reduction: str, outputs: tuple[str, ...]
) -> None:
    call = {**batch(ROWS), "reduction": reduction, "outputs": outputs, "label_smoothing": 0.1}
    for _ in range(2):
        assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_parts_of_products_and_of_softmax(client: Client, reduction: str) -> None:
    tensors = batch(ROWS)
    vectors = np.random.default_rng(1).normal(size=tensors["logits"].shape).astype(np.float32)
    call = {**tensors, "vectors": vectors, "reduction": reduction, "z_loss": 0.01}
    wanted = softxent.hessian_vector_product(**call)
    assert client.hessian_vector_product(**call).tobytes() == wanted.tobytes()
    for name in ("softmax", "log_softmax", "logsumexp"):
        found, right = (getattr(o, name)(tensors["logits"]) for o in (client, softxent))
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        assert found.tobytes() == right.tobytes()


def test_parts_of_a_batch_whose_limit_is_asked_for(client: Client) -> None:
    call = {**batch(MANY_ROWS), "reduction": "mean"}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_parts_of_unweighted_float64_sequences(client: Client) -> None:
    given = batch(6_000, classes=4, dtype="float64")
    logits, labels = given["logits"].reshape(20, 300, 4), given["labels"].reshape(20, 300)
    for options in ({"reduction": "mean"}, {"reduction": "mean", "denominator": 7.0}, {}):
        ours = client.cross_entropy(logits, labels, **options)
        assert_same(ours, softxent.cross_entropy(logits, labels, **options))


@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_parts_of_a_mean_over_nothing(client: Client, empty: str) -> None:
    call = {**batch(ROWS), "labels": np.full(ROWS, -100), "reduction": "mean", "empty": empty}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def faulty(**changes: Any) -> dict[str, Any]:
    """A batch without weight: its mean divides by 0, besides what else is wrong with it."""
    call = {**batch(ROWS), "class_weights": np.zeros(10), "reduction": "mean", "empty": "error"}
    for name, (rows, value) in changes.items():
        call[name] = call[name].copy()
        call[name][rows] = value
    call["row_weights"] = call["row_weights"] + (call["row_weights"] == 0)
    return call


FAULTS: dict[str, tuple[type[SoftxentError], dict[str, Any]]] = {
    "nothing else": (EmptyReductionError, faulty()),
    "and logits that are not finite": (EmptyReductionError, faulty(logits=(5, np.nan))),
    "and bad labels": (LabelError, faulty(labels=([3, 2_999], 10))),
    "and bad weights and labels": (
        WeightError,
        faulty(row_weights=([1_500, 2_998], -1.0), labels=([3], 10)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_are_refused_as_the_whole_is(client: Client, fault: str) -> None:
    error, call = FAULTS[fault]
    with pytest.raises(error) as whole:
        softxent.cross_entropy(**call)
    with pytest.raises(error) as parts:
        client.cross_entropy(**call)
    assert str(parts.value) == str(whole.value)
    assert parts.value.details() == whole.value.details()


def test_an_ignored_row_hides_no_lost_mean_in_parts(client: Client) -> None:
    given = batch(ROWS)
    given["row_weights"] = np.full(ROWS, 1e-46)
    given["labels"][0], given["row_weights"][0] = -100, 1.0
    call: dict[str, Any] = {"reduction": "mean", "mean_over": "rows", "outputs": "loss"}
    with pytest.raises(WeightError, match="losses lose digits"):
        client.cross_entropy(**given, **call)


def test_rows_of_a_part_that_are_not_finite_are_rows_of_the_whole(client: Client) -> None:
    call = batch(ROWS)
    call["logits"][2_900] = np.inf
    call["labels"][2_900] = 0
    call["row_weights"][2_900] = 1
    with pytest.raises(NonFiniteError) as caught:
        client.cross_entropy(**call)
    assert (caught.value.rows, caught.value.total) == ((2_900,), 1)


@pytest.mark.parametrize("classes", [20_000, 400_000])
def test_a_row_over_the_limit_is_refused_with_the_limit(
    client: Client, encoding: str, classes: int
) -> None:
    with pytest.raises(LimitExceededError) as caught:
        client.cross_entropy(np.full((2, classes), 0.5, np.float32), [0, 0])
    assert caught.value.limit_name == f"{encoding}_bytes"
    assert caught.value.limit == LIMITS[encoding]


def test_the_async_client_sends_parts(tight_url: str, encoding: Any) -> None:
    call = {**batch(ROWS), "reduction": "mean"}

    async def run() -> CrossEntropyResult:
        async with AsyncClient(tight_url, encoding=encoding) as client:
            return await client.cross_entropy(**call)

    assert_same(asyncio.run(run()), softxent.cross_entropy(**call))


def test_limits_are_asked_for_once_and_only_before_large_bodies(
    service_url: str, encoding: Any
) -> None:
    with relay_before(service_url) as relay, Client(relay.url, encoding=encoding) as client:
        for rows in (4, MANY_ROWS, 4, MANY_ROWS):
            call = batch(rows)
            assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))
    evaluation = "/v1/cross_entropy"
    assert relay.paths == [evaluation, "/v1/info", evaluation, evaluation, evaluation]


def test_a_refusal_tells_the_limit_once(tight_url: str, encoding: Any) -> None:
    call = batch(ROWS)
    with relay_before(tight_url) as relay, Client(relay.url, encoding=encoding) as client:
        for _ in range(2):
            assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))
    over = [size for size in relay.bodies if size > LIMITS[encoding]]
    assert over == relay.bodies[:1]
    assert over[0] < ASK_LIMIT_BYTES
    assert "/v1/info" not in relay.paths


def test_a_service_restarted_with_a_lower_limit() -> None:
    port, small, large = free_port(), batch(ROWS), batch(MANY_ROWS)
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        pairs = [
            (stack.enter_context(Client(url, encoding=encoding)), {**call, "reduction": "mean"})
            for encoding in ENCODINGS
            for call in (small, large)
        ]
        # The first limit is known to clients that sent the large batch, the second one to all.
        for flags in ((), FLAGS, ("--binary-bytes=9000", "--json-bytes=8000")):
            with running_service(*flags, port=port):
                for client, call in pairs:
                    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


@pytest.mark.parametrize(
    ("limit_name", "limit"),
    [("json_bytes", 9), ("tensors", 1), ("binary_bytes", 1 << 60)],
)
def test_refusals_that_parts_cannot_meet_are_raised(
    service_url: str, limit_name: str, limit: Any
) -> None:
    with relay_before(service_url) as relay, Client(relay.url) as client:
        relay.next_answers = [
            problem(413, "limit-exceeded", "too large", limit_name=limit_name, limit=limit)
        ]
        with pytest.raises(LimitExceededError, match="too large") as caught:
            client.cross_entropy(**batch(2))
    assert (caught.value.limit_name, caught.value.limit) == (limit_name, limit)
    assert len(relay.bodies) == 1
