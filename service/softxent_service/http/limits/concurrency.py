"""Concurrency limiter for large evaluations: threads, a bounded queue, time slices and deadlines.

A call waits for one of a few threads in a bounded queue, and evaluates in turns of a few
milliseconds that change hands between calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from softxent_service.http.errors import ClientGoneError, DeadlineError, OverloadedError

T = TypeVar("T")

TICK_SECONDS = 0.002
"""Timers of an event loop count milliseconds and may end that much early."""


@dataclass(eq=False)
class Deadline:
    """Deadline of a call, and whether its client still waits.

    Attributes:
        seconds: granted, from when its head had been read.
        ends: when they are over, by `time.monotonic`.
        gone: whether nobody waits for the answer any more.
        waited: seconds that it has spent waiting for turns.
    """

    seconds: float
    ends: float
    gone: bool = False
    waited: float = 0.0

    @classmethod
    def of(cls, seconds: float) -> Deadline:
        """Return the deadline of a call that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    def grant(self, seconds: float) -> None:
        """Let the call take this long instead, from when its head had been read."""
        self.ends += seconds - self.seconds
        self.seconds = seconds

    def left(self) -> float:
        """Return how many seconds are left; 0 also for less than a timer can tell."""
        seconds = self.ends - time.monotonic()
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


class TimeSlices:
    """Time slices of the kernels, given to threads first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises:
            DeadlineError, ClientGoneError: as `Deadline.check`.
        """
        deadline.check()
        self._enter(deadline)
        try:
            deadline.check()
            yield
        finally:
            self._leave()

    def _enter(self, deadline: Deadline) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            place = threading.Event()
            self._waiting.append(place)
        began = time.monotonic()
        came = place.wait(deadline.left())
        deadline.waited += time.monotonic() - began
        if not came:
            with self._lock:
                late = not place.is_set()
                if late:
                    self._waiting.remove(place)
            if late:
                deadline.check()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class ConcurrencyLimiter:
    """Threads for the work of calls: a few run, some more wait, further ones are refused."""

    def __init__(self, *, threads: int, queue: int, kernels: int) -> None:
        self.time_slices = TimeSlices(kernels)
        self._threads = anyio.CapacityLimiter(threads)
        self._most = threads + queue
        self._inside = 0

    @property
    def busy(self) -> int:
        """Return how many calls have a place."""
        return self._threads.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Return how many calls wait for one."""
        return max(0, self._inside - self.busy)

    async def run(self, work: Callable[[], T], deadline: Deadline, receive: Receive) -> T:
        """Return what `work()` returns, or raise what it raises.

        The body has been received: what comes now is that the client goes away.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the call's time was over before a thread was free.
        """
        if self._inside >= self._most:
            raise OverloadedError(f"{self._inside} calls are in progress or wait; try again")
        self._inside += 1
        watch = asyncio.create_task(_watch(receive, deadline))
        try:
            await self._acquire(deadline)
            try:
                return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
            finally:
                self._threads.release_on_behalf_of(deadline)
        finally:
            # A stop may have ended the wait for a thread that works on: it need not.
            deadline.gone = True
            watch.cancel()
            self._inside -= 1

    async def _acquire(self, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.left()):
                await self._threads.acquire_on_behalf_of(deadline)
        except TimeoutError:
            deadline.check()
            raise


async def _watch(receive: Receive, deadline: Deadline) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    deadline.gone = True
