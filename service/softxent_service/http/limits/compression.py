"""Decompression of request bodies, in pieces that fit the reserved memory.

A few kilobytes may unpack to gigabytes, so nothing is unpacked before its room is reserved, and
what unpacks to more than the ceiling of plain bodies is refused like those.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import anyio.to_thread

from softxent_client.wire import MalformedBodyError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ_BYTES = 64 << 10
"""Coded bytes that are read at a time."""

ON_LOOP_BYTES = 16 << 10
"""Up to this much is unpacked on the event loop: 50 us, less than a thread costs."""

ZSTD_WINDOW_LOG = 23
"""Decoders need not support windows of zstd over 8 MiB (RFC 9659), and have to hold one whole."""


class Source(Protocol):
    """Source of the bytes of a body."""

    @property
    def received(self) -> int:
        """Return how many bytes have come over the connection."""

    @property
    def window(self) -> int:
        """Return how many of the bytes handed out are held a second time."""

    async def fill(self, view: memoryview) -> int:
        """Put bytes into `view` and return how many, 0 at the end of the body."""


class _Decoder(Protocol):
    """One member of a coded body; `needs_input` also where it has ended."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflater:
    """zlib's decoder with the interface of the newer ones."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


def _zstd() -> _Decoder:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    )


CODINGS: dict[bytes, Callable[[], _Decoder]] = {
    b"gzip": lambda: _Inflater(16 + zlib.MAX_WBITS),
    b"x-gzip": lambda: _Inflater(16 + zlib.MAX_WBITS),
    b"deflate": lambda: _Inflater(zlib.MAX_WBITS),
    b"zstd": _zstd,
}
"""How to make a decoder, by the words of Content-Encoding."""

FEW_MEMBERS, MEMBER_BYTES = 16, 256
"""A body may be made of this many coded ones, and of one more for so many bytes that it unpacks to:
to begin one takes 3 us, and the shortest have 20 bytes."""

FEED_BYTES = 4 << 10
"""Coded bytes that a decoder is given at a time: it copies what follows the end of a member."""

_WINDOWS = {b"zstd": 1 << ZSTD_WINDOW_LOG}


class Unpacked:
    """The plain bytes of a coded source."""

    def __init__(self, source: Source, coding: bytes) -> None:
        self._source = source
        self._coding = coding
        self._decoder = CODINGS[coding]()
        self._coded, self._at = b"", 0
        self._members = 1
        self._unpacked = 0
        self._scratch = memoryview(bytearray(READ_BYTES))

    @property
    def received(self) -> int:
        """Return how many coded bytes have come."""
        return self._source.received

    @property
    def window(self) -> int:
        """Return how far the decoder looks back at what it unpacked."""
        return _WINDOWS.get(self._coding, 0)

    async def fill(self, view: memoryview) -> int:
        """Put plain bytes into `view` and return how many, 0 at the end of the body.

        Raises:
            MalformedBodyError: what came is not so coded, or ends early.
            ClientGoneError: the connection ended first.
        """
        while not (piece := await self._unpack(len(view))):
            got = await self._source.fill(self._scratch)
            if not got:
                self._check_end()
                return 0
            self._coded, self._at = self._coded[self._at :] + self._scratch[:got], 0
        view[: len(piece)] = piece
        return len(piece)

    async def _unpack(self, size: int) -> bytes:
        if size <= ON_LOOP_BYTES:
            return self._piece(size)
        return await anyio.to_thread.run_sync(self._piece, size)

    def _piece(self, size: int) -> bytes:
        """Return some more plain bytes, none if more coded ones are needed."""
        while self._at < len(self._coded) or not (self._decoder.eof or self._decoder.needs_input):
            if self._decoder.eof:
                self._next_member()
            coded = self._coded[self._at : self._at + FEED_BYTES]
            self._at += len(coded)
            try:
                piece = self._decoder.decompress(coded, size)
            except (zlib.error, zstd.ZstdError) as error:
                raise self._malformed(f"is not: {error}") from None
            if self._decoder.eof:
                self._at -= len(self._decoder.unused_data)
            if piece:
                self._unpacked += len(piece)
                return piece
        return b""

    def _next_member(self) -> None:
        # A body may be made of several coded ones (RFC 1952, 2.2; RFC 8878, 3.1).
        self._members += 1
        if self._members > FEW_MEMBERS + self._unpacked // MEMBER_BYTES:
            raise self._malformed(f"is made of {self._members} parts for {self._unpacked} bytes")
        self._decoder = CODINGS[self._coding]()

    def _check_end(self) -> None:
        if not self._decoder.eof:
            raise self._malformed("ends early")

    def _malformed(self, what: str) -> MalformedBodyError:
        return MalformedBodyError(
            f"the body is said to be coded in {self._coding.decode()} and {what}",
            field="content-encoding",
        )
