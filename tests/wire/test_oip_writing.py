"""Answers of the Open Inference Protocol, read again by hand."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from oip_bodies import answered
from softxent_client.wire import oip_form
from softxent_client.wire.oip_form import Encoded, Output, Region, Request

LOSS = np.array([0.1, np.nan, np.inf, -np.inf], np.float32)
RESULTS: dict[str, Any] = {
    "loss": LOSS,
    "gradient": np.arange(8, dtype=np.float32).reshape(4, 2),
    "count": 4,
}


def written(results: dict[str, Any], *outputs: Output, **rest: Any) -> Encoded:
    request = Request({}, {}, outputs, given_id=rest.pop("given_id", None))
    return oip_form.encode(results, request, "m", "1", **rest)


def joined(encoded: Encoded) -> bytes:
    return b"".join(encoded.pieces)


def test_outputs_stand_in_the_order_they_were_asked_for() -> None:
    encoded = written(
        RESULTS, Output("gradient", binary=True), Output("loss", binary=True), given_id="ä"
    )
    document, outputs = answered(joined(encoded), str(encoded.header_length))
    assert list(document) == ["id", "model_name", "model_version", "parameters", "outputs"]
    assert (document["id"], document["parameters"]) == ("ä", {"count": 4})
    assert list(outputs) == ["gradient", "loss"]
    assert np.array_equal(outputs["gradient"], RESULTS["gradient"])
    assert np.array_equal(outputs["loss"], LOSS, equal_nan=True)


def test_bytes_begin_at_a_multiple_of_64_and_are_the_arrays_own() -> None:
    gradient = np.zeros((3, 5))
    encoded = written({"gradient": gradient}, Output("gradient", binary=True))
    assert encoded.header_length is not None
    assert encoded.header_length % 64 == 0
    assert np.shares_memory(np.frombuffer(encoded.pieces[-1]), gradient)


@pytest.mark.parametrize(
    ("non_finite", "text"),
    [
        ("string", b'"data":[0.1,"NaN","Infinity","-Infinity"]'),
        ("literal", b'"data":[0.1,NaN,Infinity,-Infinity]'),
        ("null", b'"data":[0.1,null,null,null]'),
    ],
)
def test_numbers_that_json_lacks(non_finite: str, text: bytes) -> None:
    encoded = written({"loss": LOSS}, Output("loss", binary=False), non_finite=non_finite)
    assert encoded.header_length is None
    assert text in joined(encoded)


@pytest.mark.parametrize(
    ("array", "datatype", "data"),
    [
        (np.array(0.5), "FP64", [0.5]),
        (np.array([0.1, 0.2], np.float16), "FP16", [0.09998, 0.2]),
        (np.array([[0.1], [3]], ml_dtypes.bfloat16), "BF16", [0.100097656, 3.0]),
        (np.array([True, False]), "BOOL", [True, False]),
        (np.array([-1, 5]), "INT64", [-1, 5]),
        (np.zeros((0, 3), np.float32), "FP32", []),
    ],
)
def test_json_is_flat_and_of_the_type_of_the_output(array: Any, datatype: str, data: Any) -> None:
    (output,) = json.loads(joined(written({"o": array}, Output("o", binary=False))))["outputs"]
    assert output["datatype"] == datatype
    assert output["shape"] == list(array.shape)
    assert output["data"] == pytest.approx(data, rel=1e-3)


def test_large_json_comes_in_pieces() -> None:
    gradient = np.arange(100_000, dtype=np.float32).reshape(10, 10_000)
    encoded = written({"gradient": gradient}, Output("gradient", binary=False))
    assert max(map(len, encoded.pieces)) < 1 << 19
    assert json.loads(joined(encoded))["outputs"][0]["data"] == gradient.reshape(-1).tolist()


def test_what_lies_in_shared_memory_is_only_named() -> None:
    given = {"gradient": RESULTS["gradient"]}
    encoded = written(given, Output("gradient", binary=False, region=Region("r", 4, 99)))
    (output,) = json.loads(joined(encoded))["outputs"]
    assert output == {
        "name": "gradient",
        "datatype": "FP32",
        "shape": [4, 2],
        "parameters": {
            "shared_memory_region": "r",
            "shared_memory_offset": 4,
            "shared_memory_byte_size": 99,
        },
    }


def test_an_empty_output_adds_no_bytes() -> None:
    encoded = written({"o": np.zeros((0, 3))}, Output("o", binary=True))
    document, outputs = answered(joined(encoded), str(encoded.header_length))
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert outputs["o"].shape == (0, 3)
