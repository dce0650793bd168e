"""Who gets memory and who gets the kernels, and when it is too much.

A call reserves the bytes that it holds as they come into being, waits for one of a few threads in
a bounded queue, and evaluates in turns of a few milliseconds that change hands between calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from softxent_client.wire import LimitExceededError
from softxent_service.http.buffers import Idle
from softxent_service.http.errors import ClientGoneError, DeadlineError, OverloadedError

T = TypeVar("T")

TICK_SECONDS = 0.002
"""Timers of an event loop count milliseconds and may end that much early."""


LEAST_HELD = 1 << 20
"""Bytes of a body from which on its call may have to give way, unless it comes slowly."""

SLOW_RATE = 1 << 20
"""Bytes a second below which a body gives way to one that comes faster."""

SHORTEST_SECONDS = 0.1
"""How old a call is taken to be at least where its rate is told."""


def _nothing() -> None:
    """Interrupt nobody."""


class Budget:
    """Bytes that all calls together may hold, those of buffers kept between calls included."""

    def __init__(self, limit: int, idle_limit: int = 0) -> None:
        self.limit = limit
        self.used = 0
        self._idle = Idle(idle_limit)
        self._lock = threading.Lock()
        self._receiving: list[Reservation] = []

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
            self._idle.shrink(self.limit - self.used)

    def give_back(self, size: int) -> None:
        """Free some bytes."""
        with self._lock:
            self.used -= size

    def lend(self, size: int) -> memoryview | None:
        """Return a kept buffer for a body of `size` bytes if there is one; it is reserved."""
        with self._lock:
            buffer = self._idle.lend(size)
            if buffer is not None:
                # It was within the limit, as a kept one.
                self.used += len(buffer)
            return buffer

    def keep(self, buffer: memoryview) -> None:
        """Keep a buffer that was reserved, so that it need not be made again."""
        with self._lock:
            self.used -= len(buffer)
            self._idle.keep(buffer)


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
        """Return how many bytes a second the call has come to hold."""
        return self.size / max(time.monotonic() - self._began, SHORTEST_SECONDS)

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
        """End the call for the sake of older ones."""
        self.given_up = True
        self.interrupt()

    async def grow(self, size: int) -> None:
        """Reserve bytes of a body that arrives; wait for them where younger calls give way.

        Raises:
            LimitExceededError, OverloadedError: as `add`.
        """
        while True:
            try:
                return self.add(size)
            except OverloadedError:
                if not self._budget.make_room(self, size):
                    raise
            await asyncio.sleep(TICK_SECONDS)

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


@dataclass(eq=False)
class Patience:
    """How long a call may take, and whether anyone still waits for it.

    Attributes:
        seconds: granted, from when its head had been read.
        deadline: when they are over, by `time.monotonic`.
        gone: whether the client went away.
    """

    seconds: float
    deadline: float
    gone: bool = False

    @classmethod
    def of(cls, seconds: float) -> Patience:
        """Return the patience that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Return how many seconds are left; 0 also for less than a timer can tell."""
        seconds = self.deadline - time.monotonic()
        return seconds if seconds > TICK_SECONDS else 0.0

    def check(self) -> None:
        """Refuse a call that is not worth going on with.

        Raises:
            DeadlineError: its time is over.
            ClientGoneError: the client went away.
        """
        if self.gone:
            raise ClientGoneError("the client went away before the answer was there")
        if not self.left():
            raise DeadlineError(f"the call was not done within {self.seconds:g} s")


class Turns:
    """Lets threads use the kernels a few at a time, first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self, patience: Patience) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises:
            DeadlineError, ClientGoneError: as `Patience.check`.
        """
        patience.check()
        self._enter(patience)
        try:
            patience.check()
            yield
        finally:
            self._leave()

    def _enter(self, patience: Patience) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            place = threading.Event()
            self._waiting.append(place)
        if not place.wait(patience.left()):
            with self._lock:
                late = not place.is_set()
                if late:
                    self._waiting.remove(place)
            if late:
                patience.check()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class Gate:
    """Runs the work of calls in threads, a few at a time; some more wait, the rest is refused."""

    def __init__(self, *, threads: int, queue: int, kernels: int) -> None:
        self.turns = Turns(kernels)
        self._threads = anyio.CapacityLimiter(threads)
        self._most = threads + queue
        self._inside = 0

    async def run(self, work: Callable[[], T], patience: Patience, receive: Receive) -> T:
        """Return what `work()` returns, or raise what it raises.

        The body has been received: what comes now is that the client goes away.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the call's time was over before a thread was free.
        """
        if self._inside >= self._most:
            raise OverloadedError(f"{self._inside} calls are in progress or wait; try again")
        self._inside += 1
        watch = asyncio.create_task(_watch(receive, patience))
        try:
            await self._acquire(patience)
            try:
                return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
            finally:
                self._threads.release_on_behalf_of(patience)
        finally:
            watch.cancel()
            self._inside -= 1

    async def _acquire(self, patience: Patience) -> None:
        try:
            async with asyncio.timeout(patience.left()):
                await self._threads.acquire_on_behalf_of(patience)
        except TimeoutError:
            patience.check()
            raise


async def _watch(receive: Receive, patience: Patience) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    patience.gone = True
