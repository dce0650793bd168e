"""A client on blocking sockets, so that what is measured is the server."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from servers import HOST

HEAD_BYTES = 64 << 10

Bytes = bytes | memoryview


def request_head(path: str, media_type: str, size: int) -> bytes:
    """Return the head of a POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {HOST}",
        f"content-type: {media_type}",
        f"content-length: {size}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class RawConnection:
    """One kept-alive connection that receives every answer in the same buffer.

    Attributes:
        body_bytes: of the last answer.
    """

    body_bytes = 0

    def __init__(self, port: int, answer_bytes: int = 0) -> None:
        """Connect; the buffer holds answers of up to `answer_bytes` and their heads."""
        self._socket = socket.create_connection((HOST, port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(answer_bytes + HEAD_BYTES))

    def echo(self, pieces: Sequence[Bytes]) -> int:
        """Send pieces to the raw echo and take them back; return their size."""
        size = sum(map(len, pieces))
        self._send([size.to_bytes(8, "little"), *pieces])
        self._receive(0, size)
        return size

    def post(self, pieces: Sequence[Bytes]) -> int:
        """Send a request and receive its answer; return the answer's size with its head.

        Raises:
            RuntimeError: the answer is not 200.
        """
        self._send(pieces)
        got, head = 0, b""
        while not (end := head.find(b"\r\n\r\n") + 1):
            got = self._receive(got, got + 1)
            head = bytes(self._buffer[: min(got, HEAD_BYTES)])
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.IGNORECASE)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            raise RuntimeError(f"not an answer to be measured: {head[:500]!r}")
        self.body_bytes = int(length[1])
        return self._receive(got, end + 3 + self.body_bytes)

    def _send(self, pieces: Sequence[Bytes]) -> None:
        for piece in pieces:
            self._socket.sendall(piece)

    def _receive(self, got: int, needed: int) -> int:
        """Receive until `needed` bytes are there; return how many are."""
        while got < needed:
            received = self._socket.recv_into(self._buffer[got:])
            if not received:
                raise RuntimeError("the server closed the connection")
            got += received
        return got

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
