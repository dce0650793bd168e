"""What is written as JSON: digits, words, pieces, and the way there and back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from wire_support import read

from softxent_client.wire.json_form import encode


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
