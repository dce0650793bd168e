"""The forms in which servers are asked for the same thing, and what their answers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from raw import Bytes, request_head

from softxent_client.wire import JSON, MEDIA_TYPES, RESPONSE, SAFETENSORS, Limits

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Answer = tuple[Array, Array]

OCTETS = "application/octet-stream"
HEADER_LENGTH = "inference-header-content-length"
TYPES = {"logits": "FP32", "labels": "INT64"}
"""Names of dtypes in the Open Inference Protocol."""


@dataclass(frozen=True)
class Form:
    """One way to ask: where, with which body, and how the answer's body is read.

    `encode` takes the tensors and how many threads are to compute, `decode` the answer's body and
    the shape of the logits; it returns loss [N] and gradient [N, C]. With `has_header`, the first
    piece of a body is a header whose length the request's head tells.
    """

    path: str
    media_type: str
    encode: Callable[[Arrays, int], list[Bytes]]
    decode: Callable[[memoryview, tuple[int, int]], Answer]
    has_header: bool = False

    def request(self, tensors: Arrays, threads: int = 1, path: str | None = None) -> list[Bytes]:
        """Return a request in pieces, to another path if one is given; no array is copied."""
        body = self.encode(tensors, threads)
        fields = [f"{HEADER_LENGTH}: {len(body[0])}"] if self.has_header else []
        path = path or self.path.format(threads=threads)
        return [request_head(path, self.media_type, sum(map(len, body)), *fields), *body]


def batch(rows: int, classes: int) -> Arrays:
    """Return logits [rows, classes] float32 and labels [rows] int64."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((rows, classes), np.float32)
    logits *= 3
    return {"logits": logits, "labels": generator.integers(0, classes, rows)}


def bytes_of(array: Array) -> memoryview:
    """Return an array's memory."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _ours(media_type: str) -> Form:
    form = MEDIA_TYPES[media_type]

    def decode(body: memoryview, shape: tuple[int, int]) -> Answer:  # noqa: ARG001
        largest = len(body)
        limits = Limits(binary_bytes=largest, json_bytes=largest)
        tensors = form.decode(body, RESPONSE(), limits)
        return tensors["loss"], tensors["gradient"]

    return Form(
        "/v1/cross_entropy", media_type, lambda tensors, _: list(form.encode(tensors)), decode
    )


def _plain_body(tensors: Arrays, threads: int) -> list[Bytes]:
    rows, classes = tensors["logits"].shape
    head = np.array([rows, classes, threads], np.int64).tobytes()
    return [head, bytes_of(tensors["logits"]), bytes_of(tensors["labels"])]


def _plain_answer(body: memoryview, shape: tuple[int, int]) -> Answer:
    values = np.frombuffer(body, np.float32)
    return values[: shape[0]], values[shape[0] :].reshape(shape)


def _list_body(tensors: Arrays, threads: int) -> list[Bytes]:
    return [orjson.dumps({**tensors, "threads": threads}, option=orjson.OPT_SERIALIZE_NUMPY)]


def _list_answer(body: memoryview, shape: tuple[int, int]) -> Answer:
    answer = orjson.loads(body)
    return np.array(answer["loss"]), np.array(answer["gradient"]).reshape(shape)


def _protocol_inputs(tensors: Arrays) -> list[dict[str, Any]]:
    return [{"name": n, "shape": t.shape, "datatype": TYPES[n]} for n, t in tensors.items()]


def _protocol_body(tensors: Arrays, threads: int) -> list[Bytes]:  # noqa: ARG001
    inputs = _protocol_inputs(tensors)
    for described, tensor in zip(inputs, tensors.values(), strict=True):
        described["parameters"] = {"binary_data_size": tensor.nbytes}
    header = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return [orjson.dumps(header), *map(bytes_of, tensors.values())]


def _protocol_answer(body: memoryview, shape: tuple[int, int]) -> Answer:
    described = bytes(body[:4096]).decode("latin-1")
    header = json.JSONDecoder().raw_decode(described)[1]
    return _plain_answer(body[header:], shape)


def _protocol_json_body(tensors: Arrays, threads: int) -> list[Bytes]:
    inputs = _protocol_inputs(tensors)
    for described, tensor in zip(inputs, tensors.values(), strict=True):
        described["data"] = tensor.reshape(-1)
    message = {"parameters": {"threads": threads}, "inputs": inputs}
    return [orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)]


def _protocol_json_answer(body: memoryview, shape: tuple[int, int]) -> Answer:
    values = [np.array(output["data"]) for output in orjson.loads(body)["outputs"]]
    return values[0], values[1].reshape(shape)


OURS = _ours(SAFETENSORS)
OURS_JSON = _ours(JSON)
PLAIN = Form("/binary", OCTETS, _plain_body, _plain_answer)
LISTS = Form("/json", JSON, _list_body, _list_answer)
TRITON = Form(
    "/v2/models/cross_entropy_{threads}/infer", OCTETS, _protocol_body, _protocol_answer, True
)
TRITON_JSON = Form(TRITON.path, JSON, _protocol_json_body, _protocol_json_answer)
MLSERVER_JSON = Form(
    "/v2/models/cross_entropy/infer", JSON, _protocol_json_body, _protocol_json_answer
)
