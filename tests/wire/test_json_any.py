"""Any JSON, any bytes, any damage: what the body says, or an error of ours."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from wire_support import batch, read

from softxent.errors import SoftxentError
from softxent.evaluations import TENSORS

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
NAMES = st.sampled_from(["logits", *TENSORS])
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
