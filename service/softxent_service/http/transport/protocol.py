"""uvicorn's httptools protocol, with bounds on request heads."""

from __future__ import annotations

import asyncio
import math
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from softxent.errors import SoftxentError
from softxent_service.http.errors import (
    DrainingError,
    HeadTimeoutError,
    HeadTooLargeError,
    HttpError,
    MalformedRequestError,
    OverloadedError,
)
from softxent_service.http.problems import problem_of, status_of, whole_answer
from softxent_service.http.transport.coalescing import CoalescingTransport
from softxent_service.http.transport.connection_limits import ConnectionLimits
from softxent_service.http.transport.request_heads import check_head, rooted
from softxent_service.http.transport.upgrades import head_without_offer
from softxent_service.telemetry.record import ANSWER

READ_AHEAD_BYTES = 256 << 10
"""Bytes of a body that may wait before reading pauses. A whole call with 131 MB each way took
125 ms at 256 KiB, 129 at 512, 142 to 160 at 4 MiB, whose copies leave the cache, and 142 at
uvicorn's own 64 KiB, which pauses and resumes the socket more often."""

WHOLE = "softxent.whole"
"""Stands in the scope of a request whose body has come to its end: nothing is left to wait for."""

LINGERING_SECONDS, MOST_LINGERING = 2.0, 64
"""How long what a refused client still sends is thrown away, by this many connections at a time. A
socket that is closed before all is read is reset, and a client that sends first and reads then
never sees why."""

PROBE_SECONDS = 0.5
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""A client that has ended its side may wait for its answer, or be gone: only a write tells, and the
second one fails. An interim response may be sent at any time before the answer, and every client of
HTTP/1.1 reads on behind it (RFC 9110, 15.2); most answers have begun before the first is due."""

LAST_SECONDS = 1
"""A stop leaves idle connections open for so long: a request may be on its way already, and the
client of one that is closed under it cannot know whether it was read."""


def plain_protocol(bounds: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return a protocol class with these bounds."""
    return type("Protocol", (HeadBoundProtocol,), {"bounds": bounds})


