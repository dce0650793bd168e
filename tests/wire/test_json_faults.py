"""JSON that is refused: a literal body for each fault, named by tensor, rows and reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from wire_support import batch, read

from softxent.errors import RowsError, SoftxentError, TensorError
from softxent_client.wire import (
    LimitExceededError,
    Limits,
    MalformedBodyError,
)
from softxent_client.wire.json_form import decode
from softxent_client.wire.schema import INTEGERS, Field, Schema

GOOD = batch("[[1]]", "[0]").encode()

MALFORMED = {
    "empty_body": (b"", "the body is empty"),
    "blank_body": (b"  ", "the body is empty"),
    "top_level_array": (b"[[1,2]]", "not an object of named tensors"),
    "top_level_number": (b"1", "not an object of named tensors"),
    "top_level_null": (b"null", "not an object of named tensors"),
    "trailing_bytes": (GOOD + b"x", "missing or too many"),
    "two_documents": (GOOD * 2, "missing or too many"),
    "trailing_nul": (GOOD + b"\x00", "missing or too many"),
    "cut_short": (GOOD[:-1], "missing or too many"),
    "byte_order_mark": (b"\xef\xbb\xbf" + GOOD, "byte order mark"),
    "invalid_utf8": (b'{"logits\xff":[[1]],"labels":[0]}', "not UTF-8"),
    "lone_surrogate": (b'{"\\ud800":[[1]],"labels":[0]}', "malformed escape"),
    "open_string": (b'{"logits', "a string that does not end"),
    "control_character": (b'{"log\nits":[[1]]}', "control character"),
    "python_true": (batch("[[True]]", "[0]").encode(), "missing or too many"),
    "cut_short_word": (batch("[[tru]]", "[0]").encode(), "not true, false or null"),
    "leading_zero": (batch("[[01]]", "[0]").encode(), "malformed or beyond float64"),
    "beyond_float64": (batch("[[1e999]]", "[0]").encode(), "malformed or beyond float64"),
    "beyond_float64_below_zero": (batch("[[-1e999]]", "[0]").encode(), "beyond float64"),
    "integer_beyond_float64": (batch(f"[[{'9' * 400}]]", "[0]").encode(), "beyond float64"),
    "integer_of_5000_digits": (batch(f"[[{'9' * 5000}]]", "[0]").encode(), "beyond float64"),
    "duplicate_key": (b'{"logits":[[1]],"labels":[0],"labels":[0]}', "names 'labels' twice"),
    "duplicate_key_escaped": (b'{"labels":[0],"l\\u0061bels":[0]}', "names 'labels' twice"),
    "nesting_10000": (b'{"logits":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deeply"),
    "nesting_10000_unclosed": (b'{"logits":' + b"[" * 10_000, "missing or too many"),
    "nesting_10000_objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
    "nesting_64_arrays": (batch("[" * 64 + "]" * 64, "[]").encode(), "nested deeper than 64"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_bodies_are_refused_in_plain_words(fault: str) -> None:
    body, reason = MALFORMED[fault]
    with pytest.raises(MalformedBodyError, match=reason):
        read(body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "nan", "-inf"])
def test_bare_words_are_answered_with_the_strings_to_write(number: str) -> None:
    hint = 'write the strings "NaN", "Infinity", "-Infinity"'
    for logits in (f"[[1,{number}]]", f"[[{number} ,1]]", f"[[1, {number}\n]]"):
        with pytest.raises(MalformedBodyError, match=hint):
            read(batch(logits, "[0]"))


RAGGED: dict[str, tuple[str, list[int], list[Any]]] = {
    "total_fits": ("[[1,2],[3],[4,5,6]]", [1, 2], [1, 3]),
    "total_does_not_fit": ("[[1,2],[3,4],[5]]", [2], [1]),
    "first_row_empty": ("[[],[1,2]]", [1], [2]),
    "later_row_empty": ("[[1],[]]", [1], [0]),
    "row_is_a_number": ("[[1,2],3]", [1], [3]),
    "row_is_null": ("[[1],null]", [1], ["null"]),
    "deeper_level": ("[[[1,2],[3]],[[4,5],[6,7]]]", [1], [1]),
    "deeper_level_empty_first": ("[[[],[1,2]]]", [1], [2]),
    "sequences_differ": ("[[[1,2],[3,4]],[[5,6]]]", [1], [1]),
}


@pytest.mark.parametrize("fault", RAGGED)
def test_ragged_rows_are_named_with_their_lengths(fault: str) -> None:
    logits, rows, lengths = RAGGED[fault]
    with pytest.raises(RowsError) as caught:
        read(batch(logits, "[0]"))
    assert caught.value.details() == {
        "field": "logits",
        "rows": rows,
        "values": lengths,
        "total": len(rows),
    }


WRONG_VALUES: dict[str, tuple[str, str, str, list[int], list[Any]]] = {
    "string": ("logits", "[[1,2],[3,4]]".replace("4", '"4"'), "[0,0]", [1], ['"4"']),
    "word_in_lower_case": ("logits", '[["nan"]]', "[0]", [0], ['"nan"']),
    "null": ("logits", "[[1,null],[null,null]]", "[0,0]", [0, 1], ["null", "null"]),
    "boolean": ("logits", "[[1,true]]", "[0]", [0], ["true"]),
    "object": ("logits", '[[1,{"a":2}]]', "[0]", [0], ["an object"]),
    "array": ("logits", "[[1,2],[3,[4]]]", "[0,0]", [1], ["an array"]),
    "empty_array": ("logits", "[[1,2],[3,[]]]", "[0,0]", [1], ["an array"]),
    "beyond_float32": ("logits", "[[1,2],[1,1e39],[-1e39,1e40]]", "[0,0,0]", [1, 2], [1e39, -1e39]),
    "beyond_float32_beside_words": ("logits", '[["NaN",1e39]]', "[0]", [0], [1e39]),
    "float_label": ("labels", "[[1],[2]]", "[0,1.0]", [1], [1.0]),
    "boolean_label": ("labels", "[[1],[2]]", "[false,1]", [0], ["false"]),
    "word_label": ("labels", "[[1]]", '["NaN"]', [0], ['"NaN"']),
    "label_beyond_int64": ("labels", "[[1]]", "[9223372036854775808]", [0], [2**63]),
    "label_beyond_uint64": ("labels", "[[1]]", "[18446744073709551616]", [0], [2.0**64]),
    "nested_label": ("labels", "[[1],[2]]", "[0,[1]]", [1], ["an array"]),
}


@pytest.mark.parametrize("fault", WRONG_VALUES)
def test_wrong_values_are_named_with_their_rows(fault: str) -> None:
    field, logits, labels, rows, values = WRONG_VALUES[fault]
    with pytest.raises(RowsError) as caught:
        read(batch(logits, labels))
    assert caught.value.details() == {
        "field": field,
        "rows": rows,
        "values": values,
        "total": len(rows),
    }


TARGET_VALUES: dict[str, tuple[str, str, list[int], list[Any]]] = {
    "mask of numbers": ("class_mask", "[1,0]", [0, 1], [1, 0]),
    "mask of a float": ("class_mask", "[[true,0.0],[true,true]]", [0], [0.0]),
    "mask of a word": ("class_mask", '[true,"true"]', [1], ['"true"']),
    "mask with null": ("class_mask", "[true,null]", [1], ["null"]),
    "mask with an array": ("class_mask", "[true,[true]]", [1], ["an array"]),
    "ragged mask": ("class_mask", "[[true,true],[true]]", [1], [1]),
    "probability of true": ("target_probabilities", "[[1,0],[true,0]]", [1], ["true"]),
    "ragged probabilities": ("target_probabilities", "[[1,0],[1]]", [1], [1]),
    "probability beyond float32": ("target_probabilities", "[[1,0],[1e39,0]]", [1], [1e39]),
    "null probability": ("target_probabilities", "[[1,0],[null,0]]", [1], ["null"]),
    "index of a float": ("target_indices", "[[0,1],[1.0,0]]", [1], [1.0]),
    "index of true": ("target_indices", "[[0,true],[1,0]]", [0], ["true"]),
    "ragged indices": ("target_indices", "[[0,1],[1]]", [1], [1]),
    "log-probability of a word": ("target_log_probabilities", '[[0],["no"]]', [1], ['"no"']),
}


@pytest.mark.parametrize("fault", TARGET_VALUES)
def test_wrong_values_of_targets_are_named_with_their_rows(fault: str) -> None:
    name, text, rows, values = TARGET_VALUES[fault]
    with pytest.raises(RowsError) as caught:
        read(f'{{"logits":[[1,2],[3,4]],"{name}":{text}}}')
    expected = {"field": name, "rows": rows, "values": values, "total": len(rows)}
    assert caught.value.details() == expected


def test_ten_rows_are_named_and_all_are_counted() -> None:
    with pytest.raises(RowsError) as caught:
        read(batch("[[1]]", json.dumps([0.5] * 25)))
    assert (caught.value.rows, caught.value.total) == (tuple(range(10)), 25)


LABEL = Schema({"label": Field(INTEGERS, np.dtype(np.int64), max_rank=0)}, required=())


@pytest.mark.parametrize("label", ["0.0", "true", '"0"', "9223372036854775808"])
def test_a_lone_label_is_an_integer(label: str) -> None:
    with pytest.raises(TensorError) as refused:
        decode(f'{{"label": {label}}}'.encode(), LABEL, Limits())
    assert str(refused.value) == f"label must be an integer, not {label}"


WRONG_TENSORS = {
    "unknown_name": ('{"logits":[[1]],"labels":[0],"targets":[0]}', "unknown tensor 'targets'"),
    "nul_in_name": ('{"logits":[[1]],"labels\\u0000":[0]}', "unknown tensor"),
    "missing_logits": ('{"labels":[0]}', "logits is missing"),
    "mask_is_a_number": ('{"logits":[[1]],"class_mask":1}', "class_mask must be booleans, not 1"),
    "mask_is_a_boolean": ('{"logits":[[1]],"class_mask":true}', "class_mask has 0 dimensions"),
    "probabilities_are_a_vector": (
        '{"logits":[[1]],"target_probabilities":[1]}',
        "target_probabilities has 1 dimension, expected 2 dimensions",
    ),
    "indices_are_a_vector": (
        '{"logits":[[1]],"target_indices":[0]}',
        "target_indices has 1 dimension, expected 2 dimensions",
    ),
    "log_probabilities_are_a_vector": (
        '{"logits":[[1]],"target_log_probabilities":[0]}',
        "target_log_probabilities has 1 dimension, expected 2 dimensions",
    ),
    "logits_are_a_vector": (batch("[1,2]", "[0,0]"), "logits has 1 dimension"),
    "logits_are_a_number": (batch("1", "[0]"), "logits has 0 dimensions"),
    "logits_are_null": (batch("null", "[0]"), "logits must be numbers, not null"),
    "logits_are_an_object": (batch('{"a":[1]}', "[0]"), "not an object"),
    "labels_are_a_word": (batch("[[1]]", '"0"'), "labels must be integers, not"),
    "labels_are_a_matrix": (batch("[[1]]", "[[0]]"), "labels has 2 dimensions"),
    "labels_lack_a_dimension": (batch("[[[1]]]", "[0]"), "expected 2 dimensions"),
    "row_is_a_string": (batch('[[1,2],"ab"]', "[0,0]"), "in the place of a row"),
    "row_is_an_object": (batch('[[1,2],{"a":1,"b":2}]', "[0,0]"), "in the place of a row"),
}


@pytest.mark.parametrize("fault", WRONG_TENSORS)
def test_wrong_tensors(fault: str) -> None:
    body, message = WRONG_TENSORS[fault]
    with pytest.raises(TensorError, match=message):
        read(body)


def test_body_over_the_limit_states_the_limit() -> None:
    with pytest.raises(LimitExceededError) as caught:
        read(batch("[[1]]", "[0]"), limits=Limits(json_bytes=8))
    assert caught.value.details() == {"limit_name": "json_bytes", "limit": 8}


def test_too_many_members_state_the_limit() -> None:
    with pytest.raises(LimitExceededError) as caught:
        read(json.dumps({str(n): [0] for n in range(17)}))
    assert caught.value.details() == {"limit_name": "tensors", "limit": 16}


def test_an_error_that_is_kept_does_not_disturb_the_next_body() -> None:
    kept = []
    bodies = [body for body, _ in MALFORMED.values()]
    for fault in [*bodies, batch("[[1,2],[null,3]]", "[0,0]").encode()]:
        with pytest.raises(SoftxentError) as caught:
            read(fault)
        kept.append(caught)
        assert read(batch("[[1]]", "[0]"))["logits"].tolist() == [[1.0]]


@pytest.mark.parametrize(("dtype", "number"), [("float16", 65520), ("bfloat16", 3.4e38)])
def test_number_beyond_half_precision(dtype: str, number: float) -> None:
    with pytest.raises(RowsError, match=dtype) as refused:
        read(batch(f"[[1,2],[{number},1]]", "[0,0]"), dtype)
    assert refused.value.rows == (1,)
