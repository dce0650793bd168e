"""Buffer and rate limit of a body that arrives in pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Receive, Scope

from softxent_client.wire import LimitExceededError
from softxent_service.http.errors import BodyLengthMismatchError, ClientGoneError
from softxent_service.http.limits import buffers
from softxent_service.http.limits.compression import Source
from softxent_service.http.limits.concurrency import Deadline
from softxent_service.http.limits.memory import MemoryReservation
from softxent_service.http.transport.bulk import bulk_of

T = TypeVar("T")
Reserve = Callable[[int], Awaitable[None]]

LEAST_STEP, LARGEST_STEP = 64 << 10, 1 << 20
"""Bytes that are waited for at a time: as many as have come, within these bounds."""

FIRST_BYTES = 1 << 20
"""These are reserved as they come, so that a client that announces much and sends little holds
little; then all the rest of what is announced. Bodies of no more do not stand in line."""


@dataclass(frozen=True)
class Ceiling:
    """Ceiling of the size of a body.

    Attributes:
        name: of the limit; a setting, where it can be changed.
        advice: what a client does instead.
    """

    name: str
    limit: int
    advice: str = "send fewer rows"

    def check(self, size: int) -> None:
        """Refuse `size` over the ceiling.

        Raises:
            LimitExceededError: it is.
        """
        if size > self.limit:
            raise LimitExceededError(
                f"the body is over the limit {self.name} of {self.limit} bytes; {self.advice}",
                limit_name=self.name,
                limit=self.limit,
            )


class RateLimit:
    """Least rate of a body: how long to wait for more of it."""

    def __init__(self, idle_seconds: float, least_rate: int, deadline: Deadline) -> None:
        self._idle_seconds = idle_seconds
        self._least_rate = least_rate
        self.deadline = deadline
        self._began = time.monotonic()

    def seconds(self, received: int) -> float:
        """Return how long it may take until more than `received` bytes have come."""
        idle = self._idle_seconds
        bought = self._began + received / self._least_rate - time.monotonic()
        return min(idle, idle + bought, self.deadline.left())

    def pause(self, seconds: float) -> None:
        """Let time pass that is not the client's."""
        self._began += seconds


class PlainBody:
    """Body without compression: the bytes of its first message, then the rest."""

    window = 0

    def __init__(self, scope: Scope, receive: Receive, piece: bytes, *, more: bool) -> None:
        self._receive = receive
        self._piece = memoryview(piece)
        self._more = more
        self._bulk = bulk_of(scope) if more else None
        self._received = 0

    @property
    def received(self) -> int:
        """Return how many bytes were handed out."""
        return self._received

    async def fill(self, view: memoryview) -> int:
        """Return how many bytes were put into `view`; 0 at the end of the body.

        Raises:
            ClientGoneError: the connection ended first.
        """
        if self._bulk is not None and not self._piece:
            size = await self._bulk.fill(view)
        else:
            while self._more and not self._piece:
                piece, self._more = await next_piece(self._receive)
                self._piece = memoryview(piece)
            size = min(len(view), len(self._piece))
            view[:size], self._piece = self._piece[:size], self._piece[size:]
        self._received += size
        return size


class BodyBuffer:
    """A body that comes in more than one piece."""

    def __init__(
        self,
        source: Source,
        pace: RateLimit,
        timer: asyncio.Timeout,
        reservation: MemoryReservation,
    ) -> None:
        self._source = source
        self._pace = pace
        self._timer = timer
        self._reservation = reservation

    def interrupt(self) -> None:
        """End waiting now."""
        self._timer.reschedule(asyncio.get_running_loop().time())

    async def whole(self, length: int | None, ceiling: Ceiling) -> memoryview:
        """Return all of it."""
        if length is None:
            buffer, used = await self._of_unknown_length(ceiling.limit)
        else:
            buffer, used = await self._of_known_length(length)
        if await self._source.fill(memoryview(bytearray(1))):
            ceiling.check(used + 1)
            check_length(used + 1, length)
        check_length(used, length)
        if length is not None:
            self._reservation.buffer = buffer
        return buffer[:used]

    async def _of_unknown_length(self, most: int) -> tuple[memoryview, int]:
        # Pages that nothing is written to take no memory.
        buffer = buffers.fresh(most)
        used = await self._fill(buffer[:FIRST_BYTES], 0, self._reservation.grow)
        return buffer, await self._fill(buffer, used, self._reservation.claim)

    async def _of_known_length(self, length: int) -> tuple[memoryview, int]:
        reservation = self._reservation
        reserve = reservation.grow if length <= FIRST_BYTES else reservation.claim
        buffer = buffers.fresh(min(length, FIRST_BYTES))
        used = await self._fill(buffer, 0, reserve)
        if used < len(buffer) or used == length:
            return buffer, used
        whole = await self._in_line(reservation.claim_whole(length))
        whole[:used] = buffer
        return whole, await self._fill(whole[:length], used, None)

    async def _fill(self, buffer: memoryview, used: int, reserve: Reserve | None) -> int:
        """Fill `buffer` from `used` on; return where the body or the buffer ends."""
        got = 1
        while got and used < len(buffer):
            step = min(max(used, LEAST_STEP), LARGEST_STEP, len(buffer) - used)
            # What was unpacked lately is held twice, where the decoder looks back at it.
            times = 2 if used < self._source.window else 1
            if reserve is not None:
                await self._in_line(reserve(times * step))
            self._wait(self._pace.seconds(self._source.received))
            got = await self._source.fill(buffer[used : used + step])
            if reserve is not None:
                self._reservation.add(times * (got - step))
            self._reservation.moved(got)
            used += got
        return used

    async def _in_line(self, claim: Awaitable[T]) -> T:
        """Wait for memory, which is no time of the client's."""
        self._wait(self._pace.deadline.left())
        began = time.monotonic()
        claimed = await claim
        self._pace.pause(time.monotonic() - began)
        return claimed

    def _wait(self, seconds: float) -> None:
        if not self._reservation.given_up:
            self._timer.reschedule(asyncio.get_running_loop().time() + seconds)


async def next_piece(receive: Receive) -> tuple[bytes, bool]:
    """Return what comes next of a body, and whether more of it will come.

    Raises:
        ClientGoneError: the connection ended first.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client went away before the body was complete")
    return message.get("body", b""), message.get("more_body", False)


def check_length(got: int, announced: int | None) -> None:
    """Refuse a body that is not as long as it was announced to be.

    Raises:
        BodyLengthMismatchError: it is not.
    """
    if announced is not None and got != announced:
        raise BodyLengthMismatchError(f"{got} bytes came where {announced} were announced")
