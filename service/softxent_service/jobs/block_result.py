"""Results of finished blocks: their records and their sums."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from softxent.blockwise.rows import WORDS, RowSums
from softxent_service.jobs.histogram import Histogram


@dataclass(frozen=True, eq=False)
class Finished:
    """A block whose results are all written.

    Attributes:
        block: its number.
        sums: of its rows, exact.
        histogram: of the losses of its rows that are not ignored.
        correct: rows that are predicted right; None where that was not evaluated.
        skipped: rows of the whole that were left out, with `on_error=skip`.
    """

    block: int
    sums: RowSums
    histogram: Histogram
    correct: int | None = None
    skipped: tuple[int, ...] = ()

    def to_bytes(self, fingerprint: str) -> bytes:
        """Return the record of it, of a job; words that are 0, nearly all, are left out."""
        members = {
            "job": fingerprint,
            "block": self.block,
            "losses": _sparse(self.sums.losses),
            "weights": _sparse(self.sums.weights),
            "count": self.sums.count,
            "histogram": self.histogram.to_record(),
            "correct": self.correct,
            "skipped": list(self.skipped),
        }
        return json.dumps(members, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, fingerprint: str) -> Self:
        """Read the record of a job.

        Raises:
            ValueError: it is none, or of another job or other inputs.
        """
        try:
            members = json.loads(data)
            if members["job"] != fingerprint:
                raise ValueError("the record of a block of another job")
            sums = RowSums(
                _dense(members["losses"]), _dense(members["weights"]), int(members["count"])
            )
            histogram = Histogram.from_record(members["histogram"])
            correct, skipped = members["correct"], tuple(members["skipped"])
            return cls(members["block"], sums, histogram, correct, skipped)
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no record of a block: {error}") from None


def _sparse(words: Any) -> dict[str, int]:
    return {str(place): int(words[place]) for place in words.nonzero()[0]}


def _dense(words: dict[str, int]) -> Any:
    whole = np.zeros(WORDS, np.int64)
    for place, value in words.items():
        whole[int(place)] = value
    return whole


@dataclass(eq=False)
class Tally:
    """Sums of finished blocks; each is added once, in any order."""

    done: set[int] = field(default_factory=set)
    sums: RowSums = field(default_factory=lambda: RowSums.merged([]))
    histogram: Histogram = field(default_factory=Histogram.empty)
    correct: int | None = 0
    skipped: list[int] = field(default_factory=list)

    def add(self, block: Finished) -> None:
        """Add a block; one that is there already changes nothing."""
        if block.block in self.done:
            return
        self.done.add(block.block)
        self.sums = RowSums.merged([self.sums, block.sums])
        self.histogram = self.histogram.plus(block.histogram)
        if self.correct is not None:
            self.correct = None if block.correct is None else self.correct + block.correct
        self.skipped.extend(block.skipped)
