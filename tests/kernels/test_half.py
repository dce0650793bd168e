"""float16 and bfloat16: the float32 result, rounded once, and no float32 copy of the batch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from softxent import CrossEntropyResult, NonFiniteError, OutputBufferError, cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
SHAPES = [(1, 1), (37, 10), (16, 32), (33, 33), (20, 100), (5, 9000), (3, 70_000)]
ALL = ("loss", "gradient", "log_normalizer", "probabilities")


def batch(shape: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    generator = np.random.default_rng(shape[0] * shape[1])
    logits = (generator.standard_normal(shape) * 6).astype(dtype)
    return logits, generator.integers(0, shape[1], shape[0])


def bits(array: Any) -> list[int]:
    return np.asarray(array).view(np.uint16).reshape(-1).tolist()


def assert_rounded(half: CrossEntropyResult, single: CrossEntropyResult, dtype: Any) -> None:
    """Per-row results are float32 as they are; the others are rounded to nearest even."""
    for name in ("loss", "log_normalizer"):
        got, wanted = getattr(half, name), getattr(single, name)
        assert got.dtype == np.float32
        assert np.array_equal(got, wanted, equal_nan=True)
    for name in ("gradient", "probabilities"):
        wanted = getattr(single, name).astype(dtype)
        got = getattr(half, name)
        assert got.dtype == dtype
        finite = np.isfinite(wanted.astype(np.float32))
        assert bits(got[finite]) == bits(wanted[finite])
        assert np.array_equal(got.astype(np.float32), wanted.astype(np.float32), equal_nan=True)
    assert half.loss_sum == single.loss_sum or np.isnan(single.loss_sum)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_float32_result_rounded_once(
    shape: tuple[int, int], dtype: np.dtype[Any], threads: int
) -> None:
    logits, labels = batch(shape, dtype)
    weights = np.linspace(0.5, 2, shape[1])
    options: dict[str, Any] = {"outputs": ALL, "label_smoothing": 0.1, "class_weights": weights}
    half = cross_entropy(logits, labels, num_threads=threads, **options)
    single = cross_entropy(logits.astype(np.float32), labels, **options)
    assert_rounded(half, single, dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_value_is_read_and_written(dtype: np.dtype[Any]) -> None:
    """All 65,536 patterns, NaN, infinities and subnormal numbers among them, as rows [x, 0]."""
    patterns = np.arange(65_536, dtype=np.uint16).view(dtype)
    logits = np.zeros((65_536, 2), dtype)
    logits[:, 0] = patterns
    options: dict[str, Any] = {"outputs": ALL, "non_finite": "propagate"}
    labels = np.zeros(65_536, np.int64)
    half = cross_entropy(logits, labels, **options)
    with np.errstate(invalid="ignore"):
        single = cross_entropy(logits.astype(np.float32), labels, **options)
    assert_rounded(half, single, dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-4, 1.0, 6e4, 1e30])
def test_gradients_over_the_whole_range_of_the_format(scale: float, dtype: np.dtype[Any]) -> None:
    logits, labels = batch((2000, 40), dtype)
    options: dict[str, Any] = {"scale": scale, "outputs": ALL, "non_finite": "propagate"}
    half = cross_entropy(logits, labels, **options)
    single = cross_entropy(logits.astype(np.float32), labels, **options)
    with np.errstate(over="ignore"):
        assert_rounded(half, single, dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(50, 10), (50, 100)])
def test_in_place_unaligned_and_read_only(shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    logits, labels = batch(shape, dtype)
    wanted = cross_entropy(logits, labels).gradient
    memory = np.zeros(logits.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(dtype).reshape(shape)
    unaligned[:] = logits
    unaligned.flags.writeable = False
    assert bits(cross_entropy(unaligned, labels).gradient) == bits(wanted)
    unaligned.flags.writeable = True
    cross_entropy(unaligned, labels, out={"gradient": unaligned})
    assert bits(np.ascontiguousarray(unaligned)) == bits(wanted)


@pytest.mark.parametrize("dtype", HALVES)
def test_edges(dtype: np.dtype[Any]) -> None:
    assert cross_entropy(np.zeros((0, 5), dtype), []).count == 0
    assert cross_entropy(np.zeros((0, 0), dtype), []).count == 0
    ignored = cross_entropy(np.full((2, 3), np.nan, dtype), [-100, -100])
    assert ignored.gradient is not None
    assert bits(ignored.gradient) == [0] * 6
    with pytest.raises(NonFiniteError) as refused:
        cross_entropy(np.array([[0, 1], [np.inf, 0]], dtype), [0, 0])
    assert refused.value.rows == (1,)
    with pytest.raises(OutputBufferError):
        cross_entropy(np.zeros((2, 3), dtype), [0, 0], out={"gradient": np.zeros((2, 3), "f4")})
