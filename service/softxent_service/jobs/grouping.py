"""Grouping of blocks into tasks: Dask takes 2 to 4 ms for each task, some blocks less."""

from __future__ import annotations

SHORT_SECONDS, LONG_SECONDS = 0.4, 2.0
"""A task is on its way about so long, half of it waiting for its turn. Who cancels or watches a
job waits for the blocks of a task."""

MOST = 64
"""Blocks of a task, however short they are: those that follow may be long."""


class Grouping:
    """Begins with one block a task, takes twice as many while that is short, else fewer."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._size = 1

    def next(self, left: int, places: int) -> int:
        """Return the size of the next task, so small at the end that no place is without work."""
        return max(1, min(self._size, left // places))

    def took(self, blocks: int, seconds: float) -> None:
        """Take how long a task of so many blocks was on its way."""
        if seconds < SHORT_SECONDS and blocks >= self._size:
            self._size = min(2 * blocks, self._most)
        elif seconds > LONG_SECONDS:
            self._size = max(1, min(self._size, blocks // 2))
