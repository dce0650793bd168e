"""Progress of a job, counted in rows: the same on any number of workers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

MOST_RATES = 60
"""Rates of a job that are kept; where more come, two neighbours become one."""

RATE_SECONDS = 0.5
"""Shortest time that a rate is of, but for the last one of a run."""


@dataclass(frozen=True)
class Rate:
    """Rate of the present run between two points in time.

    Attributes:
        seconds: since the run began, at the end of that time.
        rows_a_second, blocks_a_second: of that time.
    """

    seconds: float
    rows_a_second: float
    blocks_a_second: float


class RateHistory:
    """The rates of a run from its beginning on, however long it is, in bounded space."""

    def __init__(self, rows: int, blocks: int) -> None:
        """Begin at what the run has found done."""
        self._points = [(0.0, rows, blocks)]
        self._spacing = RATE_SECONDS

    def add(self, seconds: float, rows: int, blocks: int, *, is_last: bool = False) -> None:
        """Take how much was done after some seconds."""
        before, rows_before, _ = self._points[-1]
        if seconds <= before or (is_last and rows == rows_before):
            return
        if seconds - before < self._spacing:
            if not is_last:
                return
            if len(self._points) > 1:
                self._points.pop()
        self._points.append((seconds, rows, blocks))
        if len(self._points) > MOST_RATES:
            # The newest of an even number would go; it stays, as what is known of now.
            newest = self._points[-1:] if len(self._points) % 2 == 0 else []
            self._points = self._points[::2] + newest
            self._spacing *= 2

    def rates(self) -> tuple[Rate, ...]:
        """Return the rates between all points that are kept."""
        return tuple(
            Rate(
                round(end, 3),
                round((rows - rows_before) / (end - start), 3),
                round((blocks - blocks_before) / (end - start), 3),
            )
            for (start, rows_before, blocks_before), (end, rows, blocks) in pairwise(self._points)
        )


@dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Attributes:
        rows, rows_done: of the whole job, whoever did them and when.
        blocks, blocks_done: the same in blocks.
        seconds: since the present run began.
        rows_a_second: of the present run; None before its first block.
        seconds_left: at that rate; None before the first block.
        rates: of the present run over time, at most `MOST_RATES`.
    """

    rows: int
    blocks: int
    rows_done: int = 0
    blocks_done: int = 0
    seconds: float = 0.0
    rows_a_second: float | None = None
    seconds_left: float | None = None
    rates: tuple[Rate, ...] = ()

    def at(self, rows_done: int, blocks_done: int, rows_before: int, seconds: float) -> Progress:
        """Return the progress `seconds` after a run began that found `rows_before` done."""
        rate = (rows_done - rows_before) / seconds if seconds > 0 else 0.0
        left = (self.rows - rows_done) / rate if rate > 0 else math.inf
        return replace(
            self,
            rows_done=rows_done,
            blocks_done=blocks_done,
            seconds=round(seconds, 3),
            rows_a_second=round(rate, 3) if rate > 0 else None,
            seconds_left=round(left, 3) if left < math.inf else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON members."""
        return {**asdict(self), "rates": [asdict(rate) for rate in self.rates]}
