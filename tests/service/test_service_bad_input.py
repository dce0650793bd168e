"""Everything a client can get wrong in a batch: a clear problem document, and the service goes on.

Each case names status, slug and field; a good request follows it on the same server.
"""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from service_support import (
    BINARY,
    assert_alive,
    assert_problem,
    batch,
    binary,
    post,
    raw_binary,
)

DEEP = b'{"logits": ' + b"[" * 10_000 + b"]" * 10_000 + b', "labels": [0]}'

JSON_CASES = {
    "empty body": (b"", 400, "malformed-body", None),
    "not JSON": (b"logits", 400, "malformed-body", None),
    "not UTF-8": (b'{"logits\xff": 1}', 400, "malformed-body", None),
    "not an object": (b"[1, 2]", 400, "malformed-body", None),
    "cut off": (b'{"logits": [[1, 2]], "labels": [', 400, "malformed-body", None),
    "10,000 deep": (DEEP, 400, "malformed-body", None),
    "1e999": (b'{"logits": [[1e999, 0]], "labels": [0]}', 400, "malformed-body", None),
    "wrong rank": (b'{"logits": [1, 2], "labels": [0]}', 422, "invalid-tensor", "logits"),
    "labels of rank 2": (b'{"logits": [[1, 2]], "labels": [[0]]}', 422, "invalid-tensor", "labels"),
    "mismatched N": (b'{"logits": [[1, 2]], "labels": [0, 1]}', 422, "invalid-tensor", "labels"),
    "no labels": (b'{"logits": [[1, 2]]}', 422, "invalid-tensor", "labels"),
    "C = 0": (b'{"logits": [[]], "labels": [0]}', 422, "invalid-tensor", "logits"),
    "unknown tensor": (
        b'{"logits": [[1, 2]], "labels": [0], "weights": [1]}',
        422,
        "invalid-tensor",
        "weights",
    ),
    "ragged": (b'{"logits": [[1, 2], [3]], "labels": [0, 0]}', 422, "invalid-rows", "logits"),
    "ragged, total fits": (
        b'{"logits": [[1, 2], [3], [4, 5, 6]], "labels": [0, 0, 0]}',
        422,
        "invalid-rows",
        "logits",
    ),
    "string": (b'{"logits": [["a", 2]], "labels": [0]}', 422, "invalid-rows", "logits"),
    "null": (b'{"logits": [[null, 2]], "labels": [0]}', 422, "invalid-rows", "logits"),
    "label 1.0": (b'{"logits": [[1, 2]], "labels": [1.0]}', 422, "invalid-rows", "labels"),
    "label true": (b'{"logits": [[1, 2]], "labels": [true]}', 422, "invalid-rows", "labels"),
    "1e39 as float32": (b'{"logits": [[1e39, 2]], "labels": [0]}', 422, "invalid-rows", "logits"),
    "NaN": (b'{"logits": [["NaN", 2]], "labels": [0]}', 422, "non-finite-result", "logits"),
    "infinity": (
        b'{"logits": [["Infinity", 2]], "labels": [0]}',
        422,
        "non-finite-result",
        "logits",
    ),
    "negative weight": (
        b'{"logits": [[1, 2]], "labels": [0], "row_weights": [-1]}',
        422,
        "invalid-weight",
        "row_weights",
    ),
}


@pytest.mark.parametrize("case", JSON_CASES)
def test_json_that_is_refused(service_url: str, case: str) -> None:
    body, status, slug, field = JSON_CASES[case]
    assert_problem(post(service_url, body), status, slug, field)
    assert_alive(service_url)


def test_duplicate_key_is_refused(service_url: str) -> None:
    body = b'{"logits": [[1, 2]], "labels": [0], "labels": [1]}'
    answer = post(service_url, body)
    assert answer.status_code == 400
    assert "labels" in answer.json()["detail"]
    assert_alive(service_url)


def test_labels_out_of_range_name_rows_and_values(service_url: str) -> None:
    body = b'{"logits": [[1, 2], [1, 2], [1, 2]], "labels": [2, 0, -1]}'
    document = assert_problem(post(service_url, body), 422, "label-out-of-range", "labels")
    assert (document["rows"], document["values"], document["total"]) == ([0, 2], [2, -1], 2)
    assert_alive(service_url)


def test_non_finite_rows_are_named_and_can_be_asked_for(service_url: str) -> None:
    body = b'{"logits": [[1, 2], ["NaN", 2]], "labels": [0, 0]}'
    document = assert_problem(post(service_url, body), 422, "non-finite-result", "logits")
    assert (document["rows"], document["total"]) == ([1], 1)
    answer = post(service_url, body, query="?non_finite=propagate")
    assert answer.json()["gradient"][1] == ["NaN", "NaN"]


