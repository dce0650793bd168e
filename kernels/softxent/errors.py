"""Exceptions of the library, as one tree.

    SoftxentError
    ├── InputError (ValueError)      what the caller passed cannot be evaluated
    │   ├── OptionError              an option is unknown, repeated, out of range or does not apply
    │   ├── TensorError              a tensor is missing, unknown, or has the wrong dtype or shape
    │   └── RowsError                some rows of a tensor hold values that are refused
    │       ├── LabelError           a label outside [0, C) that is not ignore_index
    │       ├── WeightError          a negative or non-finite weight
    │       └── NonFiniteError       an output or a sum that is not finite
    ├── EmptyReductionError          the divisor of the mean is 0 and empty="error"
    └── OutputBufferError (ValueError)  an `out` buffer that cannot take the result

Every error carries `field` (the argument, tensor or option it is about) and, where rows are at
fault, the first ten of them with their values and the total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy.typing as npt

ROWS_NAMED = 10
"""How many rows an error names before it only counts."""

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The numbers that JSON lacks, by the strings that stand for them."""


class SoftxentError(Exception):
    """Anything this project refuses; `field` names what it is about."""

    slug: ClassVar[str] = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def details(self) -> dict[str, object]:
        """Return the typed fields beside the message, for a problem document or a log line."""
        return {} if self.field is None else {"field": self.field}


class InputError(SoftxentError, ValueError):
    """Arguments that cannot be evaluated."""

    slug = "invalid-input"


class OptionError(InputError):
    """An option is unknown, repeated, out of range or does not apply."""

    slug = "invalid-option"


class TensorError(InputError):
    """A tensor is missing, unknown, or has the wrong dtype or shape."""

    slug = "invalid-tensor"


class RowsError(InputError):
    """Some rows of a tensor hold values that are refused.

    `rows` and `values` are the first ten, `total` counts all. A row is the flat index over the
    leading dimensions of the logits.
    """

    slug = "invalid-rows"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        rows: Sequence[int] = (),
        values: Sequence[float | int | str] = (),
        total: int = 0,
    ) -> None:
        super().__init__(message, field=field)
        self.rows = tuple(rows)
        self.values = tuple(values)
        self.total = total

    def __str__(self) -> str:
        """Return the message and the rows, as a traceback shows them."""
        rows = ", ".join(f"{r} ({v})" for r, v in zip(self.rows, self.values, strict=False))
        more = ", ..." if isinstance(self.total, int) and self.total > len(self.rows) else ""
        return f"{self.message}; rows {rows}{more}" if rows else self.message

    def details(self) -> dict[str, object]:
        """Return field, rows, values and total; values that JSON lacks are words."""
        return {
            **super().details(),
            "rows": list(self.rows),
            "values": list(self.values),
            "total": self.total,
        }


class LabelError(RowsError):
    """A label lies outside [0, C) and is not `ignore_index`."""

    slug = "label-out-of-range"


class WeightError(RowsError):
    """A row weight or class weight is negative or not finite; rows are indices into the vector."""

    slug = "invalid-weight"


class NonFiniteError(RowsError):
    """An output or a sum is not finite, and `non_finite` is "error"; `field` names which."""

    slug = "non-finite-result"


class EmptyReductionError(SoftxentError, ZeroDivisionError):
    """The divisor of the mean is 0, and `empty` is "error"."""

    slug = "empty-reduction"


class OutputBufferError(SoftxentError, ValueError):
    """An `out` buffer has the wrong dtype, shape or strides, or overlaps an input."""

    slug = "invalid-output-buffer"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: "1 row", "3 rows", "2 classes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def named_rows(bad: npt.NDArray[Any], values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return `rows`, `values` and `total` of a RowsError from a flat mask of bad rows."""
    rows = bad.nonzero()[0]
    first = [int(row) for row in rows[:ROWS_NAMED]]
    flat = values.reshape(-1)
    return {
        "rows": first,
        "values": [as_json(flat[row].item()) for row in first],
        "total": int(rows.size),
    }


def as_json(value: float | int | bool) -> float | int | str:
    """Return a number as JSON knows it; what is not finite becomes a word of `WORDS`."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
