"""KServe's `InferenceRESTClient` against the real service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

import softxent
from oip_bodies import DATATYPES, Array

LOGITS = np.random.default_rng(5).normal(size=(6, 11)).astype(np.float32)
LABELS = np.arange(6)


def run(use: Callable[[Any], Awaitable[None]]) -> None:
    async def whole() -> None:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(whole())


def tensor(name: str, array: Array, *, binary: bool) -> Any:
    given = InferInput(name, list(array.shape), DATATYPES[array.dtype])
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_health(shared_memory_url: str) -> None:
    async def ask(client: Any) -> None:
        url = shared_memory_url
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "cross_entropy")

    run(ask)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer(shared_memory_url: str, binary_in: bool, binary_out: bool) -> None:
    async def ask(client: Any) -> None:
        request = InferRequest(
            "cross_entropy",
            [
                tensor("logits", LOGITS, binary=binary_in),
                tensor("labels", LABELS, binary=binary_in),
            ],
            request_id="é",
            parameters={"label_smoothing": 0.25},
            request_outputs=[
                RequestedOutput(name, parameters={"binary_data": binary_out})
                for name in ("gradient", "loss")
            ],
        )
        answer = await client.infer(shared_memory_url, request, model_name="cross_entropy")
        wanted: Any = softxent.cross_entropy(LOGITS, LABELS, label_smoothing=0.25)
        assert answer.id == "é"
        assert [output.name for output in answer.outputs] == ["gradient", "loss"]
        assert np.array_equal(answer.outputs[0].as_numpy(), wanted.gradient)
        assert np.array_equal(answer.outputs[1].as_numpy(), wanted.loss)

    run(ask)


def test_refusals_reach_the_user(shared_memory_url: str) -> None:
    async def ask(client: Any) -> None:
        request = InferRequest("softmax", [tensor("logits", LABELS.reshape(2, 3), binary=True)])
        with pytest.raises(Exception, match="422"):
            await client.infer(shared_memory_url, request, model_name="softmax")

    run(ask)
