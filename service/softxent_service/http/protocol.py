"""uvicorn's httptools protocol, with a bound on request heads and room for bulk bodies."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from softxent_service.http.problems import problem

READ_AHEAD_BYTES = 256 << 10
"""Bytes of a body that may wait before reading pauses. A whole call with 131 MB each way took
125 ms at 256 KiB, 129 at 512, 142 to 160 at 4 MiB, whose copies leave the cache, and 142 at
uvicorn's own 64 KiB, which pauses and resumes the socket more often."""


def bounded_protocol(head_bytes: int) -> type[asyncio.Protocol]:
    """Return a protocol class that refuses request heads larger than `head_bytes`."""
    return type("Protocol", (_Protocol,), {"head_bytes": head_bytes})


class _Protocol(HttpToolsProtocol):
    head_bytes: int
    _head_got = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_got += len(data)
        super().data_received(data)
        # Only heads still open are refused, so bytes of a body never count.
        if self._in_head and self._head_got > self.head_bytes:
            self._refuse(431, "head-too-large", f"a head may have {self.head_bytes} bytes")

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_got = True, 0
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > READ_AHEAD_BYTES:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "malformed-request", msg)

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(_whole(problem(status, slug, detail)))
            self.transport.close()


def _whole(response: Response) -> bytes:
    lines = [b"HTTP/1.1 %d " % response.status_code]
    lines += [b"%s: %s" % header for header in response.raw_headers]
    return b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)])
