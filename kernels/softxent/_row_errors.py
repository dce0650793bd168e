"""Row errors: exceptions from the codes that kernels write for each row."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from softxent._kernels.row import checks
from softxent._tensors import refuse_bad_weights
from softxent.batch import Batch, refuse_bad_labels
from softxent.errors import LabelError, RowsError, as_json, counted, named_rows
from softxent.options import Options

Faults = npt.NDArray[np.uint8]

_TEXTS: dict[int, tuple[type[RowsError], str, str]] = {
    checks.LABEL_MASKED: (LabelError, "labels", "labels name classes that class_mask leaves out"),
    checks.PROBABILITY: (
        RowsError,
        "target_probabilities",
        "target_probabilities must be finite and not negative",
    ),
    checks.INDEX_RANGE: (
        LabelError,
        "target_indices",
        "target_indices must lie in [0, {classes}) or be -1",
    ),
    checks.INDEX_TWICE: (
        LabelError,
        "target_indices",
        "target_indices name a class twice in a row",
    ),
    checks.INDEX_MASKED: (
        LabelError,
        "target_indices",
        "target_indices name classes that class_mask leaves out",
    ),
    checks.LOG_PROBABILITY: (
        RowsError,
        "target_log_probabilities",
        "target_log_probabilities must not be NaN or Infinity",
    ),
    checks.EXCESS_MASS: (
        RowsError,
        "target_log_probabilities",
        "the probabilities of target_log_probabilities add up to more than {most_mass}, which"
        " only tail=renormalize takes",
    ),
    checks.VECTOR: (RowsError, "vectors", "vectors must be finite"),
}


def refuse(batch: Batch, options: Options, faults: Faults) -> NoReturn:
    """Raise what the first kind of fault is that some row has; the error names all such rows.

    Raises:
        WeightError, LabelError, RowsError.
    """
    code = int(faults[faults != 0].min())
    if code == checks.ROW_WEIGHT:
        refuse_bad_weights("row_weights", batch.row_weights)
    if code == checks.LABEL_RANGE:
        refuse_bad_labels(batch, options.ignore_index)
    cls, field, text = _TEXTS[code]
    bad = faults == code
    shown = named_rows(bad, np.zeros(batch.rows))
    shown["values"] = [_value(batch, code, row) for row in shown["rows"]]
    most_mass = f"1 + 2^{int(np.log2(batch.most_mass - 1))}"
    told = text.format(classes=batch.classes, most_mass=most_mass)
    message = f"{told}; {counted(shown['total'], 'row')} at fault"
    raise cls(message, field=field, **shown)


def _value(batch: Batch, code: int, row: int) -> Any:
    """Return what stands in a row that is at fault: the first value that is, or their sum."""
    if code == checks.LABEL_MASKED:
        return int(batch.labels[row])
    if code == checks.PROBABILITY:
        row_values = batch.target_probabilities[row].astype(np.float64)
        return _first(row_values, lambda p: ~((p >= 0) & (p < np.inf)))
    if code == checks.VECTOR:
        return _first(batch.vectors[row], lambda v: ~np.isfinite(v))
    indices, logs = batch.target_indices[row], batch.log_probabilities[row]
    named, classes = indices != -1, batch.classes
    if code == checks.INDEX_RANGE:
        return _first(indices, lambda k: named & ((k < 0) | (k >= classes)))
    if code == checks.INDEX_TWICE:
        return _first(indices, lambda k: named & np.array([(k == i).sum() > 1 for i in k]))
    if code == checks.INDEX_MASKED:
        mask = batch.class_mask if batch.class_mask.ndim == 1 else batch.class_mask[row]
        return _first(indices, lambda k: named & (mask[np.where(named, k, 0)] == 0))
    if code == checks.LOG_PROBABILITY:
        return _first(logs, lambda v: named & ~(v < np.inf))
    with np.errstate(over="ignore"):
        return as_json(float(np.exp(logs[named]).sum()))


def _first(values: npt.NDArray[Any], is_bad: Any) -> Any:
    return as_json(values[is_bad(values)][:1].astype(values.dtype)[0].item())
