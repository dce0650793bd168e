"""The clients against the service itself: the library's results and the library's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import softxent
from softxent.errors import LabelError, NonFiniteError
from softxent.results import CrossEntropyResult
from softxent_client import AsyncClient, Client

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")


@pytest.fixture(params=["binary", "json"])
def client(request: pytest.FixtureRequest, service_url: str) -> Iterator[Client]:
    with Client(service_url, encoding=request.param) as client:
        yield client


def batch(rows: int, classes: int, dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "logits": (rng.normal(size=(rows, classes)) * 5).astype(dtype),
        "labels": rng.integers(0, classes, rows),
        "class_weights": rng.uniform(size=classes),
        "row_weights": rng.uniform(size=rows),
    }


def assert_same(ours: CrossEntropyResult, theirs: CrossEntropyResult) -> None:
    for name in (*OUTPUTS, "loss_sum", "weight_sum", "count"):
        a, b = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("rows", [3, 5_000])
def test_results_are_the_librarys(client: Client, rows: int, reduction: str, dtype: str) -> None:
    outputs = OUTPUTS if rows == 3 else ("loss", "gradient")
    call = {**batch(rows, 16, dtype), "reduction": reduction, "outputs": outputs}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_options_reach_the_service(client: Client) -> None:
    call: Any = {**batch(6, 4), "label_smoothing": 0.1, "scale": -2.5, "ignore_index": 1}
    assert_same(client.cross_entropy(**call), softxent.cross_entropy(**call))


def test_refusals_are_the_librarys_exceptions(client: Client) -> None:
    call: Any = {"logits": np.zeros((3, 2), np.float32), "labels": [0, 5, -1]}
    with pytest.raises(LabelError) as theirs:
        client.cross_entropy(**call)
    with pytest.raises(LabelError) as ours:
        softxent.cross_entropy(**call)
    assert theirs.value.details() == ours.value.details()


def test_non_finite_rows_are_named(client: Client) -> None:
    with pytest.raises(NonFiniteError) as caught:
        client.cross_entropy(np.array([[0, 1], [np.nan, 1]], np.float32), [0, 0])
    assert caught.value.rows == (1,)


def test_no_rows_are_a_batch(client: Client) -> None:
    result = client.cross_entropy(np.zeros((0, 3), np.float32), [])
    assert result.count == 0
    assert result.gradient is not None
    assert result.gradient.shape == (0, 3)


def test_info_states_the_limits_and_the_service_is_ready(client: Client) -> None:
    limits = client.info()["limits"]
    assert {"binary_bytes", "json_bytes", "tensors", "header_bytes"} <= set(limits)
    assert client.health()


@pytest.mark.parametrize("target", [{"label": 1}, {"target_probabilities": [0.25, 0.5, 0.25]}])
def test_explanations_come_step_by_step(client: Client, target: dict[str, Any]) -> None:
    steps = client.explain([1.0, 2.0, 3.0], **target)
    assert sum(steps["softmax_out"]) == pytest.approx(1)
    assert steps["fused_gradient"] == pytest.approx(steps["chain_rule_product"])


def test_the_async_client_does_the_same(service_url: str) -> None:
    call = batch(50, 7)

    async def run() -> CrossEntropyResult:
        async with AsyncClient(service_url) as client:
            assert await client.health()
            return await client.cross_entropy(**call)

    assert_same(asyncio.run(run()), softxent.cross_entropy(**call))
