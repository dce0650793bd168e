"""Reader of one HTTP/1.1 response, without input or output of its own.

It is stricter than RFC 9112 asks of a client. An answer that two readers could understand in two
ways is refused, and its connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import numpy as np

from softxent_client.messages import PROBLEM_BYTES

HEAD_BYTES = 1 << 16
"""What the heads of an answer may take, those of interim answers included; so may its trailers."""

TRUSTED_BYTES = 1 << 28
"""A buffer of up to so many bytes is made as announced: pages that no byte reaches take no memory.
The buffer of a longer answer doubles as bytes come."""

LINE_BYTES = 1 << 12
"""What the line before a chunk may take."""

Raw = list[tuple[bytes, bytes]]
Take = Callable[[memoryview], None]

_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?"
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*)*"
)
_HEADERS = re.compile(rb"\r\n([^:]+):([^\r]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class ResponseReader:
    """One answer: `buffer` is where the next bytes go, `received` counts them, `ended` ends them.

    Once `done`, `status`, `headers` and `body` are the answer, and `reusable` tells whether its
    connection can carry another one. The scratch holds the head and all that has no known length;
    `HEAD_BYTES` long, it can serve one answer after another.
    """

    def __init__(self, method: str, scratch: memoryview) -> None:
        self.status = 0
        self.headers: Raw = []
        self.body: memoryview | bytearray = bytearray()
        self.done = self.reusable = False
        self._has_body = method != "HEAD"
        self._scratch = scratch
        self._came = self._filled = self._length = 0
        self._view: memoryview | None = None
        self._take: Take | None = None

    def buffer(self) -> memoryview:
        """Return where the next bytes go."""
        if self._view is not None:
            return self._view[self._filled :]
        return self._scratch if self._take else self._scratch[self._filled :]

    def received(self, count: int) -> None:
        """Take `count` bytes of the buffer.

        Raises:
            httpx.RemoteProtocolError: they are not HTTP/1.1.
        """
        self._came += count
        if self._view is not None:
            self._filled += count
            if self._filled == self._length:
                self._finish(self.reusable)
            elif self._filled == len(self._view):
                self._grow()
        elif self._take is not None:
            self._take(self._scratch[:count])
        else:
            self._filled += count
            self._take_head(max(0, self._filled - count - 3))

    def ended(self) -> None:
        """Take the end of the connection.

        Raises:
            httpx.RemoteProtocolError: the answer was not whole.
        """
        if not self._came:
            raise httpx.RemoteProtocolError("the server closed the connection without an answer")
        if self._take != self._add:
            raise httpx.RemoteProtocolError(f"the answer ended after {self._came} bytes")
        self._finish(reusable=False)

    def _take_head(self, start: int) -> None:
        """Look for the blank line from `start`, and begin with what follows it."""
        have = bytes(self._scratch[: self._filled])
        while (end := have.find(b"\r\n\r\n", start)) >= 0:
            self._parse(have[:end])
            have, start = have[end + 4 :], 0
            if self.status >= 200:
                self._begin_body(have)
                return
            # That was an interim answer; the final one follows it.
            self._filled = len(have)
            self._scratch[: len(have)] = have
        if self._filled == len(self._scratch) or self._came > HEAD_BYTES:
            raise _refusal(f"its head is longer than {HEAD_BYTES} bytes")

    def _parse(self, head: bytes) -> None:
        matched = _HEAD.fullmatch(head)
        if matched is None or matched[2] == b"101":
            good = _HEAD.match(head)
            wrong = head[good.end() if good else 0 :].strip(b"\r\n") or head
            raise _refusal(f"its head is wrong at {wrong[:80]!r}")
        self.status, self.reusable = int(matched[2]), matched[1] == b"1"
        self.headers = [
            (name.lower(), value.strip(b" \t")) for name, value in _HEADERS.findall(head)
        ]

    def _begin_body(self, rest: bytes) -> None:
        lengths, codings, options = set(), [], b""
        for name, value in self.headers:
            if name == b"content-length":
                lengths.add(value)
            elif name == b"transfer-encoding":
                codings.append(value.lower())
            elif name == b"connection":
                options += b"," + value.lower()
        old = not self.reusable
        if options and b"close" in [option.strip(b" \t") for option in options.split(b",")]:
            self.reusable = False
        # Of what is no result no more is read than a problem document may take.
        most = None if self.status < 300 else PROBLEM_BYTES + 1
        if not self._has_body or self.status in (204, 304):
            self._finish(self.reusable and not rest)
        elif codings:
            if codings != [b"chunked"] or lengths or old:
                raise _refusal("its Transfer-Encoding is not that of HTTP/1.1, chunked, alone")
            self._begin_pieces(_Chunks(self._add, self._finish_chunks).take, most, rest)
        elif lengths:
            self._begin_length(lengths, most, rest)
        else:
            self._begin_pieces(self._add, most, rest)

    def _begin_length(self, lengths: set[bytes], most: int | None, rest: bytes) -> None:
        value = b", ".join(sorted(lengths))
        if not _LENGTH.fullmatch(value):
            raise _refusal(f"its Content-Length is {value[:80]!r}")
        self._length = int(value)
        if most is not None and self._length > most:
            self.reusable, self._length = False, most
        if len(rest) >= self._length:
            self.body = bytearray(rest[: self._length])
            self._finish(self.reusable and len(rest) == self._length)
            return
        self.body = self._view = _room(min(self._length, TRUSTED_BYTES))
        self._view[: len(rest)] = rest
        self._filled = len(rest)

    def _grow(self) -> None:
        longer = _room(min(self._length, 2 * len(self.body)))
        longer[: self._filled] = self.body
        self.body = self._view = longer

    def _begin_pieces(self, take: Take, most: int | None, rest: bytes) -> None:
        self._length, self._take = most or 0, take
        if rest:
            take(memoryview(rest))

    def _add(self, piece: memoryview) -> None:
        assert isinstance(self.body, bytearray)
        self.body += piece
        if self._length and len(self.body) >= self._length:
            self._finish(reusable=False)

    def _finish_chunks(self, rest: int) -> None:
        self._finish(self.reusable and not rest and not self.done)

    def _finish(self, reusable: bool) -> None:
        self.done, self.reusable = True, reusable


class _Chunks:
    """Decoder of chunks: hands on their data, and says how many bytes follow the last of them."""

    def __init__(self, add: Take, finish: Callable[[int], None]) -> None:
        self._add = add
        self._finish = finish
        self._end_line = self._end_size
        self._left = 0
        self._line = bytearray()
        self._trailers = 0
        self._over = False

    def take(self, piece: memoryview) -> None:
        at = 0
        while at < len(piece) and not self._over:
            if self._left:
                data = piece[at : at + self._left]
                self._add(data)
                self._left -= len(data)
                at += len(data)
            else:
                at = self._take_line(piece, at)
        if self._over:
            self._finish(len(piece) - at)

    def _take_line(self, piece: memoryview, at: int) -> int:
        """Take a line, or what there is of it; return where the rest begins."""
        found = bytes(piece[at : at + LINE_BYTES]).find(b"\n")
        stop = at + found + 1 if found >= 0 else min(len(piece), at + LINE_BYTES)
        self._line += piece[at:stop]
        if len(self._line) > LINE_BYTES:
            raise _refusal(f"a line among its chunks is longer than {LINE_BYTES} bytes")
        if found >= 0:
            line, self._line = bytes(self._line), bytearray()
            if not line.endswith(b"\r\n"):
                raise _refusal(f"a line among its chunks is {line[:80]!r}")
            self._end_line(line[:-2])
        return stop

    def _end_size(self, line: bytes) -> None:
        matched = _CHUNK.fullmatch(line)
        if matched is None:
            raise _refusal(f"the size of a chunk is {line[:80]!r}")
        self._left = int(matched[1], 16)
        self._end_line = self._end_data if self._left else self._end_trailer

    def _end_data(self, line: bytes) -> None:
        if line:
            raise _refusal("a chunk is longer than it says")
        self._end_line = self._end_size

    def _end_trailer(self, line: bytes) -> None:
        self._over = not line
        self._trailers += len(line)
        if self._trailers > HEAD_BYTES:
            raise _refusal(f"its trailers are longer than {HEAD_BYTES} bytes")


def _room(count: int) -> memoryview:
    """Return memory that is not filled first: zeros took 10 ms of the 98 that 131 MB take."""
    return np.empty(count, np.uint8).data


def _refusal(why: str) -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"the server's answer is not HTTP/1.1: {why}")
