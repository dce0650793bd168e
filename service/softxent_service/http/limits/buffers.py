"""Pool of the buffers of large bodies.

Fresh memory costs a page fault for each 4 KiB: for 131 MB that took longer than the kernel. What is
kept holds another client's numbers, so it is only lent to be overwritten whole.
"""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64
"""Bytes of a cache line: messages that align their data to it keep that alignment here."""

LEAST_KEPT = 1 << 20
"""Smaller ones are cheap to make."""

LARGEST_SHARE = 2
"""A kept buffer is lent where at least this part of it will be used."""


def fresh(size: int) -> memoryview:
    """Return a writable buffer whose pages come into being as they are written."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].data


class KeptBuffers:
    """Buffers that no call holds, oldest first, up to a number of bytes together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._buffers: list[memoryview] = []

    def keep(self, buffer: memoryview) -> None:
        """Add a buffer that nobody reads or writes any more; the oldest go if it is too much."""
        if LEAST_KEPT <= len(buffer) <= self.limit:
            self._buffers.append(buffer)
            self.size += len(buffer)
            self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        """Free the oldest until no more than `limit` bytes are left."""
        while self.size > max(limit, 0):
            self.size -= len(self._buffers.pop(0))

    def lend(self, size: int) -> memoryview | None:
        """Return the smallest that holds `size` bytes and is not far larger, None if none does."""
        fitting = [b for b in self._buffers if size <= len(b) <= LARGEST_SHARE * size]
        if not fitting:
            return None
        best = min(fitting, key=len)
        self._buffers = [buffer for buffer in self._buffers if buffer is not best]
        self.size -= len(best)
        return best
