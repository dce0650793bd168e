"""Call: one request with its deadline, the memory it holds and its telemetry record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from starlette.types import Receive, Scope, Send

from softxent_service.http.limits.body import Body, BodyReader, Head
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.limits.concurrency import ConcurrencyLimiter, Deadline
from softxent_service.http.limits.memory import MemoryReservation
from softxent_service.http.negotiation import seconds_of
from softxent_service.http.response import Piece, send_pieces
from softxent_service.settings import Settings
from softxent_service.telemetry.record import READ, record_of

T = TypeVar("T")


@dataclass(frozen=True)
class CallLimits:
    """Limits that all calls share."""

    reader: BodyReader
    limiter: ConcurrencyLimiter
    settings: Settings


class Call:
    """One request; as a context manager it gives back the memory that it holds.

    Attributes:
        memory: the bytes that it holds of the service's budget.
        deadline: until when it may take, and whether its client still waits.
        record: what telemetry records of it.
    """

    __slots__ = ("_limits", "_receive", "_scope", "deadline", "memory", "record")

    def __init__(
        self, limits: CallLimits, scope: Scope, receive: Receive, timeout: bytes | None = None
    ) -> None:
        """Begin; `timeout` is the value of the header Request-Timeout.

        Raises:
            MalformedRequestError: it is no number of seconds, or too large.
        """
        settings = limits.settings
        seconds = seconds_of(timeout, settings.timeout_seconds, settings.longest_timeout_seconds)
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self.record = record_of(scope)
        self.deadline = Deadline.of(seconds)
        self.memory = MemoryReservation(limits.reader.budget)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.memory.release()

    async def read(self, head: Head, ceiling: Ceiling) -> Body:
        """Return the whole body.

        Raises:
            As `BodyReader.read`.
        """
        body = await self._limits.reader.read(
            self._scope, self._receive, head, ceiling, self.memory, self.deadline
        )
        self.record.received = len(body)
        self.record.lap(READ)
        return body

    def reserve(self, size: int) -> None:
        """Reserve memory, or free some if negative, for a call that is still worth going on with.

        Raises:
            DeadlineError, ClientGoneError: it is not.
            LimitExceededError, OverloadedError: there is no memory for it.
        """
        self.deadline.check()
        self.memory.add(size)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` returns in a thread, once one is free.

        Raises:
            As `ConcurrencyLimiter.run`.
        """
        return await self._limits.limiter.run(work, self.deadline, self._receive)

    def time_slice(self) -> AbstractContextManager[None]:
        """Wait for a time slice of the kernels, and hold it in the context.

        Raises:
            DeadlineError, ClientGoneError: as `TimeSlices.take`.
        """
        return self._limits.limiter.time_slices.take(self.deadline)

    async def respond(
        self,
        send: Send,
        media_type: str,
        pieces: Sequence[Piece],
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send status 200 and the pieces, out of the memory that they lie in."""
        await send_pieces(self._scope, send, media_type.encode(), pieces, self.memory, headers)
