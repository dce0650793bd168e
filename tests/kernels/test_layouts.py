"""Whatever the memory layout and integer type of the inputs, the result has the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle import ALL, Array

from softxent import CrossEntropyResult, cross_entropy

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]

each_shape = pytest.mark.parametrize("shape", [(37, 10), (37, 40), (3, 5000), (600, 100)])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def batch(shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(shape)
    logits = (rng.standard_normal(shape) * 5).astype(dtype)
    return logits, rng.integers(0, min(shape[-1], 100), shape[:-1])


def evaluate(logits: Any, labels: Any, **options: Any) -> CrossEntropyResult:
    return cross_entropy(logits, labels, outputs=ALL, **options)


def assert_same_bits(a: CrossEntropyResult, b: CrossEntropyResult) -> None:
    for name in ALL:
        assert np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes()
    assert (a.loss_sum, a.weight_sum, a.count) == (b.loss_sum, b.weight_sum, b.count)


def unaligned(array: Array) -> Array:
    memory = np.empty(array.nbytes + 1, np.uint8)
    moved: Array = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def strided(array: Array) -> Array:
    wide = np.full((array.shape[0] * 2, *array.shape[1:-1], array.shape[-1] * 3), 99, array.dtype)
    wide[1::2, ..., ::3] = array
    return wide[1::2, ..., ::3]


def read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def swapped(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder())


def reversed_memory(array: Array) -> Array:
    return array[::-1].copy()[::-1]


LAYOUTS = [unaligned, strided, read_only, swapped, reversed_memory, np.asfortranarray]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@each_shape
@each_dtype
def test_layout_of_logits(dtype: Any, shape: tuple[int, int], layout: Any) -> None:
    logits, labels = batch(shape, dtype)
    other = layout(logits)
    np.testing.assert_array_equal(other, logits)
    result = evaluate(other, labels)
    assert result.gradient is not None
    assert result.gradient.dtype == dtype
    assert result.gradient.dtype.isnative
    assert_same_bits(result, evaluate(logits, labels))
    np.testing.assert_array_equal(other, logits, err_msg="inputs are left as they are")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layout_of_labels_and_weights(layout: Any) -> None:
    logits, labels = batch((37, 10), np.float32)
    weights = np.linspace(0.5, 2, 37)
    per_class = np.linspace(1, 2, 10)
    layout = {"strided": lambda a: np.repeat(a, 3)[::3]}.get(layout.__name__, layout)
    plain = evaluate(logits, labels, row_weights=weights, class_weights=per_class)
    other = evaluate(
        logits, layout(labels), row_weights=layout(weights), class_weights=layout(per_class)
    )
    assert_same_bits(plain, other)


@pytest.mark.parametrize("layout", LAYOUTS[:4], ids=lambda f: f.__name__)
@each_dtype
def test_batches_of_sequences(dtype: Any, layout: Any) -> None:
    """[B, T, C] is [B * T, C], and the results have the leading shape."""
    logits, labels = batch((4, 9, 40), dtype)
    weights = np.linspace(0, 1, 36).reshape(4, 9)
    flat = evaluate(logits.reshape(36, 40), labels.reshape(36), row_weights=weights.reshape(36))
    result = evaluate(layout(logits), labels, row_weights=weights)
    assert_same_bits(result, flat)
    shapes = {name: np.asarray(getattr(result, name)).shape for name in ALL}
    assert shapes["loss"] == shapes["log_normalizer"] == (4, 9)
    assert shapes["gradient"] == shapes["probabilities"] == (4, 9, 40)


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("shape", [(37, 10), (37, 40)])
def test_integer_types_of_labels(shape: tuple[int, int], integer: str) -> None:
    logits, labels = batch(shape, np.float32)
    ignore = 5 if integer.startswith("u") else -100
    labels[3] = ignore
    wanted = evaluate(logits, labels, ignore_index=ignore)
    assert_same_bits(evaluate(logits, labels.astype(integer), ignore_index=ignore), wanted)


def test_boolean_labels_are_0_and_1() -> None:
    logits, labels = batch((37, 2), np.float64)
    assert_same_bits(evaluate(logits, labels == 1), evaluate(logits, labels))


def test_lists_are_taken_as_float64() -> None:
    logits, labels = batch((5, 3), np.float64)
    assert_same_bits(evaluate(logits.tolist(), labels.tolist()), evaluate(logits, labels))


@pytest.mark.parametrize("type_", [np.float16, np.float32, np.int8, np.uint16, np.int64])
def test_weights_of_any_real_type(type_: Any) -> None:
    logits, labels = batch((4, 3), np.float32)
    weights = np.array([1, 0, 2, 3])
    wanted = evaluate(logits, labels, row_weights=weights.astype(np.float64))
    assert_same_bits(evaluate(logits, labels, row_weights=weights.astype(type_)), wanted)


@each_shape
@each_dtype
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_in_place_gives_the_same_bits(dtype: Any, shape: tuple[int, int], smoothing: float) -> None:
    logits, labels = batch(shape, dtype)
    logits[2, 1] = -np.inf
    logits[:, 0] += np.where(np.arange(shape[0]) % 3 == 0, 60, 0).astype(dtype)
    options: dict[str, Any] = {"label_smoothing": smoothing, "non_finite": "propagate"}
    wanted = evaluate(logits, labels, **options)
    for name in ("gradient", "probabilities"):
        for buffer in (logits.copy(), unaligned(logits)):
            result = evaluate(buffer, labels, out={name: buffer}, **options)
            assert getattr(result, name) is buffer
            assert_same_bits(result, wanted)


@each_shape
@each_dtype
def test_every_output_into_the_callers_arrays(dtype: Any, shape: tuple[int, int]) -> None:
    logits, labels = batch(shape, dtype)
    shapes = {"loss": shape[:1], "log_normalizer": shape[:1]}
    for move in (np.copy, unaligned):
        out = {name: move(np.full(shapes.get(name, shape), 7, dtype)) for name in ALL}
        result = evaluate(logits, labels, out=out)
        assert all(getattr(result, name) is out[name] for name in ALL)
        assert_same_bits(result, evaluate(logits, labels))


@each_shape
@each_dtype
def test_nothing_is_written_beyond_a_buffer(dtype: Any, shape: tuple[int, int]) -> None:
    """Guards before and after each output keep their values."""
    logits, labels = batch(shape, dtype)
    labels[1] = -100
    sizes = {"loss": shape[0], "log_normalizer": shape[0]}
    memory = {n: np.full(sizes.get(n, logits.size) + 128, 7, dtype) for n in ALL}
    shapes = {"loss": shape[:1], "log_normalizer": shape[:1]}
    out = {n: m[64:-64].reshape(shapes.get(n, shape)) for n, m in memory.items()}
    assert_same_bits(evaluate(logits, labels, out=out), evaluate(logits, labels))
    for guarded in memory.values():
        assert set(guarded[:64].tolist() + guarded[-64:].tolist()) == {7}
