"""Evaluations as generators of calls: they yield a `Call`, are sent its `Answer`, return a result.

A batch whose body is over the service's limit goes in parts of rows, and the parts are merged to
the very bits of the whole: a row does not depend on other rows, sums are exact, and what a mean is
divided by is known before the first part is sent.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch, check_batch
from softxent.errors import EmptyReductionError, OptionError, RowsError, SoftxentError
from softxent.options import OUTPUTS, Options
from softxent.results import CrossEntropyResult
from softxent_client.errors import ServiceError
from softxent_client.messages import Answer, Body, Call, checked
from softxent_client.wire import (
    JSON,
    MEDIA_TYPES,
    RESPONSE,
    LimitExceededError,
    Limits,
    result_from_tensors,
)

ASK_LIMIT_BYTES = 1 << 20
"""Bodies up to this size are sent without asking what the service's limit is."""

CROSS_ENTROPY = "/v1/cross_entropy"

Array = npt.NDArray[Any]
Steps = Generator[Call, Answer, CrossEntropyResult]

_ANY_SIZE = Limits(binary_bytes=1 << 62, json_bytes=1 << 62)


def prepare(tensors: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Batch, Options]:
    """Check a call before anything is sent, as the library would.

    Raises:
        OptionError, TensorError, LabelError, WeightError: what was passed is refused.
    """
    known = Options.__dataclass_fields__
    for name in options:
        if name not in known:
            raise OptionError(f"unknown option {name!r}; known are {', '.join(known)}", field=name)
    return check_batch(tensors), Options(**options)


@dataclass(frozen=True)
class Form:
    """One encoding of requests and answers, and the limit that its bodies have."""

    media_type: str
    limit_name: str

    def body(self, batch: Batch, rows: slice) -> Body:
        """Return the request's body for some rows of a batch."""
        tensors: dict[str, Array] = {"logits": batch.logits[rows], "labels": batch.labels[rows]}
        if batch.row_weights.size:
            tensors["row_weights"] = batch.row_weights[rows]
        # No rows are [0, 0] in JSON, which no class weights fit.
        if batch.class_weights.size and len(batch.labels):
            tensors["class_weights"] = batch.class_weights
        return Body(list(MEDIA_TYPES[self.media_type].encode(tensors)))

    def call(self, body: Body, batch: Batch, options: Options) -> Call:
        """Return the request that evaluates `body`."""
        params = options.to_text()
        if self.media_type == JSON and batch.logits.dtype != np.float32:
            params["logits_dtype"] = batch.logits.dtype.name
        return Call("POST", CROSS_ENTROPY, params, self.media_type, body)

    def result(self, answer: Answer, batch: Batch, rows: int) -> CrossEntropyResult:
        """Return an answer's result, its arrays reshaped to `rows` rows.

        Raises:
            SoftxentError: what the service refused, or ServiceError for an unreadable answer.
        """
        body = checked(answer, self.media_type).body
        try:
            schema = RESPONSE(batch.logits.dtype.name)
            tensors = MEDIA_TYPES[self.media_type].decode(body, schema, _ANY_SIZE)
            classes = batch.logits.shape[1]
            return result_from_tensors(
                {name: _reshaped(name, tensors[name], rows, classes) for name in tensors}
            )
        except (SoftxentError, ValueError) as error:
            message = f"the answer cannot be read: {error}"
            raise ServiceError(message, status=answer.status) from error


def _reshaped(name: str, tensor: Array, rows: int, classes: int) -> Array:
    if tensor.ndim == 0:
        return tensor
    return tensor.reshape((rows, classes) if name in ("gradient", "probabilities") else (rows,))


def whole(form: Form, body: Body, batch: Batch, options: Options) -> Steps:
    """Evaluate a batch in one request."""
    reply = yield form.call(body, batch, options)
    return _shaped(form.result(reply, batch, len(batch.labels)), batch)


def in_parts(form: Form, batch: Batch, options: Options, limit: int) -> Steps:
    """Evaluate a batch in as many requests as bodies of at most `limit` bytes take.

    Errors name rows of the whole batch; `total` counts those of the first part at fault.
    """
    weight_sum = _weight_sum(batch, options)
    divisor = _divisor(options, weight_sum)
    merged: dict[str, Array] = {}
    count = 0
    for rows, body in _parts(form, batch, slice(0, len(batch.labels)), limit):
        for asked in _requests(options, divisor):
            reply = yield form.call(body, batch, asked)
            try:
                part = form.result(reply, batch, rows.stop - rows.start)
            except RowsError as error:
                raise _moved(error, rows.start) from None
            _fill(merged, part, asked, batch, rows)
        count += part.count
    loss_sum = exact_sum(merged["loss"])
    result = CrossEntropyResult(
        **{name: merged.get(name) if name in options.outputs else None for name in OUTPUTS},
        loss_sum=loss_sum,
        weight_sum=float(count) if weight_sum is None else weight_sum,
        count=count,
    )
    if options.reduction != "none" and "loss" in options.outputs:
        result = replace(result, loss=_reduced(options, loss_sum, divisor))
    return _shaped(result, batch)


