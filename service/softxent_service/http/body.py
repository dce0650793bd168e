"""Reads a body under a ceiling, straight into one buffer of the announced size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from starlette.types import Receive

from softxent_client.wire import LimitExceededError, MalformedBodyError
from softxent_service.http.admission import Budget, Patience, Reservation
from softxent_service.http.errors import (
    BodyLengthMismatchError,
    BodyTimeoutError,
    ClientGoneError,
    OverloadedError,
)

Buffer = bytes | memoryview
Bytes = npt.NDArray[np.uint8]

FIRST_BYTES = 64 << 10
"""Where a buffer of unknown length starts; it doubles from there."""


@dataclass(frozen=True)
class Ceiling:
    """How large a body may be, and the setting that says so."""

    name: str
    limit: int

    def check(self, size: int) -> None:
        """Refuse `size` over the ceiling.

        Raises:
            LimitExceededError: it is.
        """
        if size > self.limit:
            raise LimitExceededError(
                f"the body is over the limit {self.name} of {self.limit} bytes; send fewer rows",
                limit_name=self.name,
                limit=self.limit,
            )


async def read_body(
    receive: Receive,
    content_length: bytes | None,
    ceiling: Ceiling,
    budget: Budget,
    reservation: Reservation,
    patience: Patience,
    idle_seconds: float,
) -> Buffer:
    """Return the whole body: `bytes` if it came in one message, else a writable view.

    Nothing is allocated before `content_length` is checked, and nothing is zeroed: pages of the
    buffer come into being as bytes arrive, and so does their reservation.

    Raises:
        LimitExceededError: the body is, or is announced to be, over the ceiling.
        MalformedBodyError: `content_length` is not a number.
        BodyLengthMismatchError: more or fewer bytes came than were announced.
        BodyTimeoutError: nothing came for `idle_seconds`.
        ClientGoneError: the connection ended first.
        DeadlineError: the call's time was over first.
        OverloadedError: other calls hold too many bytes.
    """
    announced = _announced(content_length)
    ceiling.check(announced or 0)
    try:
        async with asyncio.timeout(min(idle_seconds, patience.left())) as timer:
            piece, more = await _next_piece(receive)
            if not more:
                ceiling.check(len(piece))
                _check_length(len(piece), announced)
                reservation.add(len(piece))
                return piece
            parts = _Parts(receive, timer, reservation, patience, idle_seconds)
            with budget.receiving(reservation, parts.interrupt):
                return await _gather(parts, piece, announced, ceiling)
    except TimeoutError:
        if reservation.given_up:
            raise OverloadedError("older calls need the memory; try again") from None
        patience.check()
        raise BodyTimeoutError(f"no byte of the body came for {idle_seconds} s") from None


@dataclass(frozen=True)
class _Parts:
    """Where the pieces of a body come from, and what they are held against."""

    receive: Receive
    timer: asyncio.Timeout
    reservation: Reservation
    patience: Patience
    idle_seconds: float

    def interrupt(self) -> None:
        """End waiting now."""
        self.timer.reschedule(asyncio.get_running_loop().time())

    async def reserve(self, size: int) -> None:
        """Reserve bytes that came; what waits for others is no silence of the client's."""
        self._wait(self.patience.left())
        await self.reservation.grow(size)

    def _wait(self, seconds: float) -> None:
        if not self.reservation.given_up:
            self.timer.reschedule(asyncio.get_running_loop().time() + seconds)

    async def next(self) -> tuple[bytes, bool]:
        """Return the next piece, which must come in time, and whether there are more."""
        self._wait(min(self.idle_seconds, self.patience.left()))
        return await _next_piece(self.receive)


async def _gather(
    parts: _Parts, piece: bytes, announced: int | None, ceiling: Ceiling
) -> memoryview:
    most = ceiling.limit if announced is None else announced
    buffer = np.empty(min(FIRST_BYTES, most) if announced is None else announced, np.uint8)
    used, more = 0, True
    while True:
        end = used + len(piece)
        if end > most:
            ceiling.check(end)
            _check_length(end, announced)
        await parts.reserve(len(piece))
        if end > buffer.size:
            buffer = _grown(buffer, used, end, most)
        buffer[used:end] = np.frombuffer(piece, np.uint8)
        used = end
        if not more:
            _check_length(used, announced)
            return buffer[:used].data
        piece, more = await parts.next()


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client went away before the body was complete")
    return message.get("body", b""), message.get("more_body", False)


def _grown(buffer: Bytes, used: int, needed: int, most: int) -> Bytes:
    larger = np.empty(min(max(2 * buffer.size, needed), most), np.uint8)
    larger[:used] = buffer[:used]
    return larger


def _announced(content_length: bytes | None) -> int | None:
    if content_length is None:
        return None
    # A number of 20 digits is over every ceiling, and int() of millions of digits is refused.
    if not content_length.isdigit() or len(content_length) > 20:
        raise MalformedBodyError("Content-Length is not a number of bytes")
    return int(content_length)


def _check_length(got: int, announced: int | None) -> None:
    if announced is not None and got != announced:
        raise BodyLengthMismatchError(f"{got} bytes came where {announced} were announced")
