"""Reads a body under a ceiling, straight into one buffer of the announced size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from starlette.types import Receive

from softxent_client.wire import LimitExceededError, MalformedBodyError
from softxent_service.http.errors import (
    BodyLengthMismatchError,
    BodyTimeoutError,
    ClientGoneError,
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
    receive: Receive, content_length: bytes | None, ceiling: Ceiling, idle_seconds: float
) -> Buffer:
    """Return the whole body: `bytes` if it came in one message, else a writable view.

    Nothing is allocated before `content_length` is checked, and nothing is zeroed: pages of the
    buffer come into being as bytes arrive.

    Raises:
        LimitExceededError: the body is, or is announced to be, over the ceiling.
        MalformedBodyError: `content_length` is not a number.
        BodyLengthMismatchError: more or fewer bytes came than were announced.
        BodyTimeoutError: nothing came for `idle_seconds`.
        ClientGoneError: the connection ended first.
    """
    announced = _announced(content_length)
    ceiling.check(announced or 0)
    try:
        async with asyncio.timeout(idle_seconds) as timer:
            piece, more = await _next_piece(receive)
            if not more:
                ceiling.check(len(piece))
                _check_length(len(piece), announced)
                return piece
            return await _gather(receive, piece, announced, ceiling, timer, idle_seconds)
    except TimeoutError:
        raise BodyTimeoutError(f"no byte of the body came for {idle_seconds} s") from None


async def _gather(
    receive: Receive,
    piece: bytes,
    announced: int | None,
    ceiling: Ceiling,
    timer: asyncio.Timeout,
    idle_seconds: float,
) -> memoryview:
    clock = asyncio.get_running_loop().time
    most = ceiling.limit if announced is None else announced
    buffer = np.empty(min(FIRST_BYTES, most) if announced is None else announced, np.uint8)
    used, more = 0, True
    while True:
        end = used + len(piece)
        if end > most:
            ceiling.check(end)
            _check_length(end, announced)
        if end > buffer.size:
            buffer = _grown(buffer, used, end, most)
        buffer[used:end] = np.frombuffer(piece, np.uint8)
        used = end
        if not more:
            _check_length(used, announced)
            return buffer[:used].data
        timer.reschedule(clock() + idle_seconds)
        piece, more = await _next_piece(receive)


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