def _parts(form: Form, batch: Batch, rows: slice, limit: int) -> Iterator[tuple[slice, Body]]:
    """Cut `rows` into bodies of at most `limit` bytes, and those again where rows differ in size.

    Raises:
        LimitExceededError: one row alone is over the limit.
    """
    body = form.body(batch, rows)
    count = rows.stop - rows.start
    if body.nbytes <= limit:
        yield rows, body
        return
    if count <= 1:
        raise LimitExceededError(
            f"a row takes {body.nbytes} bytes, over the service's {form.limit_name} of {limit}",
            limit_name=form.limit_name,
            limit=limit,
        )
    # A sixteenth is left for headers and for rows that are longer than the mean.
    step = min(count - 1, max(1, count * limit * 15 // (body.nbytes * 16)))
    del body
    for start in range(rows.start, rows.stop, step):
        yield from _parts(form, batch, slice(start, min(start + step, rows.stop)), limit)


def _requests(options: Options, divisor: float) -> list[Options]:
    """Return what each part is asked for: its row losses always, for the exact sum of them all."""
    mean_gradient = options.reduction == "mean" and "gradient" in options.outputs
    outputs = {*options.outputs, "loss"} - ({"gradient"} if mean_gradient else set())
    losses = replace(
        options, reduction="none", denominator=None, empty="nan", outputs=tuple(outputs)
    )
    if not mean_gradient:
        return [losses]
    gradient = replace(options, outputs=("gradient",), denominator=divisor or None, empty="zero")
    return [losses, gradient]


def _fill(
    merged: dict[str, Array], part: CrossEntropyResult, asked: Options, batch: Batch, rows: slice
) -> None:
    for name in asked.outputs:
        value = getattr(part, name)
        if value is None:
            raise ServiceError(f"the answer lacks {name}")
        if name not in merged:
            merged[name] = np.empty((len(batch.labels), *value.shape[1:]), value.dtype)
        merged[name][rows] = value


def _moved(error: RowsError, start: int) -> RowsError:
    """Return the error with rows of the whole batch instead of the part's."""
    if error.field != "class_weights":
        error.rows = tuple(row + start for row in error.rows)
    return error


def _weight_sum(batch: Batch, options: Options) -> float | None:
    """Return the exact sum of the weights, or None where every row weighs 1."""
    classes = batch.logits.shape[1]
    taken = (batch.labels >= 0) & (batch.labels < classes)
    if options.ignore_index is not None:
        taken &= batch.labels != options.ignore_index
    if batch.row_weights.size:
        taken &= batch.row_weights > 0
    labels = batch.labels[taken]
    if not batch.class_weights.size and not batch.row_weights.size:
        return None if options.reduction != "mean" else float(labels.size)
    weights = batch.row_weights[taken] if batch.row_weights.size else np.ones(labels.size)
    if batch.class_weights.size:
        weights = weights * batch.class_weights[labels]
    return exact_sum(weights)


def exact_sum(values: Array) -> float:
    """Return the exact sum of the values, rounded once; infinite where it is beyond float64."""
    if not np.isfinite(values).all():
        with np.errstate(invalid="ignore"):
            return float(np.sum(values, dtype=np.float64))
    try:
        return math.fsum(values.tolist())
    except OverflowError:
        with np.errstate(over="ignore"):
            return float(np.sum(values, dtype=np.float64))


def _divisor(options: Options, weight_sum: float | None) -> float:
    if options.reduction != "mean":
        return 1.0
    divisor = options.denominator if options.denominator is not None else weight_sum or 0.0
    if divisor == 0 and options.empty == "error":
        raise EmptyReductionError(
            "the mean divides by 0: no row is left, or none has weight", field="reduction"
        )
    return divisor


def _reduced(options: Options, loss_sum: float, divisor: float) -> float:
    if divisor == 0:
        return math.nan if options.empty == "nan" else 0.0
    return loss_sum / divisor


def _shaped(result: CrossEntropyResult, batch: Batch) -> CrossEntropyResult:
    """Return the result in the shape of the logits that were passed."""
    changes: dict[str, Any] = {
        name: value.reshape(*batch.leading, *value.shape[1:])
        for name in OUTPUTS
        if isinstance(value := getattr(result, name), np.ndarray)
    }
    return replace(result, **changes)
