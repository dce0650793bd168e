"""Rounding to a narrower type, once: against Fractions, at the places where twice differs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

from softxent import cross_entropy
from softxent.options import DType
from softxent.rounding import round_into

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NARROW = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]


def neighbours(dtype: np.dtype[Any]) -> list[float]:
    """Return finite numbers of a type that lie side by side, from the smallest to the largest."""
    kind = np.uint16 if dtype.itemsize == 2 else np.uint32
    count = 0x7F800000 if dtype.itemsize == 4 else 0x7F80 if dtype == BFLOAT16 else 0x7C00
    firsts = np.linspace(0, count - 2, 300).astype(np.int64)
    pairs = np.stack([firsts, firsts + 1], axis=1).reshape(-1).astype(kind).view(dtype)
    return [float(v) for v in pairs]


@pytest.mark.parametrize("dtype", NARROW)
def test_float64_is_rounded_once(dtype: np.dtype[Any]) -> None:
    """Numbers beside the midpoint of two neighbours, nearer than float32 can tell."""
    near, right = [], []
    values = neighbours(dtype)
    for low, high in zip(values[::2], values[1::2], strict=True):
        middle = (Fraction(low) + Fraction(high)) / 2
        for away in (Fraction(0), middle / 2**52, -middle / 2**52, middle / 2**30):
            v = float(middle + away)
            near.append(v)
            nearest = min(
                (low, high), key=lambda w: (abs(Fraction(w) - Fraction(v)), parity(w, dtype))
            )
            right.append(nearest)
    got = np.empty(2 * len(near), dtype)
    round_into(got, np.array([*near, *(-v for v in near)]))
    assert got.astype(np.float64).tolist() == [*right, *(-v for v in right)]


def parity(value: float, dtype: np.dtype[Any]) -> int:
    """Return the last bit of a number's pattern: ties go to where it is 0."""
    return int(np.array(value).astype(dtype).view(f"u{dtype.itemsize}")) & 1


@pytest.mark.parametrize("stored", NARROW)
def test_outputs_of_float64_logits_are_rounded_once(stored: np.dtype[Any]) -> None:
    """Row weights put each gradient beside a midpoint, where rounding by way of float32 differs."""
    values = np.array(neighbours(stored)[100:400])
    middles = (values[::2] + values[1::2]) * (1 + 2.0**-45)
    result: Any = cross_entropy(
        np.zeros((len(middles), 2)),
        np.zeros(len(middles), np.int64),
        row_weights=middles,
        output_dtype=cast("DType", stored.name),
        non_finite="propagate",
    )
    exact = np.empty(len(middles), stored)
    round_into(exact, middles / 2)
    assert result.gradient[:, 1].tobytes() == exact.tobytes()


@pytest.mark.parametrize("wide", [np.float64, np.int64])
def test_probabilities_of_a_wider_type_are_rounded_once(wide: type) -> None:
    """2^24 + 1 and its like lie halfway between float32 numbers, and 2^40 + 2^16 + 1 just above."""
    values: Any = np.array([[2**24 + 1, 2**24 + 3], [2**40 + 2**16 + 1, 2**40 + 2**16]], wide)
    right = np.array([[2**24, 2**24 + 4], [2**40 + 2**17, 2**40]], np.float32)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        logits = np.zeros((2, 2), dtype)
        given: Any = cross_entropy(logits, target_probabilities=values, outputs=("loss",))
        wanted: Any = cross_entropy(logits, target_probabilities=right, outputs=("loss",))
        assert given.loss.tobytes() == wanted.loss.tobytes()
