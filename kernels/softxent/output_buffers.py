"""The arrays a batch's results are written to: the caller's where `out` names them, else new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent._interop import as_numpy
from softxent.batch import Batch, dtype_name
from softxent.errors import OptionError, OutputBufferError
from softxent.evaluations import IN_PLACE, INTEGERS, PER_LOGIT
from softxent.options import Options
from softxent.results import Arrays


def stored_dtype(batch: Batch, options: Options) -> np.dtype[Any]:
    """Return the dtype of outputs of one value a logit.

    Raises:
        OptionError: it is bfloat16, and the package ml_dtypes is not installed.
    """
    if options.output_dtype in (None, dtype_name(batch.logits.dtype)):
        return batch.logits.dtype
    if options.output_dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401 - gives NumPy the name
        except ImportError:
            raise OptionError(
                "output_dtype=bfloat16 needs the package ml_dtypes", field="output_dtype"
            ) from None
    return np.dtype(str(options.output_dtype))


def form_of(
    name: str, batch: Batch, stored: np.dtype[Any]
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an output of a batch."""
    if name in PER_LOGIT:
        return (*batch.leading, batch.logits.shape[1]), stored
    return batch.leading, np.dtype(INTEGERS[name]) if name in INTEGERS else batch.computed


def prepare_outputs(
    batch: Batch,
    options: Options,
    out: Mapping[str, npt.NDArray[Any]],
    tensors: Mapping[str, Any],
) -> Arrays:
    """Check the caller's buffers and allocate the others; the loss is always among them.

    `tensors` are what `batch` came from.

    Raises:
        OptionError: the output dtype is not there.
        OutputBufferError: a buffer is not asked for, has the wrong dtype, shape or strides, is
            read-only, or overlaps an input (other than being the logits) or another buffer.
    """
    stored = stored_dtype(batch, options)
    _refuse_unasked(options, out)
    arrays: Arrays = {}
    for name in options.outputs if "loss" in options.outputs else ("loss", *options.outputs):
        shape, dtype = form_of(name, batch, stored)
        if name in out:
            _check_buffer(name, out[name], shape, dtype)
            arrays[name] = out[name]
        else:
            arrays[name] = np.empty(shape, dtype)
    if out:
        _refuse_overlaps(batch, out, tensors)
    return arrays


def flat_bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array flat; floats of 16 bits and booleans as the unsigned integers they are.

    Compiled code has no such floats, and writes booleans as bytes.
    """
    flat = array.reshape(-1)
    if flat.dtype.itemsize == 2:
        return flat.view(np.uint16)
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat


def _refuse_unasked(options: Options, out: Mapping[str, npt.NDArray[Any]]) -> None:
    for name in out:
        if name not in options.outputs:
            asked = ", ".join(options.outputs)
            raise OutputBufferError(f"out names {name!r}, but outputs is {asked}", field=name)
    if "loss" in out and options.reduction != "none":
        raise OutputBufferError(
            f"out cannot hold the loss with reduction={options.reduction}: it is one number",
            field="loss",
        )


def _check_buffer(name: str, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    problem = None
    if not isinstance(buffer, np.ndarray):
        problem = f"is a {type(buffer).__name__}, not a numpy array"
    elif buffer.dtype != dtype:
        problem = f"has dtype {buffer.dtype}; the result is {dtype}"
    elif buffer.shape != shape:
        problem = f"has shape {list(buffer.shape)}; the result has {list(shape)}"
    elif not buffer.flags.c_contiguous:
        problem = "is not C-contiguous"
    elif not buffer.flags.writeable:
        problem = "is read-only"
    if problem:
        raise OutputBufferError(f"out[{name!r}] {problem}", field=name)


def _refuse_overlaps(
    batch: Batch, out: Mapping[str, npt.NDArray[Any]], tensors: Mapping[str, Any]
) -> None:
    """Refuse buffers that would destroy an input, also one that was copied, or one another."""
    names = list(out)
    for i, name in enumerate(names):
        for other, value in tensors.items():
            array = as_numpy(other, value)
            if not isinstance(array, np.ndarray) or not np.may_share_memory(out[name], array):
                continue
            may_replace = other == "logits" and name in IN_PLACE
            if not (may_replace and _are_same(out[name], batch.logits)):
                raise OutputBufferError(f"out[{name!r}] overlaps {other}", field=name)
        for other in names[:i]:
            if np.may_share_memory(out[name], out[other]):
                raise OutputBufferError(f"out[{name!r}] overlaps out[{other!r}]", field=name)


def _are_same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether contiguous arrays of as many elements begin at one address, in one dtype."""
    begins = (array.__array_interface__["data"][0] for array in (a, b))
    return a.dtype == b.dtype and next(begins) == next(begins)
