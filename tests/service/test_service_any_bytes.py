"""Whatever is sent gets an answer or a problem document, and never a 500."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_support import BINARY, JSON, batch, binary, post, raw_binary

from softxent.evaluations import TENSORS

relaxed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.sampled_from(["logits", "labels", *TENSORS])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I64", "U8", "BOOL", "X1"]) | json_values,
        "shape": st.lists(st.integers(-2, 2**65), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


def assert_answered(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert isinstance(answer.json()["error"], str)


@relaxed
@given(body=st.binary(max_size=200), form=st.sampled_from([JSON, BINARY]))
def test_any_bytes(service_url: str, body: bytes, form: str) -> None:
    assert_answered(post(service_url, body, form))


@relaxed
@given(members=st.dictionaries(names | st.text(max_size=4), json_values, max_size=4))
def test_any_json(service_url: str, members: dict[str, Any]) -> None:
    assert_answered(post(service_url, json.dumps(members).encode()))


@relaxed
@given(
    header=st.dictionaries(names, entries | json_values, max_size=3), data=st.binary(max_size=40)
)
def test_any_header(service_url: str, header: dict[str, Any], data: bytes) -> None:
    assert_answered(post(service_url, raw_binary(header, data), BINARY))


@relaxed
@given(at=st.integers(0, 250), byte=st.integers(0, 255))
def test_any_flipped_byte(service_url: str, at: int, byte: int) -> None:
    body = bytearray(binary(batch()))
    body[at % len(body)] = byte
    assert_answered(post(service_url, bytes(body), BINARY))


@relaxed
@given(query=st.binary(max_size=30))
def test_any_query(service_url: str, query: bytes) -> None:
    escaped = "".join(f"%{byte:02x}" if byte != 0x3D else "=" for byte in query)
    assert_answered(post(service_url, b'{"logits": [[1, 2]], "labels": [0]}', query=f"?{escaped}"))
