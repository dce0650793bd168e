"""Histogram of row losses in fixed bins.

Counts are integers and the bins are the same for every job, so the histograms of any blocks add up
to that of all rows, whatever the blocks and their order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = -32, 24
"""The bins lie between 2 to these powers."""

BINS = 4 * (HIGHEST - LOWEST)
"""Four equally wide bins between two powers of 2, so every edge is a float32 exactly."""

BELOW, ABOVE, NON_FINITE = 0, BINS + 1, BINS + 2
"""Where losses outside the bins are counted; the bins have the places from 1 to BINS."""

_BITS = 50
"""A float64 without its last 50 bits is its exponent and two bits: the number of its bin."""

_FIRST = (LOWEST + 1023) * 4

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Count of rows in each bin of losses.

    Attributes:
        counts: int64 [BINS + 3]: below all bins, in each bin, above them, and not finite.
    """

    counts: Counts

    @classmethod
    def empty(cls) -> Self:
        """Return the histogram of no rows."""
        return cls(np.zeros(BINS + 3, np.int64))

    @classmethod
    def of(cls, losses: npt.NDArray[Any]) -> Self:
        """Return the histogram of losses of any shape."""
        values = losses.reshape(-1).astype(np.float64, copy=False)
        finite = np.isfinite(values)
        # The bits of a negative number are those of a negative integer, below every bin.
        places = (values[finite].view(np.int64) >> _BITS) - _FIRST
        counts = np.bincount(places.clip(-1, BINS) + 1, minlength=BINS + 3)
        counts[NON_FINITE] = values.size - int(finite.sum())
        return cls(counts)

    def plus(self, other: Histogram) -> Histogram:
        """Return the histogram of the rows of both."""
        return Histogram(self.counts + other.counts)

    @property
    def rows(self) -> int:
        """Return how many rows are counted."""
        return int(self.counts.sum())

    def to_record(self) -> dict[str, int]:
        """Return the counts that are not 0, by place."""
        return {str(place): int(self.counts[place]) for place in self.counts.nonzero()[0]}

    @classmethod
    def from_record(cls, counts: Mapping[str, int]) -> Self:
        """Read what `to_record` returned.

        Raises:
            TypeError, ValueError, IndexError: it is not that.
        """
        histogram = cls.empty()
        for place, count in counts.items():
            if not place.isdecimal() or count < 0:
                raise ValueError(f"no count of a histogram: {place}: {count}")
            histogram.counts[int(place)] = count
        return histogram

    def to_json(self) -> dict[str, Any]:
        """Return the bins from the first to the last that holds a row, and what lies outside.

        `counts[i]` rows have a loss of at least `edges[i]` and less than `edges[i + 1]`.
        """
        held = self.counts[1:ABOVE].nonzero()[0]
        first, last = (int(held[0]), int(held[-1]) + 1) if held.size else (0, 0)
        return {
            "edges": [edge(place) for place in range(first, last + 1)] if held.size else [],
            "counts": self.counts[first + 1 : last + 1].tolist(),
            "below": int(self.counts[BELOW]),
            "above": int(self.counts[ABOVE]),
            "non_finite": int(self.counts[NON_FINITE]),
        }


def edge(place: int) -> float:
    """Return the lower edge of a bin; that of BINS is the upper edge of the last one."""
    power, quarter = divmod(place, 4)
    return math.ldexp(4 + quarter, power + LOWEST - 2)


def counted_rows(
    tensors: Mapping[str, npt.NDArray[Any]],
    *,
    rows: int,
    ignore_index: int | None,
    tail: str,
) -> npt.NDArray[np.bool_]:
    """Return which rows are not ignored, as the library counts them.

    A row is ignored if it weighs nothing, if its label says so, or if it has no target.
    """
    counted = np.ones(rows, np.bool_)
    if "row_weights" in tensors:
        counted &= tensors["row_weights"].reshape(-1) != 0
    if "labels" in tensors:
        if ignore_index is not None:
            counted &= tensors["labels"].reshape(-1) != ignore_index
    elif "target_indices" in tensors:
        indices = tensors["target_indices"]
        entries = indices.reshape(rows, indices.shape[-1]) != -1
        if tail == "renormalize":
            masses = tensors["target_log_probabilities"].reshape(entries.shape)
            entries &= masses > -np.inf
        counted &= entries.any(axis=1)
    return counted
