"""Many requests at once through several kernels at a time, under each threading layer there is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from service_support import batch

import softxent
from conftest import running_service
from softxent.serving import PARALLEL_ELEMENTS
from softxent_client import Client
from threading_layers import layers

CLIENTS = 32
BINARY = 60
JSON = 4
"""Requests of each client: 2,048 in all, each on a batch just large enough for the parallel loops;
in JSON one takes as long as twenty in binary."""

SHAPES = ((3_300, 10), (520, 64), (33, 1_000))


@pytest.mark.parametrize("layer", layers())
def test_thirty_two_clients_of_eight_parallel_kernels(
    layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_THREADING_LAYER", layer)
    batches: list[dict[str, Any]] = [{**batch(rows, classes)} for rows, classes in SHAPES]
    assert all(PARALLEL_ELEMENTS <= each["logits"].size < 35_000 for each in batches)
    wanted = [bits(softxent.cross_entropy(**each)) for each in batches]
    start = threading.Barrier(CLIENTS)

    def ask(number: int) -> int:
        right = 0
        with Client(url) as binary, Client(url, encoding="json") as json:
            start.wait()
            for i in range(BINARY + JSON):
                client = json if i % (BINARY // JSON + 1) == 0 else binary
                which = (number + i) % len(batches)
                right += bits(client.cross_entropy(**batches[which])) == wanted[which]
        return right

    # Two threads of a kernel even where there is one core.
    with running_service("--max-concurrent-kernels=8", "--threads=2") as url:
        with ThreadPoolExecutor(CLIENTS) as pool:
            right = list(pool.map(ask, range(CLIENTS)))
        with Client(url) as client:
            assert client.health() is True
            assert client.info()["threading_layer"] == layer
            assert bits(client.cross_entropy(**batches[0])) == wanted[0]
    assert right == [BINARY + JSON] * CLIENTS


def bits(result: softxent.CrossEntropyResult) -> tuple[bytes, bytes, float, float, int]:
    loss, gradient = np.asarray(result.loss), np.asarray(result.gradient)
    sums = (result.loss_sum, result.weight_sum, result.count)
    return (loss.tobytes(), gradient.tobytes(), *sums)
