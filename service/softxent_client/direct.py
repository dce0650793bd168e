"""Transport of HTTP/1.1 over sockets of our own, under httpx's interface.

It sends a request's buffers as they lie in memory and receives an answer into one buffer.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

import httpx

from softxent_client.http1 import HEAD_BYTES, ResponseReader
from softxent_client.messages import RECEIVED, Body

CONNECTIONS = 100
"""Connections of a client at once; further calls wait for one, as with httpx."""

IDLE_SECONDS = 5.0
"""An idle connection is left after so long, as with httpx: some boxes drop it without a word."""

BUFFERS = 64
"""Buffers handed to the kernel at once; it takes no more than 1,024."""

_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_EMPTY = Body([])

Seconds = float | None


def buffers_of(request: httpx.Request) -> list[bytes | memoryview]:
    """Return what goes over the wire for a request: its head, and its body as it lies in memory."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    head = b"\r\n".join([*lines, b"\r\n"])
    return [head, *request.stream.parts] if isinstance(request.stream, Body) else [head]


def response_of(reader: ResponseReader) -> httpx.Response:
    """Return an answer whose body is in the extension `RECEIVED`."""
    return httpx.Response(
        reader.status, headers=reader.headers, stream=_EMPTY, extensions={RECEIVED: reader.body}
    )


def tls_context(url: httpx.URL) -> ssl.SSLContext | None:
    """Return what certificates are checked with, from the environment as httpx does; or None."""
    if url.scheme != "https":
        return None
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class DirectTransport(httpx.BaseTransport):
    """Connections to one service, for any number of threads of one process."""

    def __init__(self, url: httpx.URL) -> None:
        self._host = url.host
        self._port = url.port or {"http": 80, "https": 443}[url.scheme]
        self._tls = tls_context(url)
        # Tokens in a queue: a semaphore of `threading` takes nine times as long, 4 us a call.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(CONNECTIONS):
            self._places.put(None)
        self._idle: list[_Connection] = []
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request on a connection of its own, and return the whole answer."""
        if self._closed:
            raise RuntimeError("the client has been closed")
        seconds = request.extensions["timeout"]
        try:
            self._places.get(timeout=seconds["pool"])
        except Empty:
            raise httpx.PoolTimeout(f"{CONNECTIONS} connections are in use") from None
        try:
            return self._exchange(request, seconds)
        finally:
            self._places.put(None)

    def _exchange(self, request: httpx.Request, seconds: dict[str, Seconds]) -> httpx.Response:
        connection = self._take_idle() or self._connect(seconds["connect"])
        try:
            reader = connection.exchange(request, seconds["write"], seconds["read"])
        except BaseException:
            connection.close()
            raise
        if reader.reusable and not self._closed:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return response_of(reader)

    def _take_idle(self) -> _Connection | None:
        """Return the connection that was used last, if it is still good."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_good():
                return connection
            connection.close()

    def _connect(self, timeout: Seconds) -> _Connection:
        with mapped(httpx.ConnectError, httpx.ConnectTimeout):
            sock = socket.create_connection((self._host, self._port), timeout)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_hostname=self._host)
            except BaseException:
                sock.close()
                raise
        return _Connection(sock)

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer is there."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class _Connection:
    """One socket, one call at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.idle_since = 0.0
        self._socket = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._scratch = memoryview(bytearray(HEAD_BYTES))
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._both = select.poll()
        self._both.register(sock, select.POLLIN | select.POLLOUT)

    def is_good(self) -> bool:
        """Tell whether nothing has come, not even the end, and the wait was not too long."""
        return time.monotonic() - self.idle_since < IDLE_SECONDS and not self._poll.poll(0)

    def close(self) -> None:
        """Close the socket, without a word to the other side."""
        self._socket.close()

    def exchange(self, request: httpx.Request, write: Seconds, read: Seconds) -> ResponseReader:
        """Send a request, and read its answer, also one that comes before all is sent."""
        reader = ResponseReader(request.method, self._scratch)
        unsent = self._send(buffers_of(request), reader, write)
        try:
            while not reader.done:
                # TLS may hold what the socket no longer has; else asking first would be in vain.
                if not (self._tls and self._receive(reader)):
                    self._wait(self._poll, read, httpx.ReadTimeout)
                    self._receive(reader)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            if isinstance(unsent, OSError):
                raise httpx.WriteError(str(unsent)) from unsent
            raise
        if unsent:
            reader.reusable = False
        return reader

    def _send(
        self, buffers: list[bytes | memoryview], reader: ResponseReader, write: Seconds
    ) -> OSError | bool:
        """Send all, or stop at an early answer; return whether something is left, and why."""
        at = 0
        while at < len(buffers):
            try:
                count = self._send_some(buffers[at : at + BUFFERS])
            except _BLOCKED as blocked:
                reads = isinstance(blocked, ssl.SSLWantReadError)
                self._wait(self._poll if reads else self._both, write, httpx.WriteTimeout)
                if self._receive(reader) and reader.status >= 200:
                    return True
                continue
            except OSError as error:
                return error
            while at < len(buffers) and count >= len(buffers[at]):
                count -= len(buffers[at])
                at += 1
            if count:
                buffers[at] = memoryview(buffers[at])[count:]
        return False

    def _send_some(self, buffers: list[bytes | memoryview]) -> int:
        return self._socket.send(buffers[0]) if self._tls else self._socket.sendmsg(buffers)

    def _receive(self, reader: ResponseReader) -> bool:
        """Read once, if there is something."""
        try:
            count = self._socket.recv_into(reader.buffer())
        except _BLOCKED:
            return False
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        if count:
            reader.received(count)
        else:
            reader.ended()
        return True

    def _wait(
        self, poll: select.poll, seconds: Seconds, expired: type[httpx.TimeoutException]
    ) -> None:
        if not poll.poll(None if seconds is None else seconds * 1000):
            raise expired(f"nothing moved for {seconds} seconds")


@contextmanager
def mapped(
    failed: type[httpx.NetworkError], expired: type[httpx.TimeoutException]
) -> Iterator[None]:
    """Turn what sockets raise into what httpx raises."""
    try:
        yield
    except TimeoutError as error:
        raise expired(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
