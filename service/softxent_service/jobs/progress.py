"""How far a job is: counted in rows, so that it is the same on any number of workers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        rows, rows_done: of the whole job, whoever did them and when.
        blocks, blocks_done: the same in blocks.
        seconds: since the present run began.
        rows_a_second: of the present run; None before its first block.
        seconds_left: at that rate; None before the first block.
    """

    rows: int
    blocks: int
    rows_done: int = 0
    blocks_done: int = 0
    seconds: float = 0.0
    rows_a_second: float | None = None
    seconds_left: float | None = None

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
        return asdict(self)
