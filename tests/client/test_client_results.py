"""The clients return what the library returns, to the bit, through the real service."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client_support import ENCODINGS, OUTPUTS, assert_same, batch

import softxent
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client


@pytest.fixture(params=ENCODINGS)
def client(request: pytest.FixtureRequest, service_url: str) -> Iterator[Client]:
    with Client(service_url, encoding=request.param) as client:
        yield client


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("rows", [3, 5_000])
def test_results_are_the_librarys(client: Client, rows: int, reduction: str, dtype: str) -> None:
    call = {**batch(rows, 16, dtype), "reduction": reduction, "outputs": OUTPUTS}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_options_reach_the_service(client: Client) -> None:
    call: Any = {**batch(6, 4), "label_smoothing": 0.1, "scale": -2.5, "ignore_index": 1}
    call["labels"] = np.abs(call["labels"]) % 4
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_sequences_keep_their_shape(client: Client) -> None:
    logits = np.linspace(-3, 3, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    labels = np.arange(6).reshape(2, 3) % 4
    assert_same(client.cross_entropy(logits, labels), softxent.cross_entropy(logits, labels))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (0, 0)])
def test_batches_of_no_rows_keep_their_shape(client: Client, shape: tuple[int, ...]) -> None:
    logits, labels = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64)
    weights = np.ones(shape[-1])
    ours = client.cross_entropy(logits, labels, class_weights=weights)
    assert_same(ours, softxent.cross_entropy(logits, labels, class_weights=weights))


def test_read_only_strided_and_integer_inputs_are_sent_as_their_values(client: Client) -> None:
    logits = np.arange(12, dtype=np.float64).reshape(3, 4).T[::-1]
    labels = np.array([2, 0, 1, 1], np.uint8)
    weights = np.array([1, 2, 3])
    ours = client.cross_entropy(logits, labels, class_weights=weights)
    assert_same(ours, softxent.cross_entropy(logits, labels, class_weights=weights))


def test_non_finite_results_arrive(client: Client) -> None:
    call: Any = {"logits": np.array([[np.nan, 1], [np.inf, 0], [-np.inf, 1]]), "labels": [0, 0, 0]}
    ours = client.cross_entropy(**call, non_finite="propagate")
    assert_same(ours, softxent.cross_entropy(**call, non_finite="propagate"))


def test_arrays_of_a_binary_answer_are_views_of_what_was_received(service_url: str) -> None:
    with Client(service_url) as client:
        result = client.cross_entropy(**batch(4))
    assert result.gradient is not None
    assert result.gradient.base is not None
    assert result.gradient.flags.writeable


def test_info_states_the_limits_and_the_service_is_ready(client: Client) -> None:
    limits = client.info()["limits"]
    assert {"binary_bytes", "json_bytes", "tensors", "header_bytes"} <= set(limits)
    assert client.health() is True


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint32"])
def test_integer_logits_are_taken_as_the_library_takes_them(client: Client, dtype: str) -> None:
    logits = np.array([[1, 2, 3], [0, 100, 7]], dtype)
    assert_same(client.cross_entropy(logits, [0, 1]), softxent.cross_entropy(logits, [0, 1]))


def members(of: Any) -> dict[str, Any]:
    """Return everything that an explanation holds, its arrays as bytes with their dtypes."""
    found: dict[str, Any] = {}
    for name, value in vars(of).items():
        if dataclasses.is_dataclass(value):
            found |= {f"{name}.{inner}": v for inner, v in members(value).items()}
        elif isinstance(value, (np.ndarray, np.generic)):
            # A NaN has a sign, which says nothing.
            shown = np.where(np.isnan(value), np.nan, value).astype(value.dtype)
            found[name] = (value.dtype, value.shape, shown.tobytes())
        else:
            found[name] = value
    return found


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ([1.0, 2.0, 3.0], {"label": 1}),
        ([1.0, 2.0, 3.0], {"target_probabilities": [0.25, 0.5, 0.25]}),
        # Its textbook forms are infinite and NaN.
        ([800.0, 98.0], {"label": 0}),
        # Two steps are not defined.
        ([0.0, -800.0], {"label": 1}),
    ],
)
def test_explanations_are_the_librarys(
    client: Client, logits: list[float], target: dict[str, Any]
) -> None:
    steps = client.explain(logits, **target)
    assert isinstance(steps, softxent.Explanation)
    assert members(steps) == members(softxent.explain(logits, **target))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_async_client_does_the_same(service_url: str, encoding: Any) -> None:
    call = batch(50, 7)

    async def run() -> CrossEntropyResult:
        async with AsyncClient(service_url, encoding=encoding) as client:
            assert await client.health() is True
            assert (await client.info())["name"] == "softxent"
            assert (await client.explain([1.0, 2.0], 0)).loss == softxent.explain([1, 2], 0).loss
            return await client.cross_entropy(**call)

    assert_same(asyncio.run(run()), softxent.cross_entropy(**call))
