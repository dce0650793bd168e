"""Any header, any bytes: tensors, or an error of ours."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from wire_support import LIMITS, body

from softxent.errors import SoftxentError
from softxent_client.wire import (
    REQUEST,
)
from softxent_client.wire.safetensors_form import decode

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
