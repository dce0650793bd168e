"""Coalescing transport: response head and first piece leave in one write."""

from __future__ import annotations

import asyncio


class CoalescingTransport:
    """A transport that sends the head of an answer together with what follows it at once.

    Sent by themselves they are two system calls, and wake the client twice: a tenth of a small
    call. A head that nothing follows in the same turn of the loop is not kept back.
    """

    __slots__ = ("_head", "_loop", "_sending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._sending: asyncio.Handle | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Send `data` at once, unless it is a head."""
        if self._sending is None:
            self._head = bytes(data)
            self._sending = self._loop.call_soon(self._send_head)
        elif self._head is None:
            self._transport.write(data)
        else:
            self._sending.cancel()
            head, self._head = self._head, None
            self._transport.writelines([head, data])

    def close(self) -> None:
        """Close once all is sent."""
        self._send_head()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether it closes or has closed."""
        return self._transport.is_closing()

    def _send_head(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)
