"""Who gets memory, and who gives way when it runs out.

A call reserves the bytes that it holds as they come into being; what it gave up is free again once
the call has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from softxent_client.wire import LimitExceededError
from softxent_service.http.buffers import KeptBuffers
from softxent_service.http.errors import OverloadedError

RETRY_SECONDS = 0.002
"""How long calls that give way have to end before memory is asked for again."""

LEAST_HELD = 1 << 20
"""Bytes of a body from which on its call may have to give way, unless it comes slowly."""

SLOW_RATE = 1 << 20
"""Bytes a second below which a body gives way to one that comes faster."""

GRACE_SECONDS = 0.1
"""A call younger than this is taken for a fast one."""


def _nothing() -> None:
    """Interrupt nobody."""


class Budget:
    """Bytes that all calls together may hold, those of buffers kept between calls included."""

    def __init__(self, limit: int, kept_limit: int = 0) -> None:
        self.limit = limit
        self.used = 0
        self._kept = KeptBuffers(kept_limit)
        self._lock = threading.Lock()
        self._receiving: list[Reservation] = []

    @property
    def kept(self) -> int:
        """Return how many bytes are kept that no call holds."""
        return self._kept.size

    @contextlib.contextmanager
    def receiving(self, reservation: Reservation, interrupt: Callable[[], None]) -> Iterator[None]:
        """Hold the place of a call whose body arrives; `interrupt` ends its waiting for more."""
        reservation.interrupt = interrupt
        self._receiving.append(reservation)
        try:
            yield
        finally:
            self._receiving.remove(reservation)

    def make_room(self, reservation: Reservation, size: int) -> bool:
        """Give up other calls whose body arrives, for `size` bytes; return whether there are any.

        If everyone kept what he has, nobody could go on. Those that come slowly go first, the
        slowest before all; then the youngest that hold more than next to nothing, down to the one
        that asks.
        """
        leaving = sum(call.size for call in self._receiving if call.given_up)
        while leaving < size:
            call = self._next_to_go(reservation)
            if call is None:
                break
            call.give_up()
            leaving += call.size
        return leaving > 0

    def _next_to_go(self, reservation: Reservation) -> Reservation | None:
        staying = [call for call in self._receiving if not call.given_up]
        slow = [c for c in staying if c.size and c is not reservation and c.rate() < SLOW_RATE]
        if slow and reservation.rate() > (slowest := min(slow, key=Reservation.rate)).rate():
            return slowest
        holders = [c for c in staying if c.size >= LEAST_HELD or c is reservation]
        return holders[-1] if holders and holders[-1] is not reservation else None

    def take(self, size: int) -> None:
        """Reserve some bytes.

        Raises:
            OverloadedError: others hold too many.
        """
        with self._lock:
            if self.used + size > self.limit:
                raise OverloadedError(
                    f"the calls in progress hold {self.used} of {self.limit} bytes; try again"
                )
            self.used += size
            self._kept.shrink(self.limit - self.used)

    def give_back(self, size: int) -> None:
        """Free some bytes."""
        with self._lock:
            self.used -= size

    def lend(self, size: int) -> memoryview | None:
        """Return a kept buffer for a body of `size` bytes if there is one; it is reserved."""
        with self._lock:
            buffer = self._kept.lend(size)
            if buffer is not None:
                # It was within the limit, as a kept one.
                self.used += len(buffer)
            return buffer

    def keep(self, buffer: memoryview) -> None:
        """Keep a buffer that was reserved, so that it need not be made again."""
        with self._lock:
            self.used -= len(buffer)
            self._kept.keep(buffer)


class Reservation:
    """What one call has of a budget; all of it is given back when it is left.

    Attributes:
        buffer: holds the call's body, and is all reserved; None if there is none of its own.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._began = time.monotonic()
        self.size = 0
        self.given_up = False
        self.buffer: memoryview | None = None
        self.interrupt: Callable[[], None] = _nothing

    def rate(self) -> float:
        """Return how many bytes a second the call has come to hold, not counting its waits."""
        age = time.monotonic() - self._began
        return math.inf if age < GRACE_SECONDS else self.size / age

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.add(-self.size)

    def borrow(self, size: int) -> memoryview | None:
        """Return a kept buffer of at least `size` bytes, if there is one; all of it is reserved."""
        buffer = self._budget.lend(size)
        if buffer is not None:
            self.size += len(buffer)
        return buffer

    def hand_back(self) -> None:
        """Let later calls have the buffer; nobody may read or write it any more."""
        if self.buffer is not None:
            self.size -= len(self.buffer)
            self._budget.keep(self.buffer)
            self.buffer = None

    def give_up(self) -> None:
        """End the call for the sake of others."""
        self.given_up = True
        self.interrupt()

    async def grow(self, size: int) -> None:
        """Reserve bytes of a body that arrives; wait for them where others give way.

        Raises:
            LimitExceededError, OverloadedError: as `add`.
        """
        while True:
            try:
                return self.add(size)
            except OverloadedError:
                if not self._budget.make_room(self, size):
                    raise
            began = time.monotonic()
            await asyncio.sleep(RETRY_SECONDS)
            self._began += time.monotonic() - began

    def add(self, size: int) -> None:
        """Reserve more bytes, or free some if negative.

        Raises:
            LimitExceededError: the call alone would hold more than there is.
            OverloadedError: with the others it would.
        """
        if self.size + size > self._budget.limit:
            raise LimitExceededError(
                f"the call needs more than the limit memory_bytes of {self._budget.limit} bytes; "
                "send fewer rows",
                limit_name="memory_bytes",
                limit=self._budget.limit,
            )
        if size > 0:
            self._budget.take(size)
        else:
            self._budget.give_back(-size)
        self.size += size
