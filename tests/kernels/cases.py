"""One call of the library as data, and its rows as problems for the exact reference."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from mpmath import mp, mpf
from naive_full import DEFAULTS, Rows, divide_by, read_rows, weigh
from targets import Row
from ulps import Array

PER_LOGIT = ("gradient", "probabilities", "log_probabilities", "hessian_diagonal")
PER_ROW = ("loss", "log_normalizer", "entropy", "target_entropy")
PLACES = ("prediction", "correct", "rank")
EVERY_OUTPUT = (*PER_ROW, *PER_LOGIT, *PLACES)

DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, eq=False)
class Case:
    """Arguments of a call: `cross_entropy(**case.tensors, **case.options)`.

    With vectors [N, C] it is also one of `hessian_vector_product(logits, vectors, ...)`, whose
    options are those of `product_options`.
    """

    tensors: dict[str, Array]
    options: dict[str, Any] = field(default_factory=dict)
    vectors: Array | None = None

    @property
    def logits(self) -> Array:
        return self.tensors["logits"]

    @property
    def product_options(self) -> dict[str, Any]:
        """Return the options without the choice of outputs."""
        return {k: v for k, v in self.options.items() if k != "outputs"}

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.options.get("outputs", ("loss", "gradient")))

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the type that is computed in, which that of row results is."""
        return np.dtype(np.float64 if self.logits.dtype == np.float64 else np.float32)

    @property
    def stored(self) -> np.dtype[Any]:
        """Return the type of [N, C] outputs."""
        name = self.options.get("output_dtype")
        return self.logits.dtype if name is None else DTYPES[name]

    def option(self, name: str) -> Any:
        return self.options.get(name, DEFAULTS[name])

    @property
    def named(self) -> Mapping[str, Any]:
        """Return every option that has a meaning for one row, with defaults."""
        return {name: self.option(name) for name in DEFAULTS}

    @functools.cached_property
    def rows(self) -> Rows:
        return read_rows(self.tensors, self.named)

    @functools.cached_property
    def sums(self) -> tuple[float, int, float]:
        """Return weight_sum, count and what loss and gradient are divided by (0: empty mean)."""
        weight_sum = weigh(self.tensors, self.rows, self.named)
        count = int((~self.rows.ignored).sum())
        return weight_sum, count, divide_by(weight_sum, count, self.named)

    @property
    def has_factors(self) -> bool:
        """Whether a float64 factor costs a loss or gradient its one more ulp."""
        return (
            bool({"class_weights", "row_weights"} & set(self.tensors))
            or self.option("scale") != 1
            or self.option("reduction") == "mean"
        )

    def row(self, i: int) -> Row:
        """Return row i as the reference takes it; it must be neither ignored nor broken."""
        with mp.workdps(60):
            factor = mpf(float(self.rows.weights[i])) * mpf(float(self.option("scale")))
            divisor = self.sums[2]
            share = factor / mpf(divisor) if divisor else mpf(0)
        given = self.tensors
        return Row(
            logits=_floats(given["logits"][i]),
            label=int(given["labels"][i]) if "labels" in given else None,
            probabilities=_at(given, "target_probabilities", i),
            indices=_indices(given, i),
            log_probabilities=_at(given, "target_log_probabilities", i),
            hard_weight=self.option("hard_weight"),
            tail=self.option("tail"),
            class_weights=_floats(given["class_weights"]) if "class_weights" in given else None,
            mask=tuple(self.rows.mask[i].tolist()) if "class_mask" in given else None,
            label_smoothing=self.option("label_smoothing"),
            smoothing=self.option("smoothing"),
            z_loss=self.option("z_loss"),
            softcap=self.option("softcap"),
            temperature=self.option("temperature"),
            vector=None if self.vectors is None else _floats(self.vectors[i]),
            loss_factor=factor,
            gradient_factor=share,
            dtype=self.computed.name,
        )


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(np.asarray(values).astype(np.float64).tolist())


def _at(tensors: Mapping[str, Array], name: str, i: int) -> tuple[float, ...] | None:
    return _floats(tensors[name][i]) if name in tensors else None


def _indices(tensors: Mapping[str, Array], i: int) -> tuple[int, ...] | None:
    if "target_indices" not in tensors:
        return None
    return tuple(int(j) for j in tensors["target_indices"][i])
