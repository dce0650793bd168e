"""Bulk transport: large bodies are received into memory that the application provides.

The plain protocol copies each byte of a body three times before the application has it: out of the
loop's own buffer, out of the parser, out of the message. Here the application may lend the
connection a view, and the socket is read straight into that. It asks by way of the request's
scope, whose `extensions` then hold a `Bulk` under the name EXTENSION.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.types import Scope

from softxent_service.http.errors import ClientGoneError
from softxent_service.http.transport.connection_limits import ConnectionLimits
from softxent_service.http.transport.protocol import READ_AHEAD_BYTES, HeadBoundProtocol

EXTENSION = "softxent.bulk"

SCRATCH_BYTES = 256 << 10
"""What is no bulk body is read here, most at once; the parser copies out of it, so one buffer is
enough. No more of a bulk body than this is read before the application asks for it. With 64 KiB
32 x 1,000 float32 came in three pieces, and a tenth fewer calls a second were answered."""

SHOWN_SECONDS = 1.0
"""After this long, what has come of a piece is shown, so that slow bodies can be told from none."""


LATELY_SECONDS = 0.05
"""A client that has not asked for so long does not call without a pause, and may wait a little."""


class Bulk(Protocol):
    """Bulk access to a connection, while a bulk request is served on it."""

    @property
    def alone(self) -> bool:
        """Whether no other connection has asked for anything lately."""

    async def fill(self, view: memoryview) -> int:
        """Wait for bytes of the body and return how many came, 0 at its end.

        Fewer than `view` takes come where the parser had read some of them before, and after
        SHOWN_SECONDS.

        Raises:
            ClientGoneError: the connection ended first.
        """

    async def flush(self) -> None:
        """Wait until the system has all that was sent, so that its memory may be used again."""

    def abort(self) -> None:
        """End the connection at once."""


def bulk_of(scope: Scope) -> Bulk | None:
    """Return what a request's connection offers; None for small bodies and plain connections."""
    bulk: Bulk | None = scope.get("extensions", {}).get(EXTENSION)
    return bulk


def bulk_protocol(bounds: ConnectionLimits) -> type[asyncio.BufferedProtocol]:
    """Return a protocol class with these bounds that offers `Bulk`."""
    members = {"bounds": bounds, "scratch": memoryview(bytearray(SCRATCH_BYTES))}
    return type("BulkProtocol", (_Receiver,), members)


class _Receiver(asyncio.BufferedProtocol):
    """Receiver between the transport and the HTTP protocol; it chooses the buffer to read into.

    It is no subclass of the HTTP protocol, since that is an `asyncio.Protocol`: uvloop takes such a
    one for unbuffered whatever else it is, and never calls `get_buffer`.
    """

    bounds: ConnectionLimits
    scratch: memoryview

    def __init__(self, **given: Any) -> None:
        self._http = _BulkHttp(**given)
        self._http.bounds = self.bounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)

    def eof_received(self) -> bool:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.scratch if self._http.landing is None else self._http.landing

    def buffer_updated(self, nbytes: int) -> None:
        if self._http.landing is None:
            self._http.data_received(self.scratch[:nbytes])
        else:
            self._http.landed(nbytes)


class _BulkHttp(HeadBoundProtocol):
    """HTTP protocol of heads and small bodies; the rest of a bulk body passes it by.

    Attributes:
        landing: what is left of the view that the application lends, None if it lends none.
        _unparsed: bytes of a body that are still to come and that the parser will not see.
        _parsed: bytes of this message's body that it has seen.
    """

    landing: memoryview | None = None
    _arrived: asyncio.Future[None] | None = None
    _showing: asyncio.TimerHandle
    _unparsed = 0
    _parsed = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._parsed = 0
        length = _announced(dict(self.headers))
        if length > READ_AHEAD_BYTES:
            self.scope["extensions"] = {EXTENSION: _Exchange(self, self.cycle, length)}  # type: ignore[dict-item]

    def on_body(self, body: bytes | memoryview) -> None:
        self._parsed += len(body)
        super().on_body(body)
        if "extensions" in self.scope and not self.cycle.response_complete:
            self.flow.pause_reading()

    def data_received(self, data: bytes | memoryview) -> None:
        if self._unparsed:
            body, data = data[: self._unparsed], data[self._unparsed :]
            self.on_body(body)
            self._count(len(body))
        if data:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wake()

    async def land(self, view: memoryview, length: int) -> int:
        """Read the rest of a body of `length` bytes into `view`; return how many bytes came."""
        if not self._unparsed:
            self._unparsed = length - self._parsed
        self.landing = view = view[: self._unparsed]
        self._arrived = self.loop.create_future()
        self.flow.resume_reading()
        self._show(len(view))
        try:
            await self._arrived
            return len(view) - len(self.landing)
        finally:
            self._showing.cancel()
            self.landing = self._arrived = None

    def _show(self, size: int) -> None:
        """End the wait now and then, once fewer than `size` bytes are still to come."""
        self._showing = self.loop.call_later(SHOWN_SECONDS, self._show, size)
        if self.landing is not None and len(self.landing) < size:
            self._wake()

    def landed(self, size: int) -> None:
        """Take note of bytes that were read into `landing`."""
        assert self.landing is not None
        self.landing = self.landing[size:]
        if not self.landing:
            self.flow.pause_reading()
            self._wake()
        self._count(size)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _count(self, size: int) -> None:
        self._unparsed -= size
        if not self._unparsed:
            # The parser still waits for the body; another one begins with the next message.
            self._begin_parser()
            self.on_message_complete()


class _Exchange:
    """One request and its answer; what `Bulk` says."""

    def __init__(self, protocol: _BulkHttp, cycle: Any, length: int) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._length = length

    @property
    def alone(self) -> bool:
        protocol = self._protocol
        lately = protocol.loop.time() - LATELY_SECONDS
        others = (other for other in protocol.connections if other is not protocol)
        return all(other.asked_at < lately for other in others)  # type: ignore[union-attr]

    async def fill(self, view: memoryview) -> int:
        cycle = self._cycle
        size = min(len(view), len(cycle.body))
        if size:
            view[:size] = cycle.body[:size]
            cycle.body = cycle.body[size:]
        elif cycle.more_body and not cycle.disconnected:
            size = await self._protocol.land(view, self._length)
        if cycle.disconnected:
            raise ClientGoneError("the client went away before the body was complete")
        return size

    async def flush(self) -> None:
        transport = self._protocol.transport
        # With limits of 0 a TLS transport pauses the writing of nothing, and does not resume it.
        if transport.is_closing() or not transport.get_write_buffer_size():
            return
        before = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(0)
        await self._protocol.flow.drain()
        if not transport.is_closing():
            transport.set_write_buffer_limits(before[1], before[0])

    def abort(self) -> None:
        self._protocol.transport.abort()


def _announced(headers: Mapping[bytes, bytes]) -> int:
    if b"transfer-encoding" in headers:
        return 0
    return int(headers.get(b"content-length", b"0"))
