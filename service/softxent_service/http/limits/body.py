"""Body reader: a body under a ceiling, in one buffer of the announced size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope

from softxent_client.wire import MalformedBodyError
from softxent_service.http.errors import (
    BodyTimeoutError,
    OverloadedError,
)
from softxent_service.http.limits.body_buffer import (
    BodyBuffer,
    Ceiling,
    PlainBody,
    RateLimit,
    check_length,
    next_piece,
)
from softxent_service.http.limits.compression import Source, Unpacked
from softxent_service.http.limits.concurrency import Deadline
from softxent_service.http.limits.memory import MemoryBudget, MemoryReservation
from softxent_service.http.transport.protocol import WHOLE

Buffer = bytes | memoryview


class Head(Protocol):
    """Headers that describe a body."""

    @property
    def content_length(self) -> bytes | None:
        """Return the size that is announced."""

    @property
    def coding(self) -> bytes | None:
        """Return a key of `CODINGS`, None for a plain body."""


class Body:
    """The bytes of a body, handed out once, so that they can be let go of before the call ends."""

    def __init__(self, buffer: Buffer, reservation: MemoryReservation) -> None:
        self._buffer: Buffer | None = buffer
        self._reservation = reservation
        self._size = len(buffer)

    def __len__(self) -> int:
        return self._size

    def take(self) -> Buffer:
        """Return the bytes; nothing else refers to them any more."""
        buffer, self._buffer = self._buffer, None
        assert buffer is not None, "a body is taken once"
        return buffer

    def free(self) -> None:
        """Give back the memory of what was taken; nothing may refer to it."""
        if self._reservation.buffer is not None:
            self._reservation.hand_back()
        else:
            self._reservation.add(-self._size)


@dataclass(frozen=True)
class BodyReader:
    """Reader of bodies, with the limits that it enforces.

    Attributes:
        idle_seconds: longest silence, and what a slow body has beyond `least_rate`.
        least_rate: bytes a second that a body must come with.
    """

    budget: MemoryBudget
    idle_seconds: float
    least_rate: int

    async def read(
        self,
        scope: Scope,
        receive: Receive,
        head: Head,
        ceiling: Ceiling,
        reservation: MemoryReservation,
        deadline: Deadline,
    ) -> Body:
        """Return the whole body: `bytes` if it came plain in one message, else a writable view.

        Nothing is allocated before the Content-Length is checked, and nothing is zeroed: a new
        buffer's pages come into being as bytes arrive. A coded body is held against the same
        ceiling before and after it is unpacked.

        Raises:
            LimitExceededError: the body is, or is announced to be, over the ceiling.
            MalformedBodyError: the Content-Length is not a number, or the body is not so coded as
                its head says.
            BodyLengthMismatchError: more or fewer bytes came than were announced.
            BodyTimeoutError: nothing came for `idle_seconds`, or less than `least_rate`.
            ClientGoneError: the connection ended first.
            DeadlineError: the call's time was over first.
            OverloadedError: other calls hold too many bytes.
        """
        length = _number(head.content_length)
        ceiling.check(length or 0)
        if WHOLE in scope and head.coding is None:
            # No timer: to set one and take it back took a twentieth of a small call.
            piece, _ = await next_piece(receive)
            return await _at_once(piece, length, ceiling, reservation, deadline)
        pace = RateLimit(self.idle_seconds, self.least_rate, deadline)
        try:
            async with asyncio.timeout(pace.seconds(0)) as timer:
                piece, more = await next_piece(receive)
                if not more and head.coding is None:
                    return await _at_once(piece, length, ceiling, reservation, deadline)
                source: Source = PlainBody(scope, receive, piece, more=more)
                if head.coding is not None:
                    source, length = Unpacked(source, head.coding), None
                arrival = BodyBuffer(source, pace, timer, reservation)
                with self.budget.moving(reservation, arrival.interrupt):
                    return Body(await arrival.whole(length, ceiling), reservation)
        except TimeoutError:
            if reservation.given_up:
                raise OverloadedError("other calls need the memory; try again") from None
            deadline.check()
            raise BodyTimeoutError(
                f"no byte of the body came for {self.idle_seconds:g} s, or too few for "
                f"{self.least_rate} bytes a second"
            ) from None


async def _at_once(
    piece: bytes,
    length: int | None,
    ceiling: Ceiling,
    reservation: MemoryReservation,
    deadline: Deadline,
) -> Body:
    """Return a body that came in one piece."""
    # A message that is already there is returned before any timer can end it.
    deadline.check()
    ceiling.check(len(piece))
    check_length(len(piece), length)
    await reservation.grow(len(piece))
    return Body(piece, reservation)


def _number(announced: bytes | None) -> int | None:
    if announced is None:
        return None
    # A number of 20 digits is over every ceiling, and int() of millions of digits is refused.
    if not announced.isdigit() or len(announced) > 20:
        raise MalformedBodyError("Content-Length is not a number of bytes")
    return int(announced)
