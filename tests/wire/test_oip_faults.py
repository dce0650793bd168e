"""One wrong request a fault, each refused for what it is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from oip_bodies import as_bytes, as_json, described
from softxent.errors import RowsError, SoftxentError, TensorError
from softxent.evaluations import CROSS_ENTROPY
from softxent_client.wire import (
    LimitExceededError,
    Limits,
    MalformedBodyError,
    NotSupportedError,
    UnknownNameError,
    oip_form,
)

LOGITS = np.array([[2, 1, 0.1], [20, 0, 0]], np.float32)
LABELS = np.array([0, 2])
GOOD = [as_json("logits", LOGITS), as_json("labels", LABELS)]


def refusal(document: Any, blob: bytes = b"", length: int | None = None) -> SoftxentError:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    header_length = len(text) if length is None else length
    with pytest.raises(SoftxentError) as caught:
        oip_form.decode(text + blob, header_length, CROSS_ENTROPY, Limits())
    return caught.value


@pytest.mark.parametrize("length", [-1, 10**9, 2**63])
def test_a_header_length_beyond_the_body(length: int) -> None:
    error = refusal({"inputs": GOOD}, length=length)
    assert type(error) is MalformedBodyError
    assert f"got: {length}" in error.message


def test_a_raw_request() -> None:
    assert "raw binary request" in refusal({"inputs": GOOD}, length=0).message


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b'"inputs"',
        b'{"inputs": [}',
        b"\xff",
        b'{"inputs": NaNN}',
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [[]]},
        {"inputs": GOOD, "id": 3},
        {"inputs": GOOD, "parameters": []},
        {"inputs": GOOD, "parameters": {"binary_data_output": 1}},
        {"inputs": GOOD, "outputs": {}},
        {"inputs": GOOD, "outputs": ["loss"]},
        {"inputs": GOOD, "outputs": [{}]},
        {"inputs": GOOD, "outputs": [{"name": 1}]},
        {"inputs": GOOD, "outputs": [{"name": "loss"}, {"name": "loss"}]},
        {"inputs": GOOD, "outputs": [{"name": "loss", "parameters": {"binary_data": "yes"}}]},
        {"inputs": [{**GOOD[0], "name": None}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "datatype": None}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "datatype": 32}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": None}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": [2, -3]}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": [2, True]}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": [2, 3.0]}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": [3, 3]}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "shape": [2**31, 2**31, 2**31]}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "parameters": 1}, GOOD[1]]},
        {"inputs": [{**GOOD[0], "parameters": {"binary_data_size": 24}}, GOOD[1]]},
        {"inputs": [described("logits", LOGITS), GOOD[1]]},
        {"inputs": [*GOOD, GOOD[0]]},
    ],
)
def test_malformed(document: Any) -> None:
    assert type(refusal(document)) is MalformedBodyError


@pytest.mark.parametrize("size", [0, 23, 25, -24, 2**63, 2**70, "24", 24.0, True])
def test_a_declared_size_that_is_not_that_of_the_shape(size: Any) -> None:
    entry = described("logits", LOGITS, parameters={"binary_data_size": size})
    assert type(refusal({"inputs": [entry, GOOD[1]]}, LOGITS.tobytes())) is MalformedBodyError


@pytest.mark.parametrize("depth", [970, 1_000, 1_023])
def test_nesting_beside_a_tie_is_refused_where_python_cannot_read_it(depth: int) -> None:
    """The texts of numbers are read where one lies between two float32."""
    nested = "[" * depth + "]" * depth
    data = (
        '{"name":"logits","shape":[1,2],"datatype":"FP32","data":[1.0000000596046447753906251,2]}'
    )
    text = f'{{"x":{nested},"inputs":[{data}]}}'
    with pytest.raises(MalformedBodyError, match="nested too deeply"):
        oip_form.decode(text.encode(), None, CROSS_ENTROPY, Limits())


def test_bytes_that_are_missing_or_left_over() -> None:
    document = {"inputs": [as_bytes("logits", LOGITS), GOOD[1]]}
    short = refusal(document, LOGITS.tobytes()[:-1])
    assert "expecting 1 additional bytes" in short.message
    assert short.field == "logits"
    assert "additional input data" in refusal(document, LOGITS.tobytes() + b"x").message


def test_several_sources_or_none_are_named() -> None:
    entry = {**GOOD[0], "parameters": {"binary_data_size": 24}}
    both = refusal({"inputs": [entry, GOOD[1]]})
    assert both.message.endswith("But set 'data' and 'binary_data_size'")
    none = refusal({"inputs": [described("logits", LOGITS), GOOD[1]]})
    assert none.message.endswith("But no field is set")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ({"shared_memory_region": 3, "shared_memory_byte_size": 24}, "must be a string"),
        ({"shared_memory_region": "r"}, "byte_size is None"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 23}, "byte_size is 23"),
        (
            {
                "shared_memory_region": "r",
                "shared_memory_byte_size": 24,
                "shared_memory_offset": -1,
            },
            "must not be negative",
        ),
    ],
)
def test_places_in_shared_memory(place: dict[str, Any], what: str) -> None:
    error = refusal({"inputs": [described("logits", LOGITS, parameters=place), GOOD[1]]})
    assert type(error) is MalformedBodyError
    assert what in error.message


def test_an_output_in_shared_memory_and_binary() -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "binary_data": True}
    error = refusal({"inputs": GOOD, "outputs": [{"name": "loss", "parameters": place}]})
    assert type(error) is MalformedBodyError
    without = {"shared_memory_region": "r"}
    assert (
        "is missing"
        in refusal({"inputs": GOOD, "outputs": [{"name": "loss", "parameters": without}]}).message
    )


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": GOOD, "outputs": [{"name": "losses"}]},
        {"inputs": GOOD, "outputs": [{"name": "loss", "parameters": {"binary": True}}]},
        {"inputs": [{**GOOD[0], "parameters": {"offset": 1}}, GOOD[1]]},
    ],
)
def test_unknown_names_are_told_the_known_ones(document: Any) -> None:
    error = refusal(document)
    assert type(error) is UnknownNameError
    assert "known are " in error.message


def test_a_classification() -> None:
    asked = {"name": "loss", "parameters": {"classification": 2}}
    assert type(refusal({"inputs": GOOD, "outputs": [asked]})) is NotSupportedError


@pytest.mark.parametrize(
    "inputs",
    [
        [GOOD[1]],
        [],
        [*GOOD, as_json("labelz", LABELS)],
        [{**GOOD[0], "datatype": "FP8"}, GOOD[1]],
        [{**GOOD[0], "datatype": "BYTES"}, GOOD[1]],
        [{**GOOD[0], "datatype": "INT32", "data": [1] * 6}, GOOD[1]],
        [GOOD[0], {**GOOD[1], "datatype": "FP32"}],
        [GOOD[0], as_json("labels", LABELS.reshape(2, 1))],
        [{**GOOD[0], "data": 3}, GOOD[1]],
        [{**GOOD[0], "shape": [1] * 64}, GOOD[1]],
    ],
)
def test_tensors_that_do_not_fit_the_model(inputs: Any) -> None:
    assert isinstance(refusal({"inputs": inputs}), (TensorError, MalformedBodyError))


@pytest.mark.parametrize(
    ("entry", "rows"),
    [
        ({**GOOD[0], "data": [[2, 1, 0], [20, 0]]}, [1]),
        ({**GOOD[0], "data": [2, 1, 0, 20, 0, [0]]}, [5]),
        ({**GOOD[0], "data": [2, 1, 0, 20, 0, "x"]}, [5]),
        ({**GOOD[0], "data": [2, 1, 0, 20, 0, 1e39]}, [5]),
    ],
)
def test_json_values_that_are_no_floats(entry: Any, rows: list[int]) -> None:
    error = refusal({"inputs": [entry, GOOD[1]]})
    assert isinstance(error, RowsError)
    assert list(error.rows) == rows


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT8", 128),
        ("INT8", -129),
        ("UINT8", 256),
        ("UINT8", -1),
        ("UINT64", -1),
        ("INT64", 2**63),
        ("INT64", 1.0),
        ("INT64", True),
        ("BOOL", 1),
        ("BOOL", "true"),
    ],
)
def test_json_values_that_are_no_integers_of_the_type(datatype: str, value: Any) -> None:
    fill: Any = False if datatype == "BOOL" else 0
    error = refusal({"inputs": [GOOD[0], {**GOOD[1], "datatype": datatype, "data": [fill, value]}]})
    assert isinstance(error, RowsError)
    assert list(error.rows) == [1]


def test_bytes_that_are_no_booleans() -> None:
    labels = described("labels", np.array([False, False]), parameters={"binary_data_size": 2})
    error = refusal({"inputs": [GOOD[0], labels]}, b"\0\2")
    assert isinstance(error, RowsError)
    assert (error.rows, error.values) == ((1,), (2,))


def test_limits() -> None:
    text = json.dumps({"inputs": GOOD}).encode()
    for limits, name in (
        (Limits(json_bytes=10), "json_bytes"),
        (Limits(tensors=1), "tensors"),
        (Limits(binary_bytes=10), "binary_bytes"),
    ):
        with pytest.raises(LimitExceededError) as caught:
            oip_form.decode(text, None, CROSS_ENTROPY, limits)
        assert caught.value.limit_name == name


def test_shared_memory_counts_as_the_body_does() -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 24}
    document = {"inputs": [described("logits", LOGITS, parameters=place), GOOD[1]]}
    text = json.dumps(document).encode()
    with pytest.raises(LimitExceededError):
        oip_form.decode(text, None, CROSS_ENTROPY, Limits(binary_bytes=len(text) + 23))
    assert oip_form.decode(text, None, CROSS_ENTROPY, Limits(binary_bytes=len(text) + 24)).placed


def test_deep_nesting() -> None:
    nested: Any = 1.0
    for _ in range(70):
        nested = [nested]
    error = refusal({"inputs": [{**GOOD[0], "data": nested}, GOOD[1]]})
    assert type(error) is MalformedBodyError
