"""Lets large batches through to the kernels, a few at a time, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


class Gate:
    """Runs work in a thread, at most `places` at a time; the others wait in order."""

    def __init__(self, places: int) -> None:
        self._limiter = anyio.CapacityLimiter(places)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` returns, or raise what it raises."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)
