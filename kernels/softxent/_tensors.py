"""Conversion of each tensor of a batch to the shape and dtype that kernels read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.dtypes import computed_dtype, dtype_name
from softxent.errors import LabelError, TensorError, WeightError, named_rows
from softxent.evaluations import DTYPES
from softxent.results import Floats

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
NONE = np.empty(0)
NO_INTEGERS = np.empty(0, np.int64)
NO_MASK = np.empty(0, np.uint8)
"""What stands for tensors that are not given."""


def as_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return a tensor as an array, without a copy where its memory can be seen."""
    if isinstance(value, np.ndarray):
        # To ask for the class would import numpy.ma, and a process that is forked meanwhile would
        # wait for the lock of that import for ever.
        return _unmasked(name, value) if hasattr(value, "mask") else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TensorError(f"{name} is not a rectangular array: {error}", field=name) from None
    # An empty list says nothing of its type; NumPy takes it for floats.
    is_empty = array.size == 0 and name in ("labels", "target_indices")
    return array.astype(np.int64) if is_empty and array.dtype == np.float64 else array


def _unmasked(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values of a masked array none of which is masked: they would count as the rest."""
    masked = int(np.ma.getmaskarray(array).sum())
    if masked:
        raise TensorError(
            f"{name} are a masked array, {masked} of whose values are masked; pass filled values,"
            " with class_mask for classes that take no part and ignore_index for rows",
            field=name,
        )
    return np.ma.getdata(array)


def as_logits(logits: npt.NDArray[Any]) -> Floats:
    if logits.dtype.kind in "iu":
        logits = _exact_floats(logits)
    if dtype_name(logits.dtype) not in DTYPES:
        raise TensorError(
            f"logits must be one of {', '.join(DTYPES)}, not {logits.dtype}", field="logits"
        )
    if logits.ndim < 2:
        raise TensorError(
            f"logits must have at least 2 dimensions [..., C], not {logits.ndim}", field="logits"
        )
    if logits.shape[-1] == 0 and logits.shape[:-1] != (0,) * (logits.ndim - 1):
        raise TensorError(
            f"logits of shape {list(logits.shape)} have rows but no classes", field="logits"
        )
    if logits.flags.c_contiguous and logits.dtype.isnative:
        return logits
    return np.ascontiguousarray(logits, logits.dtype.newbyteorder("="))


def _exact_floats(integers: npt.NDArray[Any]) -> Floats:
    """Return integer logits as float64; those that it does not hold are refused."""
    floats = integers.astype(np.float64)
    if integers.dtype.itemsize == 8 and (np.abs(floats) >= 2.0**53).any():
        raise TensorError(
            "logits hold integers of 2^53 or more, which float64 may lack; pass floats",
            field="logits",
        )
    return floats


def _integers(
    name: str, integers: npt.NDArray[Any], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    if integers.dtype == _INT64 and integers.shape == shape and integers.flags.c_contiguous:
        return integers
    if integers.dtype.kind not in "iub":
        raise TensorError(f"{name} must be integers, not {integers.dtype}", field=name)
    _check_shape(name, integers.shape, shape)
    if integers.dtype.kind == "u" and integers.dtype.itemsize == 8:
        too_large = integers.reshape(-1) > np.iinfo(np.int64).max
        if too_large.any():
            raise LabelError(
                f"{name} must be below 2^63; {count_failures(int(too_large.sum()), 'are')} not",
                field=name,
                **named_rows(too_large, integers),
            )
    return np.ascontiguousarray(integers, np.int64)


def as_labels(labels: npt.NDArray[Any], logits: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return labels flat, for logits of a shape."""
    if labels.shape == logits:
        raise TensorError(
            f"labels have the logits' shape {list(logits)}, and are one class for each row;"
            " give one-hot or soft labels as target_probabilities",
            field="labels",
        )
    return _integers("labels", labels, logits[:-1]).reshape(-1)


def _reals(name: str, reals: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if dtype_name(reals.dtype) in DTYPES:
        return reals
    if reals.dtype.kind not in "iu":
        raise TensorError(f"{name} must be real numbers, not {reals.dtype}", field=name)
    return reals


def per_class(name: str, given: Mapping[str, Any], logits: Floats) -> Floats:
    """Return values in the dtype of computation; those of 16-bit logits' own dtype as they are."""
    computed = computed_dtype(logits.dtype)
    if name not in given:
        return np.empty(0, computed)
    values = _reals(name, given[name])
    _check_shape(name, values.shape, logits.shape)
    same_half = values.dtype == logits.dtype and logits.dtype.itemsize == 2
    # What float32 cannot hold becomes infinite and is refused by row, as any infinity is.
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(values, logits.dtype if same_half else computed)
    return flat.reshape(math.prod(logits.shape[:-1]), logits.shape[-1])


def as_vectors(given: Mapping[str, Any], logits: Floats) -> Floats:
    return per_class("vectors", given, logits).astype(computed_dtype(logits.dtype), copy=False)


def as_top_k(
    given: Mapping[str, Any], leading: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], Floats]:
    names = ("target_indices", "target_log_probabilities")
    if names[0] not in given:
        return NO_INTEGERS, NONE
    logs = _reals(names[1], given[names[1]])
    if logs.ndim != len(leading) + 1:
        raise TensorError(
            f"{names[1]} has {logs.ndim} dimensions; the logits ask for {len(leading) + 1},"
            " one value for each entry of a row",
            field=names[1],
        )
    _check_shape(names[1], logs.shape[:-1], leading)
    indices = _integers(names[0], given[names[0]], logs.shape)
    rows = math.prod(leading)
    if rows and not logs.shape[-1]:
        raise TensorError("a top-k target needs at least one entry a row", field=names[0])
    floats = logs.dtype if dtype_name(logs.dtype) in DTYPES else _FLOAT64
    return (
        indices.reshape(rows, logs.shape[-1]),
        np.ascontiguousarray(logs, floats.newbyteorder("=")).reshape(rows, logs.shape[-1]),
    )


def as_weights(
    name: str, given: Mapping[str, Any], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    if name not in given:
        return NONE
    weights = _reals(name, given[name])
    _check_shape(name, weights.shape, shape)
    return np.ascontiguousarray(weights, np.float64).reshape(-1)


def as_class_weights(given: Mapping[str, Any], classes: int) -> npt.NDArray[np.float64]:
    weights = as_weights("class_weights", given, (classes,))
    if weights.size:
        refuse_bad_weights("class_weights", weights)
    return weights


def as_mask(given: Mapping[str, Any], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if "class_mask" not in given:
        return NO_MASK
    mask = given["class_mask"]
    if mask.dtype != np.bool_:
        raise TensorError(f"class_mask must be booleans, not {mask.dtype}", field="class_mask")
    if mask.shape != shape[-1:]:
        _check_shape("class_mask", mask.shape, shape)
        mask = mask.reshape(math.prod(shape[:-1]), shape[-1])
    return np.ascontiguousarray(mask).view(np.uint8)


def refuse_bad_weights(name: str, weights: npt.NDArray[np.float64]) -> None:
    """Raise WeightError where a weight is negative or not finite."""
    bad = ~((weights >= 0) & (weights < np.inf))
    if bad.any():
        raise WeightError(
            f"{name} must be finite and not negative; {count_failures(int(bad.sum()), 'are')} not",
            field=name,
            **named_rows(bad, weights),
        )


def count_failures(number: int, verb: str) -> str:
    """Return how many values fail: "1 is", "2 are"; "1 does", "2 do"."""
    return f"{number} {verb if number != 1 else {'are': 'is', 'do': 'does'}[verb]}"


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise TensorError(
            f"the shape of {name} is {list(shape)}; the logits ask for {list(expected)}", field=name
        )
