"""Evaluations as generators of calls: they yield a `Call`, are sent its `Answer`, return a result.

A batch whose body is over the service's limit goes in parts of rows, and the parts are merged to
the very bits of the whole: a row does not depend on other rows, sums are exact, and what a mean is
divided by is known before the first part is sent.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softxent._tensors import refuse_bad_weights
from softxent.batch import Batch, check_batch, refuse_bad_labels
from softxent.combinations import check_compatible
from softxent.errors import RowsError, SoftxentError
from softxent.evaluations import DERIVATIVES, PER_LOGIT, Evaluation
from softxent.options import Options
from softxent.reduction import (
    mean_divisor,
    reduced_loss,
    refuse_infinite_sums,
    refuse_weights_out_of_range,
)
from softxent_client.errors import ServiceError
from softxent_client.messages import Answer, Body, Call, checked
from softxent_client.wire import (
    JSON,
    MEDIA_TYPES,
    RESPONSE,
    LimitExceededError,
    Limits,
    results_of,
)

ASK_LIMIT_BYTES = 1 << 20
"""Bodies up to this size are sent without asking what the service's limit is: a refusal tells it,
and costs at most so many bytes. Before larger ones one small GET is cheaper."""

Array = npt.NDArray[Any]
Results = dict[str, Any]
Steps = Generator[Call, Answer, Results]

_ANY_SIZE = Limits(binary_bytes=1 << 62, json_bytes=1 << 62)


class Request(NamedTuple):
    """A checked call."""

    evaluation: Evaluation
    batch: Batch
    options: Options


def prepare(evaluation: Evaluation, tensors: Mapping[str, Any], options: Options) -> Request:
    """Check a call before anything is sent, as the library would.

    Raises:
        OptionError, TensorError, LabelError, WeightError: what was passed is refused.
    """
    batch = check_batch(tensors, evaluation)
    check_compatible(batch.layout(), options)
    return Request(evaluation, batch, options)


@dataclass(frozen=True)
class Form:
    """One encoding of requests and answers, and the limit that its bodies have."""

    media_type: str
    limit_name: str

    def body(self, request: Request, rows: slice) -> Body:
        """Return the request's body for some rows of its batch."""
        batch = request.batch
        tensors = {name: getattr(batch, name)[rows] for name in _per_row(request)}
        # No rows are [0, 0] in JSON, which nothing that has one value a class fits.
        if batch.rows:
            tensors |= {name: getattr(batch, name) for name in _per_class(batch)}
        if self.media_type == JSON and "target_log_probabilities" in tensors:
            # JSON's are read as float64: the shortest text of a narrower type is another number.
            tensors["target_log_probabilities"] = batch.log_probabilities[rows]
        if "class_mask" in tensors:
            tensors["class_mask"] = tensors["class_mask"].view(np.bool_)
        return Body(list(MEDIA_TYPES[self.media_type].encode(tensors)))

    def call(self, body: Body, request: Request) -> Call:
        """Return the HTTP request that evaluates `body`."""
        params = request.options.to_text(request.evaluation)
        dtype = request.batch.logits.dtype
        if self.media_type == JSON and dtype != np.float32:
            params["logits_dtype"] = dtype.name
        return Call("POST", f"/v1/{request.evaluation.name}", params, self.media_type, body)

    def lowers(self, refusal: LimitExceededError, limit: int) -> bool:
        """Tell whether a refusal is for the size of a body, by a limit below the one we kept to."""
        return (
            refusal.limit_name == self.limit_name
            and isinstance(refusal.limit, int)
            and refusal.limit < limit
        )

    def results(self, answer: Answer, request: Request, rows: int) -> Results:
        """Return an answer's results by name, its arrays reshaped to `rows` rows.

        Raises:
            SoftxentError: what the service refused, or ServiceError for an unreadable answer.
        """
        body = checked(answer, self.media_type).body
        try:
            logits = request.batch.logits
            schema = RESPONSE(logits.dtype.name, request.evaluation, request.options.output_dtype)
            tensors = MEDIA_TYPES[self.media_type].decode(body, schema, _ANY_SIZE)
            wanted = rows, logits.shape[1]
            return results_of(
                {name: _reshaped(tensor, name, *wanted) for name, tensor in tensors.items()}
            )
        except (SoftxentError, ValueError) as error:
            message = f"the answer cannot be read: {error}"
            raise ServiceError(message, status=answer.status) from error


