"""A client on blocking sockets, so that what is measured is the server."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Sequence

from servers import HOST

HEAD_BYTES = 64 << 10

Bytes = bytes | memoryview

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def request_head(path: str, media_type: str, size: int, *fields: str) -> bytes:
    """Return the head of a POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {HOST}",
        f"content-type: {media_type}",
        f"content-length: {size}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def answer_bytes(head: bytes) -> int | None:
    """Return how many bytes an answer has with its head, None while the head is not complete.

    Raises:
        RuntimeError: the answer is not 200, or does not say how long it is.
    """
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(head, 0, end + 2)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise RuntimeError(f"not an answer to be measured: {head[:500]!r}")
    return end + 4 + int(length[1])


class RawConnection:
    """A kept-alive connection that receives every answer in the same buffer.

    Servers close connections that are idle while others are measured; then it connects again.
    """

    def __init__(self, port: int, buffer: memoryview | None = None) -> None:
        """Connect; the buffer, which connections may share, holds an answer and its head."""
        self._port = port
        self._buffer = memoryview(bytearray(HEAD_BYTES)) if buffer is None else buffer
        self._connect()

    def echo(self, pieces: Sequence[Bytes]) -> memoryview:
        """Send pieces to the raw echo and take them back."""
        size = sum(map(len, pieces))
        self._send([size.to_bytes(8, "little"), *pieces])
        self._receive(0, size)
        return self._buffer[:size]

    def post(self, pieces: Sequence[Bytes]) -> memoryview:
        """Send a request and return the answer's body, which the next answer overwrites.

        Raises:
            RuntimeError: the answer is not 200.
        """
        if self._is_stale():
            self._connect()
        try:
            return self._post(pieces)
        except ConnectionError:
            self._connect()
            return self._post(pieces)

    def _post(self, pieces: Sequence[Bytes]) -> memoryview:
        self._send(pieces)
        got, size, head = 0, None, b""
        while size is None:
            got = self._receive(got, got + 1)
            head = bytes(self._buffer[: min(got, HEAD_BYTES)])
            size = answer_bytes(head)
        self._receive(got, size)
        return self._buffer[head.find(b"\r\n\r\n") + 4 : size]

    def _connect(self) -> None:
        self._socket = socket.create_connection((HOST, self._port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _is_stale(self) -> bool:
        """Tell whether the server has closed the connection: nothing else is to be read now."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def _send(self, pieces: Sequence[Bytes]) -> None:
        for piece in pieces:
            self._socket.sendall(piece)

    def _receive(self, got: int, needed: int) -> int:
        """Receive until `needed` bytes are there; return how many are."""
        while got < needed:
            received = self._socket.recv_into(self._buffer[got:])
            if not received:
                raise ConnectionError("the server closed the connection")
            got += received
        return got

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