OPTIONS = {
    "unknown": ("?reduce=mean", "reduce"),
    "repeated": ("?scale=1&scale=2", "scale"),
    "out of range": ("?label_smoothing=1.5", "label_smoothing"),
    "not a number": ("?scale=big", "scale"),
    "does not apply": ("?denominator=2", "denominator"),
    "empty": ("?reduction", "reduction"),
    "unknown dtype": ("?logits_dtype=float8", "logits_dtype"),
    "repeated dtype": ("?logits_dtype=float32&logits_dtype=float32", "logits_dtype"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_are_refused(service_url: str, case: str) -> None:
    query, field = OPTIONS[case]
    body = b'{"logits": [[1, 2]], "labels": [0]}'
    assert_problem(post(service_url, body, query=query), 422, "invalid-option", field)
    assert_alive(service_url)


def test_logits_dtype_does_not_apply_to_the_binary_form(service_url: str) -> None:
    answer = post(service_url, binary(batch()), BINARY, "?logits_dtype=float32")
    assert_problem(answer, 422, "invalid-option", "logits_dtype")


def test_empty_mean_is_refused_where_asked(service_url: str) -> None:
    body = b'{"logits": [[1, 2]], "labels": [-100]}'
    answer = post(service_url, body, query="?reduction=mean&empty=error")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:softxent:problem:empty-reduction"


F32 = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
I64 = {"dtype": "I64", "shape": [1], "data_offsets": [8, 16]}
DATA = bytes(16)

LAYOUT_FAULTS = {
    "nothing": b"",
    "shorter than its length": b"\x01\x02",
    "length beyond the body": raw_binary({"logits": F32, "labels": I64}, DATA, length=60_000),
    "overlap": raw_binary({"logits": F32, "labels": {**I64, "data_offsets": [4, 12]}}, DATA[:12]),
    "hole": raw_binary({"logits": F32, "labels": {**I64, "data_offsets": [12, 20]}}, bytes(20)),
    "beyond the end": raw_binary({"logits": F32, "labels": I64}, DATA[:12]),
    "bytes left over": raw_binary({"logits": F32, "labels": I64}, bytes(24)),
    "overflow": raw_binary({"logits": {**F32, "shape": [2**62, 2**62]}, "labels": I64}, DATA),
    "negative shape": raw_binary({"logits": {**F32, "shape": [-1, 2]}, "labels": I64}, DATA),
    "offsets reversed": raw_binary(
        {"logits": {**F32, "data_offsets": [8, 0]}, "labels": I64}, DATA
    ),
    "size is not shape x dtype": raw_binary(
        {"logits": {**F32, "shape": [1, 3]}, "labels": I64}, DATA
    ),
    "header is not JSON": raw_binary(b"{logits", DATA),
    "header is a list": raw_binary([], DATA),
    "member missing": raw_binary({"logits": {"dtype": "F32"}, "labels": I64}, DATA),
    "header deep": raw_binary(b'{"logits":' + b"[" * 5000, DATA),
}


@pytest.mark.parametrize("case", LAYOUT_FAULTS)
def test_binary_layouts_that_are_refused(service_url: str, case: str) -> None:
    answer = post(service_url, LAYOUT_FAULTS[case], BINARY)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "urn:softxent:problem:malformed-body"
    assert_alive(service_url)


def test_binary_header_over_its_limit_is_refused(service_url: str) -> None:
    document = post(service_url, raw_binary(b" " * 70_000), BINARY).json()
    assert (document["status"], document["limit_name"]) == (413, "header_bytes")
    assert document["limit"] == 64 << 10


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F99", "BOOL"])
def test_binary_dtypes_that_are_refused(service_url: str, dtype: str) -> None:
    # Eight bytes, as the layout wants them of a dtype of one byte.
    logits = {**F32, "dtype": dtype, "shape": [1, 8]}
    answer = post(service_url, raw_binary({"logits": logits, "labels": I64}, DATA), BINARY)
    assert_problem(answer, 422, "invalid-tensor", "logits")
    assert_alive(service_url)


def test_binary_batches_are_checked_as_json_ones(service_url: str) -> None:
    wrong = {**batch(), "labels": np.array([0, 5, -1])}
    document = post(service_url, binary(wrong), BINARY).json()
    assert (document["rows"], document["values"], document["total"]) == ([1, 2], [5, -1], 2)
    extra = {**batch(), "weights": np.ones(3)}
    assert_problem(post(service_url, binary(extra), BINARY), 422, "invalid-tensor", "weights")
    assert_alive(service_url)


@pytest.mark.parametrize("classes", [2**40, 2**42, 2**50, 2**59])
def test_classes_without_rows_cost_nothing(service_url: str, classes: int) -> None:
    """No byte stands behind the number of classes, so nothing may be allocated by it."""
    header = json.dumps(
        {
            "logits": {"dtype": "F32", "shape": [0, classes], "data_offsets": [0, 0]},
            "labels": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]},
        }
    ).encode()
    answer = post(service_url, struct.pack("<Q", len(header)) + header, BINARY)
    assert answer.status_code == 200
    assert post(service_url, binary(batch()), BINARY).status_code == 200


def test_a_top_k_without_entries_is_refused(service_url: str) -> None:
    body = b'{"logits": [[1, 2]], "target_indices": [[]], "target_log_probabilities": [[]]}'
    assert_problem(post(service_url, body), 422, "invalid-tensor", "target_indices")
    assert post(service_url, binary(batch()), BINARY).status_code == 200


def test_a_sequence_of_bad_probabilities_names_flat_rows(service_url: str) -> None:
    body = b'{"logits": [[[1, 2], [1, 2]]], "target_probabilities": [[[1, 0], [-1, 0]]]}'
    problem = assert_problem(post(service_url, body), 422, "invalid-rows", "target_probabilities")
    assert (problem["rows"], problem["values"]) == ([1], [-1.0])
