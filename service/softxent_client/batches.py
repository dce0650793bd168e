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

from softxent.batch import Batch, check_batch, refuse_bad_labels, refuse_bad_weights
from softxent.combinations import refuse_illegal
from softxent.errors import RowsError, SoftxentError
from softxent.options import OUTPUTS, Options
from softxent.reduction import mean_divisor, reduced_loss
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
"""Bodies up to this size are sent without asking what the service's limit is: a refusal tells it,
and costs at most so many bytes. Before larger ones one small GET is cheaper."""

CROSS_ENTROPY = "/v1/cross_entropy"

Array = npt.NDArray[Any]
Steps = Generator[Call, Answer, CrossEntropyResult]

_ANY_SIZE = Limits(binary_bytes=1 << 62, json_bytes=1 << 62)


def prepare(tensors: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Batch, Options]:
    """Check a call before anything is sent, as the library would.

    Raises:
        OptionError, TensorError, LabelError, WeightError: what was passed is refused.
    """
    checked = Options.from_keywords(options)
    batch = check_batch(tensors)
    refuse_illegal(batch, checked)
    return batch, checked


@dataclass(frozen=True)
class Form:
    """One encoding of requests and answers, and the limit that its bodies have."""

    media_type: str
    limit_name: str

    def body(self, batch: Batch, rows: slice) -> Body:
        """Return the request's body for some rows of a batch."""
        tensors = {name: getattr(batch, name)[rows] for name in _per_row(batch)}
        # No rows are [0, 0] in JSON, which nothing that has one value a class fits.
        if batch.rows:
            tensors |= {name: getattr(batch, name) for name in _per_class(batch)}
        if "class_mask" in tensors:
            tensors["class_mask"] = tensors["class_mask"].view(np.bool_)
        return Body(list(MEDIA_TYPES[self.media_type].encode(tensors)))

    def call(self, body: Body, batch: Batch, options: Options) -> Call:
        """Return the request that evaluates `body`."""
        params = options.to_text()
        if self.media_type == JSON and batch.logits.dtype != np.float32:
            params["logits_dtype"] = batch.logits.dtype.name
        return Call("POST", CROSS_ENTROPY, params, self.media_type, body)

    def lowers(self, refusal: LimitExceededError, limit: int) -> bool:
        """Tell whether a refusal is for the size of a body, by a limit below the one we kept to."""
        return (
            refusal.limit_name == self.limit_name
            and isinstance(refusal.limit, int)
            and refusal.limit < limit
        )

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


def _per_row(batch: Batch) -> list[str]:
    """Return the names of the tensors that are cut with the rows."""
    names = ["logits", *sorted(batch.kinds)]
    if "target_indices" in batch.kinds:
        names.append("target_log_probabilities")
    if batch.row_weights.size:
        names.append("row_weights")
    if batch.class_mask.ndim == 2:
        names.append("class_mask")
    return names


def _per_class(batch: Batch) -> list[str]:
    """Return the names of the tensors that are the same for every row."""
    names = ["class_weights"] if batch.class_weights.size else []
    return names + ["class_mask"] * (batch.class_mask.ndim == 1 and batch.class_mask.size > 0)


def _reshaped(name: str, tensor: Array, rows: int, classes: int) -> Array:
    if tensor.ndim == 0:
        return tensor
    return tensor.reshape((rows, classes) if name in ("gradient", "probabilities") else (rows,))


def whole(form: Form, body: Body, batch: Batch, options: Options) -> Steps:
    """Evaluate a batch in one request."""
    reply = yield form.call(body, batch, options)
    return _shaped(form.result(reply, batch, batch.rows), batch)


def in_parts(form: Form, batch: Batch, options: Options, limit: int) -> Steps:
    """Evaluate a batch in as many requests as bodies of at most `limit` bytes take.

    Row weights, labels out of range and the divisor of the mean are refused before a byte is sent.
    What else is wrong with rows the service finds: an error names rows of the whole batch; `total`
    counts those of the first part at fault.

    Raises:
        LimitExceededError: one row alone is over the limit, or the service's limit is lower now.
    """
    count, weight_sum = _weigh(batch, options)
    divisor = mean_divisor(options, weight_sum, count)
    merged: dict[str, Array] = {}
    for rows, body in _parts(form, batch, slice(0, batch.rows), limit):
        for asked in _requests(options, divisor):
            reply = yield form.call(body, batch, asked)
            try:
                part = form.result(reply, batch, rows.stop - rows.start)
            except RowsError as error:
                raise _moved(error, rows.start) from None
            _fill(merged, part, asked, batch, rows)
    loss_sum = exact_sum(merged["loss"])
    result = CrossEntropyResult(
        **{name: merged.get(name) if name in options.outputs else None for name in OUTPUTS},
        loss_sum=loss_sum,
        weight_sum=weight_sum,
        count=count,
    )
    if options.reduction != "none" and "loss" in options.outputs:
        result = replace(result, loss=reduced_loss(options, loss_sum, divisor))
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
        options,
        reduction="none",
        denominator=None,
        mean_over="weights",
        empty="nan",
        outputs=tuple(outputs),
    )
    if not mean_gradient:
        return [losses]
    gradient = replace(
        options,
        outputs=("gradient",),
        denominator=divisor or None,
        mean_over="weights",
        empty="zero",
    )
    return [losses, gradient]


def _fill(
    merged: dict[str, Array], part: CrossEntropyResult, asked: Options, batch: Batch, rows: slice
) -> None:
    for name in asked.outputs:
        value = getattr(part, name)
        if value is None:
            raise ServiceError(f"the answer lacks {name}")
        if name not in merged:
            merged[name] = np.empty((batch.rows, *value.shape[1:]), value.dtype)
        merged[name][rows] = value


def _moved(error: RowsError, start: int) -> RowsError:
    """Return the error with rows of the whole batch instead of the part's."""
    error.rows = tuple(row + start for row in error.rows)
    return error


def _weigh(batch: Batch, options: Options) -> tuple[int, float]:
    """Check the values of labels and row weights; return `count` and `weight_sum`.

    Classes weigh only where labels are the whole target: a soft one belongs to no single class.
    """
    refuse_bad_weights("row_weights", batch.row_weights)
    taken = np.ones(batch.rows, np.bool_)
    if "labels" in batch.kinds:
        refuse_bad_labels(batch, options.ignore_index)
        if options.ignore_index is not None:
            taken &= batch.labels != options.ignore_index
    if batch.row_weights.size:
        taken &= batch.row_weights > 0
    weights = batch.row_weights[taken] if batch.row_weights.size else np.ones(taken.sum())
    if batch.class_weights.size and not batch.is_soft:
        weights = weights * batch.class_weights[batch.labels[taken]]
    return weights.size, exact_sum(weights)


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


def _shaped(result: CrossEntropyResult, batch: Batch) -> CrossEntropyResult:
    """Return the result in the shape of the logits that were passed."""
    changes: dict[str, Any] = {
        name: value.reshape(*batch.leading, *value.shape[1:])
        for name in OUTPUTS
        if isinstance(value := getattr(result, name), np.ndarray)
    }
    return replace(result, **changes)
