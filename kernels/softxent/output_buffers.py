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

    def flat(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return loss, gradient, log-normaliser and probabilities flat; empty is not wanted."""
        nothing = self.loss[:0].reshape(-1)
        return (
            self.loss.reshape(-1),
            nothing if self.gradient is None else self.gradient.reshape(-1),
            nothing if self.log_normalizer is None else self.log_normalizer.reshape(-1),
            nothing if self.probabilities is None else self.probabilities.reshape(-1),
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
    dtype = batch.logits.dtype
    per_row = batch.leading
    per_logit = (*batch.leading, batch.logits.shape[1])
    shapes = {
        "loss": per_row,
        "gradient": per_logit,
        "log_normalizer": per_row,
        "probabilities": per_logit,
    }
    _refuse_unasked(options, out)
    arrays: dict[str, Floats | None] = dict.fromkeys(shapes)
    for name, shape in shapes.items():
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
