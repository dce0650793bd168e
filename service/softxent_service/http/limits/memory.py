"""Memory budget of all calls: reservations, a waiting line, and slow clients that give way.

A small call reserves the bytes that it holds as they come into being, or is refused. A large one
shows with its first MiB that it comes at all; then it waits in a line until all it has announced
is free, and is not read meanwhile, so that its client waits too. What a call gave up is free again
once it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from softxent_client.wire import LimitExceededError
from softxent_service.http.errors import OverloadedError
from softxent_service.http.limits import buffers
from softxent_service.http.limits.buffers import KeptBuffers

T = TypeVar("T")

RETRY_SECONDS = 0.002
"""How often the first in line looks whether there is memory for it."""

WAIT_SECONDS = 4.0
"""How long a call may stand in line; many clients give up a write that waits for 5 s."""

PACE_BYTES, PACE_SECONDS = 1 << 20, 1.0
"""A call whose client takes longer for so many bytes, either way, gives way to one that waits."""

SPARE_PART = 16
"""Large bodies leave this part of the memory to small calls, and to what answers need."""


def _nothing() -> None:
    """Interrupt nobody."""


class MemoryBudget:
    """Bytes that all calls together may hold, those of buffers kept between calls included.

    Attributes:
        line: held by the call that gets memory next; the others wait for it in order.
    """

    def __init__(self, limit: int, kept_limit: int = 0) -> None:
        self.limit = limit
        self.used = 0
        self.line = asyncio.Lock()
        self._kept = KeptBuffers(kept_limit)
        self._lock = threading.Lock()
        self._moving: list[MemoryReservation] = []

    @property
    def kept(self) -> int:
        """Return how many bytes are kept that no call holds."""
        return self._kept.size

    @contextlib.contextmanager
    def moving(
        self, reservation: MemoryReservation, interrupt: Callable[[], None]
    ) -> Iterator[None]:
        """Hold the place of a call whose body or answer moves; `interrupt` ends its waiting."""
        reservation.interrupt = interrupt
        reservation.begin()
        self._moving.append(reservation)
        try:
            yield
        finally:
            self._moving.remove(reservation)
            reservation.interrupt = _nothing

    def spare(self, reservation: MemoryReservation) -> int:
        """Return how much a large body must leave free: nothing if it has all to itself."""
        return 0 if self.used == reservation.size else self.limit // SPARE_PART

    def make_room(self, reservation: MemoryReservation, size: int) -> None:
        """Give up calls that move, for `size` bytes of the one that is first in line.

        Those whose client is slow go, the slowest first. If all that is held is held by calls
        that stand in line, none of them could ever go on: then the youngest goes.
        """
        lacking = self.used + size + self.spare(reservation) - self.limit
        lacking -= sum(call.size for call in self._moving if call.given_up)
        while lacking > 0 and (call := self._next_to_go(reservation)):
            call.give_up()
            lacking -= call.size

    def _next_to_go(self, reservation: MemoryReservation) -> MemoryReservation | None:
        others = [c for c in self._moving if c.size and not c.given_up and c is not reservation]
        slowest = max(others, key=MemoryReservation.lateness, default=None)
        if slowest and slowest.lateness() > max(PACE_SECONDS, reservation.lateness()):
            return slowest
        waiting = [call for call in others if call.waits]
        stuck = self.used == reservation.size + sum(call.size for call in waiting)
        return waiting[-1] if waiting and stuck else None

    def take(self, size: int, spare: int = 0) -> None:
        """Reserve some bytes, such that `spare` ones are left.

        Raises:
            OverloadedError: others hold too many.
        """
        with self._lock:
            if self.used + size + spare > self.limit:
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


class MemoryReservation:
    """Memory that one call holds of a budget, until it is released.

    Attributes:
        buffer: holds the call's body, and is all reserved; None if there is none of its own.
        waits: whether the call stands in line.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.begin()
        self.size = 0
        self.given_up = False
        self.waits = False
        self.buffer: memoryview | None = None
        self.interrupt: Callable[[], None] = _nothing

    def release(self) -> None:
        """Give back all of it."""
        self.buffer = None
        self.add(-self.size)

    def lateness(self) -> float:
        """Return for how many seconds the client has been at PACE_BYTES; 0 where it must wait."""
        return 0.0 if self.waits else time.monotonic() - self._since

    def begin(self) -> None:
        """Let the client's time begin now."""
        self._moved, self._since = 0, time.monotonic()

    def moved(self, size: int) -> None:
        """Take note of bytes that came or went."""
        self._moved += size
        if self._moved >= PACE_BYTES:
            self.begin()

    def moving(self, interrupt: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Hold this call's place among those that move bytes, as `MemoryBudget.moving`."""
        return self._budget.moving(self, interrupt)

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
        """Reserve bytes of a small body; wait in line only where there are none at once.

        Raises:
            LimitExceededError, OverloadedError: as `claim`.
        """
        try:
            self.add(size)
        except OverloadedError:
            await self.claim(size)

    async def claim(self, size: int) -> None:
        """Reserve bytes of a large body; wait in line for them.

        Raises:
            LimitExceededError: as `add`.
            OverloadedError: they were not free in WAIT_SECONDS.
        """
        await self._in_line(size, lambda: self._take(size, self._budget.spare(self)))

    async def claim_whole(self, size: int) -> memoryview:
        """Return a buffer of at least `size` bytes, reserved in place of all that the call has.

        Raises:
            LimitExceededError, OverloadedError: as `claim`.
        """
        return await self._in_line(size - self.size, lambda: self._take_buffer(size))

    async def _in_line(self, size: int, take: Callable[[], T]) -> T:
        self._check(size)
        began, self.waits = time.monotonic(), True
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._budget.line:
                while True:
                    try:
                        return take()
                    except OverloadedError:
                        self._budget.make_room(self, size)
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            raise OverloadedError(f"no memory was free for {WAIT_SECONDS:g} s; try again") from None
        finally:
            self._since += time.monotonic() - began
            self.waits = False

    def _take_buffer(self, size: int) -> memoryview:
        kept = self._budget.lend(size)
        if kept is None:
            self._take(size - self.size, self._budget.spare(self))
            return buffers.fresh(size)
        self._budget.give_back(self.size)
        self.size = len(kept)
        return kept

    def add(self, size: int) -> None:
        """Reserve more bytes, or free some if negative.

        Raises:
            LimitExceededError: the call alone would hold more than there is.
            OverloadedError: with the others it would.
        """
        self._check(size)
        if size > 0:
            self._take(size, 0)
        else:
            self._budget.give_back(-size)
            self.size += size

    def _take(self, size: int, spare: int) -> None:
        self._budget.take(size, spare)
        self.size += size

    def _check(self, size: int) -> None:
        if self.size + size > self._budget.limit:
            raise LimitExceededError(
                f"the call needs more than the limit memory_bytes of {self._budget.limit} bytes; "
                "send fewer rows",
                limit_name="memory_bytes",
                limit=self._budget.limit,
            )