def _per_row(request: Request) -> list[str]:
    """Return the names of the tensors that are cut with the rows."""
    batch = request.batch
    names = ["logits", *sorted(batch.kinds)]
    if "vectors" in request.evaluation.tensors:
        names.append("vectors")
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


def _reshaped(tensor: Array, name: str, rows: int, classes: int) -> Array:
    """Return an array of an answer in its shape, which JSON without rows leaves open."""
    shape = (rows, classes) if name in PER_LOGIT else (rows,)
    return tensor if not tensor.ndim or tensor.shape == shape else tensor.reshape(shape)


def whole(form: Form, body: Body, request: Request) -> Steps:
    """Evaluate a batch in one request."""
    reply = yield form.call(body, request)
    results = form.results(reply, request, request.batch.rows)
    for name in request.options.outputs:
        if name not in results:
            raise ServiceError(f"the answer lacks {name}")
    return _shaped(results, request.batch)


def in_parts(form: Form, request: Request, limit: int) -> Steps:
    """Evaluate a batch in as many requests as bodies of at most `limit` bytes take.

    Raises:
        LimitExceededError: one row alone is over the limit.
        EmptyReductionError: the mean divides by 0 and `empty` is "error".
        SoftxentError: what the service or the library refuses.
    """
    evaluation, batch, options = request
    count, weight_sum = _weigh(batch, options)
    divisor = mean_divisor(options, weight_sum, count)
    refuse_weights_out_of_range(batch, options, divisor, weight_sum)
    merged: dict[str, Array] = {}
    for rows, body in _parts(form, request, slice(0, batch.rows), limit):
        for asked in _requests(request, divisor):
            reply = yield form.call(body, asked)
            try:
                part = form.results(reply, asked, rows.stop - rows.start)
            except RowsError as error:
                raise _moved(error, rows.start) from None
            _fill(merged, part, asked.options, batch, rows)
    results: Results = {name: merged[name] for name in options.outputs}
    if not evaluation.has_sums:
        return _shaped(results, batch)
    loss_sum = exact_sum(merged["loss"])
    if "loss" in results and options.reduction != "none":
        results["loss"] = reduced_loss(options, loss_sum, divisor)
    results |= {"loss_sum": loss_sum, "weight_sum": weight_sum, "count": count}
    refuse_infinite_sums(options, results)
    return _shaped(results, batch)


def _parts(form: Form, request: Request, rows: slice, limit: int) -> Iterator[tuple[slice, Body]]:
    """Cut `rows` into bodies of at most `limit` bytes, and those again where rows differ in size.

    Raises:
        LimitExceededError: one row alone is over the limit.
    """
    body = form.body(request, rows)
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
        yield from _parts(form, request, slice(start, min(start + step, rows.stop)), limit)


def _requests(request: Request, divisor: float) -> list[Request]:
    """Return what each part is asked for: its row losses always, for the exact sum of them all."""
    options = request.options
    divided = DERIVATIVES if options.reduction == "mean" else ()
    derivatives = tuple(name for name in options.outputs if name in divided)
    others = {*options.outputs} - {*derivatives}
    if request.evaluation.has_sums:
        others |= {"loss"}
    asked = []
    if others:
        per_row: dict[str, Any] = {"reduction": "none", "denominator": None, "empty": "nan"}
        asked.append(replace(options, **per_row, mean_over="weights", outputs=tuple(others)))
    if derivatives:
        mean: dict[str, Any] = {"denominator": divisor or None, "mean_over": "weights"}
        asked.append(replace(options, **mean, empty="zero", outputs=derivatives))
    return [request._replace(options=one) for one in asked]


def _fill(
    merged: dict[str, Array], part: Results, asked: Options, batch: Batch, rows: slice
) -> None:
    for name in asked.outputs:
        value = part.get(name)
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
    taken &= ~batch.lacks_target(options.tail)
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


def _shaped(results: Results, batch: Batch) -> Results:
    """Return results in the shape of the logits that were passed."""
    return {
        name: value.reshape(*batch.leading, *value.shape[1:])
        if isinstance(value, np.ndarray)
        else value
        for name, value in results.items()
    }
