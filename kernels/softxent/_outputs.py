"""Output arrays of a batch: the caller's where `out` names them, else new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch
from softxent.errors import OutputBufferError
from softxent.evaluations import IN_PLACE
from softxent.options import Options
from softxent.results import Arrays


class OutputSpecification(NamedTuple):
    """One output of a plan.

    Attributes:
        per_logit: whether it has a value for each class.
        slot: where its array stands among those of a task.
        lean_slot: the same among those of `LEAN`; None if it is none of them.
    """

    name: str
    per_logit: bool
    dtype: np.dtype[Any]
    slot: int
    lean_slot: int | None


def prepare_outputs(
    batch: Batch,
    outputs: Iterable[OutputSpecification],
    options: Options,
    out: Mapping[str, npt.NDArray[Any]] | None,
) -> Arrays:
    """Check the caller's buffers and allocate the others.

    Raises:
        OutputBufferError: a buffer is not asked for, has the wrong dtype, shape or strides, is
            read-only, or overlaps an input (other than being the logits) or another buffer.
    """
    shapes = (batch.leading, (*batch.leading, batch.logits.shape[1]))
    if not out:
        return {o.name: np.empty(shapes[o.per_logit], o.dtype) for o in outputs}
    _refuse_unasked(options, out)
    arrays: Arrays = {}
    for output in outputs:
        name, shape = output.name, shapes[output.per_logit]
        if name in out:
            _check_buffer(name, out[name], shape, output.dtype)
        arrays[name] = out[name] if name in out else np.empty(shape, output.dtype)
    _refuse_overlaps(batch, out)
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


def _refuse_overlaps(batch: Batch, out: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse buffers that would destroy an input, also one that was copied, or one another."""
    names = list(out)
    for i, name in enumerate(names):
        for other, array in batch.given.items():
            if not np.may_share_memory(out[name], array):
                continue
            if not (other == "logits" and name in IN_PLACE and _are_same(out[name], batch.logits)):
                raise OutputBufferError(_overlap(name, other), field=name)
        for other in names[:i]:
            if np.may_share_memory(out[name], out[other]):
                raise OutputBufferError(_overlap(name, f"out[{other!r}]"), field=name)


def _overlap(name: str, other: str) -> str:
    text = f"out[{name!r}] overlaps {other}; give it memory of its own"
    if other == "logits" and name in IN_PLACE:
        text += ", or exactly the memory of logits that are C-contiguous and of its dtype"
    return text


def _are_same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether contiguous arrays of as many elements begin at one address, in one dtype."""
    if a is b:
        return True
    begins = (array.__array_interface__["data"][0] for array in (a, b))
    return a.dtype == b.dtype and next(begins) == next(begins)