class HeadBoundProtocol(HttpToolsProtocol):
    """One clock a connection, uvicorn's own for idle ones: it runs while no answer is due.

    It starts with the connection, with the first byte of a head and with the end of an answer, and
    stops when a head is complete. So it ends slow heads, and bodies that are read after their
    answer and thrown away.

    Attributes:
        lingering: the connections that were refused and are read on.
        asked_at: when the head of the last request was complete, by the loop's clock.
        _answered: the request that is answered, if any; `cycle` is the newest.
        _last: whether the service stops, and no request after the next will be answered.
        _loose: bytes that came since a head, a piece of a body or a message was complete.
        _head_size: bytes of the parsed lines of this message's head and trailers.
    """

    bounds: ConnectionLimits
    lingering: ClassVar[set[HeadBoundProtocol]] = set()
    asked_at = -math.inf
    _answered: Any = None
    _last = False
    _loose = 0
    _head_size = 0
    _head_open = False
    _answer_clock: asyncio.TimerHandle | None = None
    _probing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head, unless there are too many connections."""
        super().connection_made(transport)
        self._start_clock()
        most = self.bounds.connections
        if len(self.connections) > most:
            told = f"this is one connection more than the limit of {most}; try again"
            self._refuse(OverloadedError(told))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, which would keep this object until they run out."""
        super().connection_lost(exc)
        self._give_up()
        self.lingering.discard(self)
        self._unset_keepalive_if_required()
        self._stop_answer_clock()
        if self._probing is not None:
            self._probing.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether whole requests are due an answer, after which the connection is closed.

        TLS closes both sides at once: asyncio and uvloop take no other answer from here.
        """
        last = self._last_whole()
        if last is None or self.scheme == "https":
            return False
        last.keep_alive = False
        self._probing = self.loop.call_later(PROBE_SECONDS, self._probe)
        return True

    def shutdown(self) -> None:
        """Close after the answer whose head will say so, or when none is asked for soon."""
        self._last, self.timeout_keep_alive = True, LAST_SECONDS
        if self.cycle is None or self.cycle.response_complete:
            self._start_clock()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Start the clock of an answer that waits to be taken."""
        super().pause_writing()
        self._answer_clock = self.loop.call_later(self.bounds.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it."""
        super().resume_writing()
        self._stop_answer_clock()

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what came; refuse what is no request or has too large a head."""
        if self in self.lingering:
            return
        self._loose += len(data)
        try:
            self._feed(data)
            self._check_head(self._loose)
        except HttpError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            # What a callback raises arrives as the context of the parser's own error.
            cause = error.__context__
            told = MalformedRequestError(f"what came is not an HTTP request ({error})")
            self._refuse(cause if isinstance(cause, HttpError) else told)

    def on_message_begin(self) -> None:
        """Start the clock of a head, unless an answer is due."""
        super().on_message_begin()
        self._head_size, self._head_open = 0, True
        if self.cycle is None or self.cycle.response_complete:
            self._start_clock()

    def on_url(self, url: bytes) -> None:
        """Count a part of the request line."""
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        self._head_size += len(name) + len(value) + len(b": \r\n")
        self._check_head(self._head_size)
        # A trailer may not change what the head says (RFC 9110, 6.5.1), and none is asked for.
        if self._head_open:
            # Blanks behind a value are none of it (RFC 9110, 5.5); the parser drops those before.
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Stop the clock and start the application."""
        self._check_head(self._head_size)
        check_head(self.parser.get_http_version(), self.headers)
        if self.parser.should_upgrade():
            return
        self._loose, self._head_open, self.asked_at = 0, False, self.loop.time()
        self._unset_keepalive_if_required()
        if not self.url.startswith(b"/"):
            self.url = rooted(self.url)
        super().on_headers_complete()
        self._answered = self._answered or self.cycle
        self.cycle.transport = CoalescingTransport(self.transport, self.loop)  # type: ignore[assignment]
        self.scope[ANSWER] = self.cycle  # type: ignore[literal-required]
        if self._last:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Go on with the request that was sent ahead, if there is one."""
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def on_body(self, body: bytes | memoryview) -> None:
        """Let a piece of a body wait for the application."""
        self._loose = 0
        if self.cycle.response_complete:
            return
        _append(self.cycle, body)
        if len(self.cycle.body) > READ_AHEAD_BYTES:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Tell the application that the body is whole."""
        if self.parser.should_upgrade():
            return
        self._loose = 0
        self.scope[WHOLE] = True  # type: ignore[literal-required]
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection whose clock has run out."""
        if self._head_open and self._last:
            self._refuse(DrainingError("the service stops, and the head is not complete"))
        elif self._head_open:
            self._refuse(
                HeadTimeoutError(f"the head is not complete after {self.timeout_keep_alive} s")
            )
        else:
            super().timeout_keep_alive_handler()

    def _start_clock(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _stop_answer_clock(self) -> None:
        if self._answer_clock is not None:
            self._answer_clock.cancel()
            self._answer_clock = None

    def _feed(self, data: bytes | memoryview) -> None:
        """Parse `data`; where the parser stops at an offer, another one goes on without it."""
        while len(data):
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                head = head_without_offer(self.parser, self.url, self.headers)
                self._begin_parser()
                self.parser.feed_data(head)

    def _begin_parser(self) -> None:
        """Take a new parser, made as uvicorn makes its own, for one that has lost its place."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _check_head(self, size: int) -> None:
        if size > self.bounds.head_bytes:
            raise HeadTooLargeError(f"a head may have {self.bounds.head_bytes} bytes")

    def _refuse(self, error: SoftxentError) -> None:
        self.bounds.refused(status_of(type(error)), error.slug)
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            # The request before is whole: its answer comes first, and is the last one.
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif self.pipeline:
            # The request at fault is the newest that waits: it is refused when its turn comes.
            refusal = problem_of(error, {"connection": "close"})
            self.pipeline[0] = (cycle, refusal)  # type: ignore[assignment]
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            if self._answer_begun():
                self.transport.close()
            else:
                self.transport.write(whole_answer(error))
                self._linger()

    def _last_whole(self) -> Any:
        """Return the last request that is whole and has no whole answer, None if there is none.

        One behind it that can no longer become whole is forgotten.
        """
        cycle = self.cycle
        if self.pipeline and cycle.more_body:
            self.pipeline.popleft()
            cycle = self.pipeline[0][0] if self.pipeline else self._answered
        due = cycle is not None and not cycle.more_body and not cycle.response_complete
        return cycle if due else None

    def _probe(self) -> None:
        """Write to a client that has ended its side, which ends the connection if it is gone."""
        cycle = self._answered
        if cycle is not None and not cycle.response_started and not self.transport.is_closing():
            if cycle.scope["http_version"] == "1.1":
                self.transport.write(PROBE)
            self._probing = self.loop.call_later(PROBE_SECONDS, self._probe)

    def _give_up(self) -> None:
        """Tell the application that nobody waits for its answer any more.

        uvicorn tells it to the newest request, which where requests are sent ahead is not the one
        that is answered.
        """
        for cycle in (self.cycle, self._answered):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _linger(self) -> None:
        """Close once the client has ended its side, or has had time to read the refusal."""
        # It counts no more as a connection, whose number may be what it was refused for.
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._give_up()
        if len(self.lingering) >= MOST_LINGERING:
            self.transport.close()
            return
        self.lingering.add(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGERING_SECONDS, self.transport.close)

    def _answer_begun(self) -> bool:
        """Tell whether a refusal would land in or after the answer to the very request at fault."""
        cycle = self.cycle
        return cycle is not None and cycle.more_body and cycle.response_started


def _append(cycle: Any, piece: bytes | memoryview) -> None:
    """Add a piece to what waits; one piece alone, as most small bodies are, is not copied again."""
    if not cycle.body:
        cycle.body = bytes(piece)
    else:
        if isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)
        cycle.body += piece
