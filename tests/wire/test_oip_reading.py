"""Requests of the Open Inference Protocol that are right, read into the same tensors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from oip_bodies import DATATYPES, as_bytes, as_json, binary, described, message
from softxent.evaluations import CROSS_ENTROPY, HESSIAN_VECTOR_PRODUCT, SOFTMAX, Evaluation
from softxent_client.wire import Limits, oip_form
from softxent_client.wire.oip_form import Output, Placed, Region, Request

LOGITS = np.array([[2, 1, 0.1], [20, 0, 0]], np.float32)
LABELS = np.array([0, 2])


def read(
    body: bytes | dict[str, Any], length: int | None = None, evaluation: Evaluation = CROSS_ENTROPY
) -> Request:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return oip_form.decode(sent, length, evaluation, Limits())


@pytest.mark.parametrize("dtype", DATATYPES, ids=DATATYPES.values())
@pytest.mark.parametrize("way", ["bytes", "flat", "nested"])
def test_every_data_type_is_what_was_sent(dtype: np.dtype[Any], way: str) -> None:
    name = "logits" if dtype.kind in "fV" else "labels"
    array = np.array([[1, 0, 1], [0, 1, 1]] if name == "logits" else [1, 0]).astype(dtype)
    others = {"logits": LOGITS} if name == "labels" else {}
    inputs = [as_bytes(n, a) for n, a in others.items()]
    if way == "bytes":
        body, _ = message({"inputs": [*inputs, as_bytes(name, array)]}, *others.values(), array)
        length = len(body) - array.nbytes - sum(a.nbytes for a in others.values())
    else:
        entry = as_json(name, array, flat=way == "flat")
        body, headers = message({"inputs": [*inputs, entry]}, *others.values())
        length = int(next(iter(headers.values())))
    tensor = read(body, length).tensors[name]
    assert tensor.dtype == dtype
    assert np.array_equal(tensor, array)


@pytest.mark.parametrize("spaces", range(8))
def test_bytes_are_views_wherever_they_begin(spaces: int) -> None:
    text = json.dumps({"inputs": [as_bytes("logits", LOGITS)]}).encode() + b" " * spaces
    body = bytearray(text + LOGITS.tobytes())
    tensor = oip_form.decode(body, len(text), SOFTMAX, Limits()).tensors["logits"]
    assert np.array_equal(tensor, LOGITS)
    body[len(text) :] = (LOGITS + 1).tobytes()
    assert np.array_equal(tensor, LOGITS + 1)


def test_bytes_follow_one_another_in_the_order_of_inputs() -> None:
    weights = np.array([1.0, 2.0, 3.0])
    document = {
        "inputs": [
            as_bytes("class_weights", weights),
            as_json("labels", LABELS),
            as_bytes("logits", LOGITS),
        ]
    }
    body, headers = message(document, weights, LOGITS)
    tensors = read(body, int(next(iter(headers.values())))).tensors
    for name, array in (("class_weights", weights), ("labels", LABELS), ("logits", LOGITS)):
        assert np.array_equal(tensors[name], array)


def test_words_and_bare_words_are_numbers() -> None:
    text = (
        b'{"id":"NaN, \\"Infinity","inputs":[{"name":"logits","datatype":"FP32","shape":[1,5],'
        b'"data":[NaN,-Infinity,Infinity,"NaN","-Infinity"]}]}'
    )
    request = read(text, None, SOFTMAX)
    assert np.array_equal(
        request.tensors["logits"],
        np.array([[np.nan, -np.inf, np.inf, np.nan, -np.inf]], np.float32),
        equal_nan=True,
    )
    assert request.given_id == 'NaN, "Infinity'


def test_null_counts_as_absent() -> None:
    entry = {**as_json("logits", LOGITS), "parameters": None}
    request = read(
        {"id": None, "inputs": [entry], "outputs": None, "parameters": None}, None, SOFTMAX
    )
    assert request.given_id is None
    assert request.outputs == (Output("probabilities", binary=False),)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_no_rows(rows: int) -> None:
    logits = np.zeros((rows, 0 if not rows else 3), np.float32)
    for entry in (as_json("logits", logits), as_json("logits", logits, flat=False)):
        assert read({"inputs": [entry]}, None, SOFTMAX).tensors["logits"].shape == logits.shape
    body, headers = binary({"logits": logits})
    tensor = read(body, int(headers["inference-header-content-length"]), SOFTMAX).tensors["logits"]
    assert tensor.shape == logits.shape


def outputs(given: list[dict[str, Any]], **parameters: Any) -> tuple[Output, ...]:
    inputs = [as_json("logits", LOGITS), as_json("labels", LABELS)]
    return read({"inputs": inputs, "outputs": given, "parameters": parameters}).outputs


def test_outputs_are_json_unless_asked_for_as_bytes() -> None:
    loss, gradient = Output("loss", binary=False), Output("gradient", binary=False)
    assert outputs([]) == (loss, gradient)
    assert outputs([{"name": "gradient"}, {"name": "loss"}]) == (gradient, loss)


def test_what_one_output_says_overrides_what_all_say() -> None:
    given: list[Any] = [
        {"name": "gradient"},
        {"name": "loss", "parameters": {"binary_data": False}},
    ]
    assert outputs([], binary_data_output=True) == (Output("loss", True), Output("gradient", True))
    assert outputs(given, binary_data_output=True) == (
        Output("gradient", True),
        Output("loss", False),
    )


def test_shared_memory_is_named_and_not_looked_at() -> None:
    place = {
        "shared_memory_region": "a b",
        "shared_memory_byte_size": 24,
        "shared_memory_offset": 3,
    }
    request = read(
        {
            "inputs": [described("logits", LOGITS, parameters=place)],
            "outputs": [{"name": "probabilities", "parameters": {**place, "binary_data": False}}],
        },
        None,
        SOFTMAX,
    )
    region = Region("a b", 3, 24)
    assert request.placed == {"logits": Placed(np.dtype(np.float32), (2, 3), region)}
    assert request.outputs == (Output("probabilities", binary=False, region=region),)
    assert request.nbytes == 24


def test_every_evaluation_has_its_tensors() -> None:
    given = {"logits": LOGITS, "vectors": LOGITS, "labels": LABELS}
    body, headers = binary(given, temperature=2.0)
    request = read(body, int(next(iter(headers.values()))), HESSIAN_VECTOR_PRODUCT)
    assert set(request.tensors) == set(given)
    assert request.parameters == {"temperature": 2.0}
    assert [output.name for output in request.outputs] == ["hessian_vector_product"]
