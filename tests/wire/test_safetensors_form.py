"""The binary form: literal bytes for each fault, round trips, the safetensors library both ways."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from softxent.errors import RowsError, SoftxentError, TensorError
from softxent.results import CrossEntropyResult
from softxent_client.wire import (
    REQUEST,
    RESPONSE,
    LimitExceededError,
    Limits,
    MalformedBodyError,
    result_from_tensors,
    result_tensors,
)
from softxent_client.wire.safetensors_form import decode, encode

Array = npt.NDArray[Any]
LIMITS = Limits()
LOGITS = '"logits":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}'
LABELS = '"labels":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}'
DATA = bytes(16)


def body(header: str | bytes, data: bytes = DATA) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def request(logits: str = LOGITS, labels: str = LABELS, data: bytes = DATA) -> dict[str, Array]:
    return decode(body(f"{{{logits},{labels}}}", data), REQUEST(), LIMITS)


def test_a_literal_body_is_read() -> None:
    data = np.array([1.5, -2], "<f4").tobytes() + np.array([1], "<i8").tobytes()
    tensors = request(data=data)
    assert tensors["logits"].tolist() == [[1.5, -2.0]]
    assert tensors["logits"].dtype == np.float32
    assert tensors["labels"].tolist() == [1]


def test_names_stand_in_any_order() -> None:
    tensors = decode(body(f"{{{LABELS},{LOGITS}}}"), REQUEST(), LIMITS)
    assert set(tensors) == {"logits", "labels"}


def test_metadata_of_strings_is_accepted() -> None:
    metadata = '"__metadata__":{"made_by":"someone"}'
    assert set(decode(body(f"{{{metadata},{LOGITS},{LABELS}}}"), REQUEST(), LIMITS)) == {
        "logits",
        "labels",
    }


def test_arrays_are_views_and_as_writable_as_the_buffer() -> None:
    sent = body(f"{{{LOGITS},{LABELS}}}")
    buffer = bytearray(sent)
    tensors = decode(buffer, REQUEST(), LIMITS)
    tensors["logits"][0, 0] = 7
    assert np.frombuffer(buffer[-16:-12], "<f4")[0] == 7
    assert not decode(sent, REQUEST(), LIMITS)["logits"].flags.writeable


MALFORMED_BODIES = {
    "empty": b"",
    "length_cut_short": b"\x02\x00\x00",
    "header_cut_short": (100).to_bytes(8, "little") + b"{}",
    "header_not_utf8": body(b'{"\xff":1}'),
    "header_not_json": body(b'{"logits":}'),
    "header_not_an_object": body(b"[]"),
    "header_empty": body(b""),
    "header_begins_with_space": body(f" {{{LOGITS},{LABELS}}}"),
    "trailing_json": body(f"{{{LOGITS},{LABELS}}}{{}}"),
    "duplicate_name": body(f"{{{LOGITS},{LOGITS},{LABELS}}}"),
    "duplicate_key_inside": body(
        f'{{"logits":{{"dtype":"F32","dtype":"F32","shape":[1,2],"data_offsets":[0,8]}},{LABELS}}}'
    ),
    "lone_surrogate": body(b'{"\\ud800":1}'),
    "nan_in_header": body(b'{"logits":NaN}'),
    "depth_bomb": body(b'{"a":' + b"[" * 30_000),
    "closed_depth_bomb": body(b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "huge_integer": body(b'{"a":' + b"9" * 5_000 + b"}"),
    "metadata_not_strings": body(f'{{"__metadata__":{{"a":1}},{LOGITS},{LABELS}}}'),
    "metadata_not_an_object": body(f'{{"__metadata__":[],{LOGITS},{LABELS}}}'),
    "data_missing": body(f"{{{LOGITS},{LABELS}}}", DATA[:-1]),
    "data_left_over": body(f"{{{LOGITS},{LABELS}}}", DATA + b"x"),
}


@pytest.mark.parametrize("fault", MALFORMED_BODIES)
def test_malformed_body(fault: str) -> None:
    with pytest.raises(MalformedBodyError):
        decode(MALFORMED_BODIES[fault], REQUEST(), LIMITS)


MALFORMED_LOGITS = {
    "not_an_object": "[]",
    "dtype_missing": '{"shape":[1,2],"data_offsets":[0,8]}',
    "member_unknown": '{"dtype":"F32","shape":[1,2],"data_offsets":[0,8],"strides":[8,4]}',
    "dtype_not_a_string": '{"dtype":32,"shape":[1,2],"data_offsets":[0,8]}',
    "shape_not_an_array": '{"dtype":"F32","shape":2,"data_offsets":[0,8]}',
    "shape_of_floats": '{"dtype":"F32","shape":[1.0,2],"data_offsets":[0,8]}',
    "shape_of_booleans": '{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}',
    "shape_negative": '{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}',
    "shape_overflows_64_bits": (
        '{"dtype":"F32","shape":[4294967296,4294967296,1,2],"data_offsets":[0,8]}'
    ),
    "shape_of_nothing_too_large": (
        '{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}'
    ),
    "shape_too_small": '{"dtype":"F32","shape":[1,1],"data_offsets":[0,8]}',
    "offsets_reversed": '{"dtype":"F32","shape":[1,2],"data_offsets":[8,0]}',
    "offsets_three": '{"dtype":"F32","shape":[1,2],"data_offsets":[0,4,8]}',
    "offsets_negative": '{"dtype":"F32","shape":[1,2],"data_offsets":[-8,0]}',
    "offsets_booleans": '{"dtype":"F32","shape":[0,2],"data_offsets":[false,false]}',
    "offsets_past_the_end": '{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]}',
    "hole": '{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}',
    "hole_at_the_start": '{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}',
    "overlap": '{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]}',
    "same_bytes_twice": '{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}',
}


@pytest.mark.parametrize(("name", "one"), [("F16", b"\0\x3c"), ("BF16", b"\x80\x3f")])
def test_half_precision(name: str, one: bytes) -> None:
    logits = f'"logits":{{"dtype":"{name}","shape":[1,2],"data_offsets":[0,4]}}'
    labels = '"labels":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}'
    tensors = request(logits, labels, one + bytes(10))
    assert tensors["logits"].dtype.name == {"F16": "float16", "BF16": "bfloat16"}[name]
    assert tensors["logits"].astype(np.float32).tolist() == [[1, 0]]


@pytest.mark.parametrize("fault", MALFORMED_LOGITS)
def test_malformed_tensor(fault: str) -> None:
    with pytest.raises(MalformedBodyError):
        request(logits=f'"logits":{MALFORMED_LOGITS[fault]}')


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I64", "BOOL", ""])
def test_dtype_that_logits_cannot_have_names_the_tensor(dtype: str) -> None:
    size = 16 if dtype == "I64" else 2 if dtype == "BOOL" else 4
    logits = f'"logits":{{"dtype":"{dtype}","shape":[1,2],"data_offsets":[0,{size}]}}'
    labels = f'"labels":{{"dtype":"I64","shape":[1],"data_offsets":[{size},{size + 8}]}}'
    with pytest.raises(TensorError, match="logits") as caught:
        request(logits, labels, bytes(size + 8))
    assert caught.value.field == "logits"
    assert repr(dtype) in str(caught.value) or f" {dtype}," in str(caught.value)


def test_floating_labels_are_refused() -> None:
    labels = '"labels":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}'
    with pytest.raises(TensorError, match="labels has dtype F64"):
        request(labels=labels)


def test_unknown_tensor_is_answered_with_the_known_names() -> None:
    extra = '"targets":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}'
    with pytest.raises(TensorError, match="known are logits, labels, class_weights, row_weights"):
        request(labels=extra)


def test_missing_logits_are_named() -> None:
    labels = '"labels":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}'
    with pytest.raises(TensorError, match="logits is missing"):
        decode(body(f"{{{labels}}}", bytes(8)), REQUEST(), LIMITS)


def test_rank_of_labels_follows_the_logits() -> None:
    labels = '"labels":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]}'
    with pytest.raises(TensorError, match="labels has 2 dimensions, expected 1 dimension"):
        request(labels=labels)


def test_a_boolean_byte_of_two_is_refused() -> None:
    labels = '"labels":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]}'
    with pytest.raises(RowsError) as caught:
        request(labels=labels, data=bytes(8) + b"\x02")
    assert (caught.value.rows, caught.value.values, caught.value.total) == ((0,), (2,), 1)


def test_header_over_the_limit_states_the_limit() -> None:
    with pytest.raises(LimitExceededError) as caught:
        decode((65_537).to_bytes(8, "little"), REQUEST(), LIMITS)
    assert caught.value.details() == {"limit_name": "header_bytes", "limit": 65_536}


def test_header_length_of_all_ones_allocates_nothing() -> None:
    with pytest.raises(LimitExceededError):
        decode(b"\xff" * 8, REQUEST(), LIMITS)


def test_too_many_tensors_states_the_limit() -> None:
    header = {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(17)}
    with pytest.raises(LimitExceededError) as caught:
        decode(body(json.dumps(header), b""), REQUEST(), LIMITS)
    assert caught.value.details() == {"limit_name": "tensors", "limit": 16}


def test_body_over_the_limit_states_the_limit() -> None:
    with pytest.raises(LimitExceededError) as caught:
        decode(body("{}"), REQUEST(), Limits(binary_bytes=9))
    assert caught.value.details() == {"limit_name": "binary_bytes", "limit": 9}


def test_data_begins_at_a_multiple_of_64_with_the_largest_array() -> None:
    logits, labels = np.ones((4, 3), np.float32), np.arange(4)
    header, first, _ = encode({"labels": labels, "logits": logits})
    assert header.nbytes % 64 == 0
    assert bytes(first) == logits.tobytes()


def test_every_array_stands_at_a_multiple_of_its_item_size() -> None:
    sent = b"".join(encode({"logits": np.ones((3, 3), np.float32), "labels": np.arange(3)}))
    tensors = decode(np.frombuffer(sent, np.uint8).copy().data, REQUEST(), LIMITS)
    assert all(tensor.flags.aligned for tensor in tensors.values())


def test_encoding_copies_no_array() -> None:
    logits = np.ones((4, 3), np.float32)
    _, first, _ = encode({"logits": logits, "labels": np.arange(4)})
    assert np.shares_memory(np.asarray(first), logits)


def test_strided_and_big_endian_arrays_are_sent_as_their_values() -> None:
    logits = np.arange(12, dtype=">f4").reshape(3, 4).T
    sent = b"".join(encode({"logits": logits, "labels": np.arange(4)}))
    assert np.array_equal(decode(sent, REQUEST(), LIMITS)["logits"], logits)


def test_a_dtype_the_form_lacks_is_refused() -> None:
    with pytest.raises(TensorError, match="logits has dtype complex128"):
        encode({"logits": np.ones(2, complex)})


DTYPES: Any = st.sampled_from([np.dtype("f4"), np.dtype("f8")])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)


@given(hnp.arrays(DTYPES, SHAPES), hnp.integer_dtypes(endianness="<"), st.data())
def test_round_trip_and_the_safetensors_library(
    logits: Array, label_dtype: Any, data: st.DataObject
) -> None:
    labels = data.draw(hnp.arrays(label_dtype, logits.shape[:-1]))
    sent = {"logits": logits, "labels": labels}
    ours = b"".join(encode(sent))
    theirs = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in sent.items()})
    for received in (
        decode(ours, REQUEST(), LIMITS),
        decode(theirs, REQUEST(), LIMITS),
        safetensors.numpy.load(ours),
    ):
        for name, tensor in sent.items():
            assert received[name].dtype == tensor.dtype
            assert received[name].shape == tensor.shape
            assert received[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize("reduced", [False, True])
def test_results_survive_the_wire_and_the_safetensors_library(reduced: bool) -> None:
    loss: Any = 0.1 if reduced else np.array([0.5, np.nan], np.float32)
    gradient = np.array([[1, 2], [3, 4]], np.float32)
    result = CrossEntropyResult(loss, gradient, None, None, 0.1, 2.0, 2)
    sent = b"".join(encode(result_tensors(result)))
    assert safetensors.numpy.load(sent)["count"].shape == ()
    back = result_from_tensors(decode(sent, RESPONSE(), LIMITS))
    assert type(back.loss) is type(loss)
    assert np.array_equal(np.asarray(back.loss), np.asarray(loss), equal_nan=True)
    assert np.array_equal(back.gradient if back.gradient is not None else [], gradient)
    assert (back.loss_sum, back.weight_sum, back.count) == (0.1, 2.0, 2)
    assert back.probabilities is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["F32", "F64", "I64", "BOOL"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner)
    ),
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I64", "BOOL", "F16"]),
        "shape": st.lists(st.integers(0, 2**70) | st.integers(0, 2), max_size=70),
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2),
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(["logits", "labels", "row_weights", "__metadata__", "x"]), VALUES | ENTRIES
)


@given(HEADERS.map(json.dumps) | st.text(), st.binary(max_size=32))
def test_any_header_gives_tensors_or_an_error_of_ours(header: str, data: bytes) -> None:
    try:
        decode(body(header.encode("utf-8", "surrogatepass"), data), REQUEST(), LIMITS)
    except SoftxentError as error:
        json.dumps(error.details(), ensure_ascii=False).encode()


@given(st.binary())
def test_any_bytes_give_tensors_or_an_error_of_ours(sent: bytes) -> None:
    with contextlib.suppress(SoftxentError):
        decode(sent, REQUEST(), LIMITS)
