"""`DirectTransport` for asyncio and uvloop."""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import cast

import httpx

from softxent_client.direct import (
    CONNECTIONS,
    IDLE_SECONDS,
    Seconds,
    buffers_of,
    mapped,
    response_of,
    tls_context,
)
from softxent_client.http1 import HEAD_BYTES, ResponseReader

PIECE_BYTES = 1 << 18
"""Bytes handed to asyncio's transport at once: it copies what the socket does not take."""


class AsyncDirectTransport(httpx.AsyncBaseTransport):
    """Connections to one service from the event loops of one process."""

    def __init__(self, url: httpx.URL) -> None:
        self._host = url.host
        self._port = url.port or {"http": 80, "https": 443}[url.scheme]
        self._tls = tls_context(url)
        self._pools: dict[AbstractEventLoop, _Pool] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request on a connection of its own, and return the whole answer."""
        if self._closed:
            raise RuntimeError("the client has been closed")
        pool = self._pool(asyncio.get_running_loop())
        seconds = request.extensions["timeout"]
        await pool.enter(seconds["pool"])
        try:
            return response_of(await self._exchange(pool, request, seconds))
        finally:
            pool.places.release()

    def _pool(self, loop: AbstractEventLoop) -> _Pool:
        """Return the connections of a loop, which are of use to that loop alone."""
        pool = self._pools.get(loop)
        if pool is None:
            for other in list(self._pools):
                if other.is_closed():
                    self._pools.pop(other, None)
            pool = self._pools[loop] = _Pool()
        return pool

    async def _exchange(
        self, pool: _Pool, request: httpx.Request, seconds: dict[str, Seconds]
    ) -> ResponseReader:
        connection = pool.take_idle() or await self._connect(seconds["connect"])
        try:
            reader = await connection.exchange(request, seconds["write"], seconds["read"])
        except BaseException:
            # Cancelled, too: what comes of the answer belongs to nobody.
            connection.close()
            raise
        if reader.reusable and not self._closed:
            connection.idle_since = time.monotonic()
            pool.idle.append(connection)
        else:
            connection.close()
        return reader

    async def _connect(self, timeout: Seconds) -> _Connection:
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._host
        with mapped(httpx.ConnectError, httpx.ConnectTimeout):
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls, server_hostname=name
                )
        return connection

    async def aclose(self) -> None:
        """Close the idle connections of this loop, and wait until they are closed."""
        self._closed = True
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        for connection in pool.idle if pool else ():
            connection.close()
            await connection.gone


class _Pool:
    """Connections of one event loop."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(CONNECTIONS)
        self.idle: list[_Connection] = []

    async def enter(self, timeout: Seconds) -> None:
        """Take a place."""
        try:
            async with asyncio.timeout(timeout if self.places.locked() else None):
                await self.places.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(f"{CONNECTIONS} connections are in use") from None

    def take_idle(self) -> _Connection | None:
        """Return the connection that was used last, if it is still good."""
        while self.idle:
            connection = self.idle.pop()
            if connection.is_good():
                return connection
            connection.close()
        return None


class _Connection(asyncio.BufferedProtocol):
    """One connection, one call at a time. What the loop tells wakes the call that waits."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.gone = asyncio.get_running_loop().create_future()
        self._scratch = memoryview(bytearray(HEAD_BYTES))
        self._reader: ResponseReader | None = None
        self._spoilt = self._paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._moved = 0.0

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        if self._reader is None or self._reader.done or self._error:
            return self._scratch
        return self._reader.buffer()

    def buffer_updated(self, count: int) -> None:
        if self._reader is None or self._reader.done or self._error:
            # Nobody asked for it, so nothing that comes here can be told apart from it.
            self._spoilt = True
            return
        self._moved = time.monotonic()
        try:
            self._reader.received(count)
        except httpx.RemoteProtocolError as error:
            self._error = error
        if self._reader.done or self._error or self._reader.status >= 200:
            self._wake()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._moved = time.monotonic()
        self._wake()

    def _end(self, error: Exception | None) -> None:
        self._spoilt = True
        if self._reader is not None and not self._reader.done and self._error is None:
            if error is not None:
                self._error = httpx.ReadError(str(error))
                self._error.__cause__ = error
            else:
                try:
                    self._reader.ended()
                except httpx.RemoteProtocolError as refusal:
                    self._error = refusal
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What a call calls.

    def is_good(self) -> bool:
        """Tell whether nothing has come, not even the end, and the wait was not too long."""
        return not self._spoilt and time.monotonic() - self.idle_since < IDLE_SECONDS

    def close(self) -> None:
        """Close the connection, whatever is still to be sent."""
        self._transport.abort()

    async def exchange(
        self, request: httpx.Request, write: Seconds, read: Seconds
    ) -> ResponseReader:
        """Send a request, and read its answer, also one that comes before all is sent."""
        reader = self._reader = ResponseReader(request.method, self._scratch)
        sent = await self._send(buffers_of(request), reader, write)
        await self._until(lambda: reader.done, read, httpx.ReadTimeout)
        if not sent or self._spoilt:
            reader.reusable = False
        return reader

    async def _send(
        self, buffers: list[bytes | memoryview], reader: ResponseReader, write: Seconds
    ) -> bool:
        """Send all, or stop at an early answer; tell whether all was sent."""
        if sum(map(len, buffers)) <= PIECE_BYTES:
            self._transport.write(b"".join(buffers))
            return True
        for buffer in buffers:
            for start in range(0, len(buffer), PIECE_BYTES):
                if reader.status >= 200 or self._spoilt:
                    return False
                self._transport.write(buffer[start : start + PIECE_BYTES])
                if self._paused:
                    await self._until(
                        lambda: not self._paused or reader.status >= 200, write, httpx.WriteTimeout
                    )
        return True

    async def _until(
        self,
        holds: Callable[[], bool],
        seconds: Seconds,
        expired: type[httpx.TimeoutException],
    ) -> None:
        """Wait until something holds, however long bytes keep moving."""
        loop = asyncio.get_running_loop()
        self._moved = time.monotonic()
        while not holds():
            if self._error is not None:
                raise self._error
            self._waiter = loop.create_future()
            alarm = None
            if seconds is not None:
                left = self._moved + seconds - time.monotonic()
                if left <= 0:
                    raise expired(f"nothing moved for {seconds} seconds")
                alarm = loop.call_later(left, self._wake)
            try:
                await self._waiter
            finally:
                if alarm is not None:
                    alarm.cancel()
