"""Schemas: the tensors that a message may hold, and their kinds.

A schema names the tensors, both encodings check against it, and what passes has the right names,
dtypes and number of dimensions. Whether shapes fit each other is the evaluation's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from softxent.errors import ROWS_NAMED, RowsError, TensorError
from softxent.evaluations import CROSS_ENTROPY, PER_LOGIT, Evaluation
from softxent.evaluations import INTEGERS as OUTPUT_INTEGERS
from softxent.hints import unknown

Array = npt.NDArray[Any]

FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
NUMBERS = FLOATS[:2] + INTEGERS[1:]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype("?"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
}
"""The dtypes of the binary form, by the names they have there."""

DTYPE_NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}

MAX_RANK = 63
"""Dimensions a tensor may have; one less than NumPy's, so that rows always have one."""

MAX_BYTES = 1 << 62
"""Product of the non-zero dimensions and the item size that NumPy can still address."""


SHOWN = 64
"""Characters of an unknown name that an error repeats; a name may be as long as a body."""


@dataclass(frozen=True)
class Field:
    """One tensor of a message.

    Attributes:
        dtypes: the binary dtypes it may have.
        json_dtype: what its JSON numbers become; a lone number becomes float64 if this is floating.
        min_rank, max_rank: how many dimensions it may have.
        below: how many dimensions it has less than the schema's `rows_of`: 1 if it has one value a
            row, 0 if a row has several; None if that does not bind it.
    """

    dtypes: tuple[str, ...]
    json_dtype: np.dtype[Any]
    min_rank: int = 0
    max_rank: int = MAX_RANK
    below: int | None = None


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice, None if none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


class HasRank(Protocol):
    """Array, or the description of one."""

    @property
    def ndim(self) -> int:
        """Return how many dimensions it has."""


@dataclass(frozen=True, eq=False)
class Schema:
    """The tensors of a message by name; each is the same as itself alone.

    Attributes:
        fields: every tensor it may hold.
        required: those it must hold.
        rows_of: the tensor that says how many dimensions the rows have.
        options: what is said elsewhere, and often put among the tensors.
    """

    fields: Mapping[str, Field]
    required: tuple[str, ...]
    rows_of: str | None = None
    options: tuple[str, ...] = ()

    def field(self, name: str) -> Field:
        """Return the field called `name`.

        Raises:
            TensorError: no tensor of this message has that name.
        """
        if name not in self.fields:
            shown = name[:SHOWN]
            raise TensorError(unknown("tensor", name, self.fields), field=shown)
        return self.fields[name]

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names that are unknown, and absence of those that are required.

        Raises:
            TensorError: a name is unknown or a required one is missing.
        """
        present = set(names)
        for name in present:
            self.field(name)
        for name in self.required:
            if name not in present:
                raise TensorError(f"tensor {name} is missing", field=name)

    def check_ranks(self, tensors: Mapping[str, HasRank]) -> None:
        """Refuse a tensor with too few or too many dimensions.

        Raises:
            TensorError: a number of dimensions does not fit.
        """
        for name, tensor in tensors.items():
            field = self.fields[name]
            low, high = field.min_rank, field.max_rank
            if field.below is not None and self.rows_of is not None:
                low = high = tensors[self.rows_of].ndim - field.below
            if not low <= tensor.ndim <= high:
                one_hot = "; one-hot or soft labels are target_probabilities"
                hint = one_hot if name == "labels" and tensor.ndim == low + 1 else ""
                raise TensorError(
                    f"{name} has {_dimensions(tensor.ndim)}, expected {_expected(low, high)}{hint}",
                    field=name,
                )


def _dimensions(count: int) -> str:
    return f"{count} dimension{'' if count == 1 else 's'}"


def _expected(low: int, high: int) -> str:
    if low == high:
        return _dimensions(low)
    return f"at most {high}" if low == 0 else f"{low} to {high}"


_FLOAT64 = np.dtype(np.float64)
_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)
_BOOL = np.dtype(np.bool_)


def _computed(logits_dtype: str) -> np.dtype[Any]:
    return _FLOAT64 if logits_dtype == "float64" else _FLOAT32


@cache
def REQUEST(  # noqa: N802
    logits_dtype: str = "float32", evaluation: Evaluation = CROSS_ENTROPY
) -> Schema:
    """Return what an evaluation's request may hold; JSON logits become `logits_dtype`.

    JSON probabilities and vectors become what is computed in: those of float32 beside 16-bit
    logits are not rounded on their way.
    """
    computed = _computed(logits_dtype)
    fields = {
        "logits": Field(FLOATS, np.dtype(logits_dtype), min_rank=2),
        "labels": Field(INTEGERS, _INT64, below=1),
        "target_probabilities": Field(FLOATS, computed, below=0),
        "target_indices": Field(INTEGERS, _INT64, below=0),
        "target_log_probabilities": Field(FLOATS, _FLOAT64, below=0),
        "class_weights": Field(NUMBERS, _FLOAT64, min_rank=1, max_rank=1),
        "row_weights": Field(NUMBERS, _FLOAT64, below=1),
        "class_mask": Field(("BOOL",), _BOOL, min_rank=1),
        "vectors": Field(FLOATS, computed, below=0),
    }
    required = ("logits", "vectors") if "vectors" in evaluation.tensors else ("logits",)
    return Schema(
        fields={name: fields[name] for name in evaluation.tensors},
        required=required,
        rows_of="logits",
        options=(*evaluation.options, "logits_dtype"),
    )


@cache
def RESPONSE(  # noqa: N802
    logits_dtype: str = "float32",
    evaluation: Evaluation = CROSS_ENTROPY,
    output_dtype: str | None = None,
) -> Schema:
    """Return what an evaluation's answer may hold for logits and outputs of these dtypes."""
    fields = {
        name: _output(name, _computed(logits_dtype), np.dtype(output_dtype or logits_dtype))
        for name in evaluation.outputs
    }
    if not evaluation.has_sums:
        return Schema(fields=fields, required=())
    scalar = Field(("F64",), _FLOAT64, max_rank=0)
    sums = {
        "loss_sum": scalar,
        "weight_sum": scalar,
        "count": Field(("I64",), _INT64, max_rank=0),
    }
    return Schema(fields={**fields, **sums}, required=tuple(sums))


def _output(name: str, computed: np.dtype[Any], stored: np.dtype[Any]) -> Field:
    if name in OUTPUT_INTEGERS:
        dtype = np.dtype(OUTPUT_INTEGERS[name])
        return Field((DTYPE_NAMES[dtype],), dtype)
    return Field(FLOATS, stored) if name in PER_LOGIT else Field(FLOATS[:2], computed)


def check_booleans(name: str, tensor: Array) -> None:
    """Refuse booleans that came as bytes and are none.

    Raises:
        RowsError: a byte is neither 0 nor 1.
    """
    flat = tensor.reshape(-1).view(np.uint8)
    rows = np.flatnonzero(flat > 1)
    if rows.size:
        first = rows[:ROWS_NAMED]
        raise RowsError(
            f"{name} holds booleans that are neither 0 nor 1",
            field=name,
            rows=first.tolist(),
            values=flat[first].tolist(),
            total=int(rows.size),
        )
