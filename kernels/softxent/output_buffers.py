"""The arrays a batch's results are written to: the caller's where `out` names them, else new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch
from softxent.errors import OutputBufferError
from softxent.options import Options
from softxent.results import CrossEntropyResult, Floats


@dataclass(frozen=True, eq=False)
class Outputs:
    """Arrays for the results of one batch, in the shapes that are returned; None is not wanted."""

    loss: Floats
    gradient: Floats | None
    log_normalizer: Floats | None
    probabilities: Floats | None

    def flat(self, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Return loss, gradient, log-normaliser and probabilities flat; empty is not wanted.

        `dtype` is the logits'. Arrays of 16 bits are views of their bits as uint16, because
        compiled code has no such floats.
        """
        loss = self.loss.reshape(-1)
        return (
            loss,
            bits_of(loss[:0].astype(dtype) if self.gradient is None else self.gradient),
            loss[:0] if self.log_normalizer is None else self.log_normalizer.reshape(-1),
            bits_of(loss[:0].astype(dtype) if self.probabilities is None else self.probabilities),
        )

    def result(
        self, options: Options, reduced: float, loss_sum: float, weight_sum: float, count: int
    ) -> CrossEntropyResult:
        """Return the result: what was asked for, and the sums."""
        loss: Floats | float | None = None
        if "loss" in options.outputs:
            loss = self.loss if options.reduction == "none" else reduced
        return CrossEntropyResult(
            loss=loss,
            gradient=self.gradient,
            log_normalizer=self.log_normalizer,
            probabilities=self.probabilities,
            loss_sum=loss_sum,
            weight_sum=weight_sum,
            count=count,
        )


def bits_of(array: Floats) -> npt.NDArray[Any]:
    """Return an array flat, as uint16 where its floats have 16 bits."""
    flat = array.reshape(-1)
    return flat.view(np.uint16) if flat.dtype.itemsize == 2 else flat


def prepare_outputs(
    batch: Batch,
    options: Options,
    out: Mapping[str, npt.NDArray[Any]],
    tensors: Mapping[str, Any],
) -> Outputs:
    """Check the caller's buffers and allocate the others; `tensors` are what `batch` came from.

    Raises:
        OutputBufferError: a buffer is not asked for, has the wrong dtype, shape or strides, is
            read-only, or overlaps an input (other than being the logits) or another buffer.
    """
    per_row = (batch.leading, batch.row_dtype)
    per_logit = ((*batch.leading, batch.logits.shape[1]), batch.logits.dtype)
    forms = {
        "loss": per_row,
        "gradient": per_logit,
        "log_normalizer": per_row,
        "probabilities": per_logit,
    }
    _refuse_unasked(options, out)
    arrays: dict[str, Floats | None] = dict.fromkeys(forms)
    for name, (shape, dtype) in forms.items():
        if name in out:
            _check_buffer(name, out[name], shape, dtype)
            arrays[name] = out[name]
        elif name in options.outputs or name == "loss":
            arrays[name] = np.empty(shape, dtype)
    if out:
        _refuse_overlaps(batch, out, tensors)
    return Outputs(**arrays)  # type: ignore[arg-type]


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
        for other, array in tensors.items():
            may_replace = other == "logits" and name in ("gradient", "probabilities")
            in_place = may_replace and out[name].ctypes.data == batch.logits.ctypes.data
            overlaps = isinstance(array, np.ndarray) and np.may_share_memory(out[name], array)
            if overlaps and not in_place:
                raise OutputBufferError(f"out[{name!r}] overlaps {other}", field=name)
        for other in names[:i]:
            if np.may_share_memory(out[name], out[other]):
                raise OutputBufferError(f"out[{name!r}] overlaps out[{other!r}]", field=name)
