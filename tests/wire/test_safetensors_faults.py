"""Binary bodies that are refused: literal bytes for each fault."""

from __future__ import annotations

import json

import pytest
from wire_support import DATA, LABELS, LIMITS, LOGITS, body, request

from softxent.errors import RowsError, TensorError
from softxent_client.wire import (
    REQUEST,
    LimitExceededError,
    Limits,
    MalformedBodyError,
)
from softxent_client.wire.safetensors_form import decode

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


@pytest.mark.parametrize("fault", MALFORMED_LOGITS)
def test_malformed_tensor(fault: str) -> None:
    with pytest.raises(MalformedBodyError):
        request(logits=f'"logits":{MALFORMED_LOGITS[fault]}')


def test_an_integer_of_thousands_of_digits_is_refused_in_our_words() -> None:
    for header in ('{"a":' + "9" * 5_000 + "}", '{"a":' + "9" * 21 + "}"):
        with pytest.raises(MalformedBodyError) as refused:
            decode(body(header), REQUEST(), LIMITS)
        assert str(refused.value) == f"the header holds an integer of {len(header) - 6} digits"


@pytest.mark.parametrize(
    ("dtype", "refusal"),
    [
        ("F8_E4M3", "logits has unknown dtype 'F8_E4M3'; known are"),
        ("I64", "logits has dtype I64, expected one of F64, F32, F16, BF16"),
        ("BOOL", "logits has dtype BOOL, expected one of F64, F32, F16, BF16"),
        ("", "logits has unknown dtype ''; known are"),
    ],
)
def test_dtype_that_logits_cannot_have_names_the_tensor(dtype: str, refusal: str) -> None:
    size = 16 if dtype == "I64" else 2 if dtype == "BOOL" else 4
    logits = f'"logits":{{"dtype":"{dtype}","shape":[1,2],"data_offsets":[0,{size}]}}'
    labels = f'"labels":{{"dtype":"I64","shape":[1],"data_offsets":[{size},{size + 8}]}}'
    with pytest.raises(TensorError, match=refusal) as caught:
        request(logits, labels, bytes(size + 8))
    assert caught.value.field == "logits"


def test_floating_labels_are_refused() -> None:
    labels = '"labels":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}'
    with pytest.raises(TensorError, match="labels has dtype F64"):
        request(labels=labels)


def test_unknown_tensor_is_answered_with_the_known_names() -> None:
    extra = '"targets":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}'
    with pytest.raises(TensorError, match="known are logits, labels, target_prob"):
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
