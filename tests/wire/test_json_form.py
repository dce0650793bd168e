"""The JSON form: literal bodies for each fault, round trips, digits and words."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from softxent.errors import RowsError, SoftxentError, TensorError
from softxent_client.wire import (
    REQUEST,
    RESPONSE,
    LimitExceededError,
    Limits,
    MalformedBodyError,
)
from softxent_client.wire import json_reader as reader
from softxent_client.wire.json_form import decode, encode

Array = npt.NDArray[Any]
LIMITS = Limits()


def read(body: str | bytes, dtype: str = "float32", limits: Limits = LIMITS) -> dict[str, Array]:
    return decode(body if isinstance(body, bytes) else body.encode(), REQUEST(dtype), limits)


def batch(logits: str, labels: str) -> str:
    return f'{{"logits":{logits},"labels":{labels}}}'


def test_a_literal_body_is_read() -> None:
    tensors = read('{"labels": [1], "logits": [[1.5, -2e0]], "class_weights": [1, 0.1]}')
    assert tensors["logits"].tolist() == [[1.5, -2.0]]
    assert tensors["logits"].dtype == np.float32
    assert tensors["labels"].tolist() == [1]
    assert tensors["labels"].dtype == np.int64
    assert tensors["class_weights"].tolist() == [1, 0.1]
    assert tensors["class_weights"].dtype == np.float64


def test_logits_take_the_dtype_asked_for() -> None:
    assert read(batch("[[0.1]]", "[0]"), "float64")["logits"][0, 0] == 0.1


def test_bytearrays_and_memoryviews_are_read() -> None:
    body = batch("[[1]]", "[0]").encode()
    for buffer in (bytearray(body), memoryview(body)):
        assert decode(buffer, REQUEST(), LIMITS)["logits"].tolist() == [[1.0]]


def test_batches_of_sequences_are_read() -> None:
    tensors = read(batch("[[[1,2],[3,4],[5,6]]]", "[[0,1,0]]"))
    assert (tensors["logits"].shape, tensors["labels"].shape) == ((1, 3, 2), (1, 3))


@pytest.mark.parametrize(
    ("logits", "labels", "shape"),
    [("[]", "[]", (0, 0)), ("[[],[]]", "[[],[]]", (2, 0, 0)), ("[[],[]]", "[0,0]", (2, 0))],
)
def test_rows_of_nothing_have_a_shape(logits: str, labels: str, shape: tuple[int, ...]) -> None:
    assert read(batch(logits, labels))["logits"].shape == shape


def test_words_are_numbers_that_json_lacks() -> None:
    logits = read(batch('[["NaN","Infinity"],["-Infinity",1]]', "[0,0]"))["logits"]
    assert np.array_equal(logits, [[math.nan, math.inf], [-math.inf, 1]], equal_nan=True)


def test_integers_beyond_64_bits_are_numbers_as_javascript_writes_them() -> None:
    logits = read(batch("[[100000000000000000000,-1,18446744073709551615]]", "[0]"))["logits"]
    assert logits.tolist() == np.array([[1e20, -1, 2**64]], np.float32).tolist()


MALFORMED = {
    "empty_body": b"",
    "blank_body": b"  ",
    "top_level_array": b"[[1,2]]",
    "top_level_number": b"1",
    "top_level_null": b"null",
    "trailing_bytes": batch("[[1]]", "[0]").encode() + b"x",
    "two_documents": batch("[[1]]", "[0]").encode() * 2,
    "trailing_nul": batch("[[1]]", "[0]").encode() + b"\x00",
    "cut_short": batch("[[1]]", "[0]").encode()[:-1],
    "byte_order_mark": b"\xef\xbb\xbf" + batch("[[1]]", "[0]").encode(),
    "invalid_utf8": b'{"logits\xff":[[1]],"labels":[0]}',
    "lone_surrogate": b'{"\\ud800":[[1]],"labels":[0]}',
    "bare_nan": batch("[[NaN]]", "[0]").encode(),
    "leading_zero": batch("[[01]]", "[0]").encode(),
    "beyond_float64": batch("[[1e999]]", "[0]").encode(),
    "beyond_float64_below_zero": batch("[[-1e999]]", "[0]").encode(),
    "integer_beyond_float64": batch("[[" + "9" * 400 + "]]", "[0]").encode(),
    "duplicate_key": b'{"logits":[[1]],"labels":[0],"labels":[0]}',
    "duplicate_key_escaped": b'{"logits":[[1]],"labels":[0],"l\\u0061bels":[0]}',
    "nesting_10000": b'{"logits":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nesting_10000_unclosed": b'{"logits":' + b"[" * 10_000,
    "nesting_10000_objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "nesting_64_arrays": batch("[" * 64 + "]" * 64, "[]").encode(),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed(fault: str) -> None:
    with pytest.raises(MalformedBodyError):
        read(MALFORMED[fault])


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


def test_ten_rows_are_named_and_all_are_counted() -> None:
    with pytest.raises(RowsError) as caught:
        read(batch("[[1]]", json.dumps([0.5] * 25)))
    assert (caught.value.rows, caught.value.total) == (tuple(range(10)), 25)


WRONG_TENSORS = {
    "unknown_name": ('{"logits":[[1]],"labels":[0],"targets":[0]}', "unknown tensor 'targets'"),
    "nul_in_name": ('{"logits":[[1]],"labels\\u0000":[0]}', "unknown tensor"),
    "missing_logits": ('{"labels":[0]}', "logits is missing"),
    "missing_labels": ('{"logits":[[1]]}', "labels is missing"),
    "logits_are_a_vector": (batch("[1,2]", "[0,0]"), "logits has 1 dimension"),
    "logits_are_a_number": (batch("1", "[0]"), "logits has 0 dimensions"),
    "logits_are_null": (batch("null", "[0]"), "not null"),
    "logits_are_an_object": (batch('{"a":[1]}', "[0]"), "not an object"),
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
    for fault in [*MALFORMED.values(), batch("[[1,2],[null,3]]", "[0,0]").encode()]:
        with pytest.raises(SoftxentError) as caught:
            read(fault)
        kept.append(caught)
        assert read(batch("[[1]]", "[0]"))["logits"].tolist() == [[1.0]]


def test_arrays_longer_than_the_parser_counts() -> None:
    count = reader.SATURATED + 2
    body = b'{"logits":[[' + b"0," * (count - 1) + b'1]],"labels":[0]}'
    limits = Limits(json_bytes=1 << 26)
    assert read(body, limits=limits)["logits"].shape == (1, count)
    with pytest.raises(RowsError, match="ragged"):
        read(body.replace(b"1]]", b"1],[1]]"), limits=limits)


def text(**tensors: Any) -> str:
    return b"".join(encode({name: np.asarray(value) for name, value in tensors.items()})).decode()


def test_digits_are_the_shortest_of_the_dtype() -> None:
    assert text(loss=np.array([0.1], np.float32), loss_sum=0.1, count=3) == (
        '{"loss":[0.1],"loss_sum":0.1,"count":3}'
    )


def test_numbers_that_json_lacks_are_written_as_words() -> None:
    values = np.array([[math.nan, 0.1], [math.inf, -math.inf]], np.float32)
    assert text(gradient=values, loss_sum=math.nan) == (
        '{"gradient":[["NaN",0.1],["Infinity","-Infinity"]],"loss_sum":"NaN"}'
    )


def test_no_tensors_are_an_empty_object() -> None:
    assert text() == "{}"


def test_empty_arrays_are_written() -> None:
    assert text(loss=np.zeros(0), gradient=np.zeros((2, 0))) == '{"loss":[],"gradient":[[],[]]}'


@pytest.mark.parametrize("shape", [(50_000,), (7, 50_000), (30_000, 5), (3, 11_000, 2), (2, 3, 1)])
def test_large_arrays_come_in_pieces_that_join(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    values.reshape(-1)[::9_973] = math.nan
    pieces = list(encode({"gradient": values, "count": np.asarray(3)}))
    assert max(map(len, pieces)) < 600_000
    words = json.loads(b"".join(pieces))["gradient"]
    assert np.array_equal(np.array(words, object).astype(np.float64), values, equal_nan=True)


DTYPES = st.sampled_from(["float32", "float64"])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4)


@given(DTYPES, SHAPES, st.data())
def test_round_trip_to_the_bit(dtype: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    sent = {
        "logits": data.draw(hnp.arrays(dtype, shape)),
        "labels": data.draw(hnp.arrays(np.int64, shape[:-1])),
        "row_weights": data.draw(hnp.arrays(np.float64, shape[:-1])),
    }
    received = read(b"".join(encode(sent)), dtype)
    for name, tensor in sent.items():
        assert received[name].dtype == tensor.dtype
        assert np.array_equal(received[name], tensor, equal_nan=tensor.dtype.kind == "f")
        assert (
            np.array_equal(np.signbit(received[name]), np.signbit(tensor))
            or np.isnan(tensor.astype(np.float64)).any()
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_survives_to_the_bit(dtype: str) -> None:
    patterns = np.arange(65_536, dtype=np.uint16).view(np.dtype(dtype)).reshape(-1, 2)
    sent = {"logits": patterns, "labels": np.zeros(len(patterns), np.int64)}
    received = read(b"".join(encode(sent)), dtype)["logits"]
    numbers = ~np.isnan(patterns.astype(np.float32))
    assert received.dtype == patterns.dtype
    assert np.array_equal(received.view(np.uint16)[numbers], patterns.view(np.uint16)[numbers])
    assert np.isnan(received[~numbers].astype(np.float32)).all()


@pytest.mark.parametrize(("dtype", "number"), [("float16", 65520), ("bfloat16", 3.4e38)])
def test_number_beyond_half_precision(dtype: str, number: float) -> None:
    with pytest.raises(RowsError, match=dtype) as refused:
        read(batch(f"[[1,2],[{number},1]]", "[0,0]"), dtype)
    assert refused.value.rows == (1,)


def test_answers_are_read_with_scalars_in_double_precision() -> None:
    body = b'{"loss":0.1,"gradient":[[0.1]],"loss_sum":"NaN","weight_sum":1,"count":2}'
    tensors = decode(body, RESPONSE("float32"), LIMITS)
    assert tensors["loss"].shape == ()
    assert tensors["loss"].dtype == np.float64
    assert tensors["gradient"].dtype == np.float32
    assert math.isnan(float(tensors["loss_sum"]))
    assert tensors["count"].shape == ()
    assert tensors["count"].dtype == np.int64


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["NaN", "Infinity", "[", "x", "\x00"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(["logits", "labels", "row_weights", "class_weights"])
ROWS = st.lists(st.lists(st.integers(-3, 3) | LEAVES, min_size=1, max_size=3), max_size=3)


@given(st.dictionaries(NAMES | st.text(max_size=2), TREES | ROWS))
def test_any_json_gives_what_it_says_or_an_error_of_ours(document: dict[str, Any]) -> None:
    try:
        tensors = read(json.dumps(document))
    except SoftxentError as error:
        json.dumps(error.details(), ensure_ascii=False).encode()
        return
    for name, tensor in tensors.items():
        expected = np.array(document[name], object).astype(tensor.dtype)
        assert np.array_equal(tensor.reshape(expected.shape), expected, equal_nan=name != "labels")


@given(st.binary())
def test_any_bytes_give_tensors_or_an_error_of_ours(sent: bytes) -> None:
    with contextlib.suppress(SoftxentError):
        read(sent)


@given(st.binary(max_size=3), st.integers(0, 60), st.integers(0, 3))
def test_any_damage_gives_tensors_or_an_error_of_ours(patch: bytes, at: int, cut: int) -> None:
    sent = batch('[[1.5,"NaN"],[-2e3,40]]', "[0,-1]").encode()
    with contextlib.suppress(SoftxentError):
        read(sent[:at] + patch + sent[at + cut :])
