"""Large nested arrays of a JSON document, a block of rows at a time.

Parsed whole, a document takes several times its size in memory beside its numbers, and other
threads of the interpreter wait for all of it. So a plain document is walked along its top level,
nested arrays are cut between rows, and each block of rows is parsed as a document of its own.
What is not so plain, or is wrong in any way, is left to the reader of whole documents, which
knows how to tell it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache

import numpy as np

from softxent.errors import InputError
from softxent_client.wire import json_reader
from softxent_client.wire.errors import WireError, check_size
from softxent_client.wire.limits import Limits
from softxent_client.wire.schema import Array, Schema

BLOCK_BYTES = 256 << 10
"""Text parsed at a time, if rows are not longer: half a millisecond, and it stays in the cache."""

PARSING_BYTES = 16
"""Most memory that a parser takes for each byte of text: its tape, strings and index."""

Reserve = Callable[[int], None]
"""Is told how many bytes are about to be held, or with a minus are held no more. It may raise."""

Text = bytes | bytearray | memoryview

_SPACE = rb"[ \t\r\n]*"
_START = re.compile(_SPACE + rb"\{")
_MEMBER = re.compile(_SPACE + rb'"([a-z_]+)"' + _SPACE + rb":" + _SPACE)
_OPENING = re.compile(rb"\[(?:" + _SPACE + rb"\[)*")
_END_OF_FLAT = re.compile(rb"\]")
_FOLLOWS = re.compile(_SPACE + rb"([,}])")
_NOTHING_MORE = re.compile(_SPACE + rb"\Z")


class _NotPlainError(Exception):
    """The document is one for the other reader."""


def read(body: Text, schema: Schema, limits: Limits, reserve: Reserve) -> dict[str, Array] | None:
    """Return the tensors of a plain and faultless document, None for any other.

    What is reserved in the end is the size of the tensors.
    """
    held = 0

    def counted(size: int) -> None:
        nonlocal held
        reserve(size)
        held += size

    try:
        return _Walk(body, schema, limits, counted).tensors()
    except (_NotPlainError, WireError, InputError):
        reserve(-held)
        return None


class _Walk:
    """One way along the top level of a document."""

    def __init__(self, body: Text, schema: Schema, limits: Limits, reserve: Reserve) -> None:
        self._body = body
        self._schema = schema
        self._limits = limits
        self._reserve = reserve

    def tensors(self) -> dict[str, Array]:
        nested: dict[str, Array] = {}
        others: list[bytes] = []
        position, more = self._match(_START, 0).end(), True
        while more:
            member = self._match(_MEMBER, position)
            opening = self._match(_OPENING, member.end())
            name, rank = member[1].decode(), opening[0].count(b"[")
            if rank > 1 and name not in nested:
                nested[name], end = self._nested(name, rank, member.end() + 1)
            else:
                end = self._search(_END_OF_FLAT, opening.end()).end()
                others.append(bytes(self._body[member.start() : end]))
            follows = self._match(_FOLLOWS, end)
            position, more = follows.end(), follows[1] == b","
        self._match(_NOTHING_MORE, position)
        others_schema = Schema(self._schema.fields, required=())
        return self._complete(nested, self._parsed(b"{%s}" % b",".join(others), others_schema))

    def _complete(self, nested: dict[str, Array], others: dict[str, Array]) -> dict[str, Array]:
        if nested.keys() & others.keys():
            raise _NotPlainError
        tensors = {**nested, **others}
        check_size(len(tensors), "tensors", self._limits.tensors, "the number of tensors")
        self._schema.check_names(tensors)
        return tensors

    def _nested(self, name: str, rank: int, position: int) -> tuple[Array, int]:
        """Return the array whose first row begins at `position`, and where it ends."""
        rows = _Rows(rank, len(self._body) - position)
        schema = Schema({name: self._schema.field(name)}, required=(name,))
        between, ending = _cuts(rank)

        def add(end: int) -> None:
            text = bytes(self._body[position:end])
            rows.add(self._parsed(b'{"%s":[%s]}' % (name.encode(), text), schema)[name])

        while cut := between.search(self._body, position + BLOCK_BYTES):
            try:
                add(cut.start(1))
            except (WireError, InputError):
                # The array ended before the cut, or something is wrong with it.
                break
            position = cut.end(1)
        end = self._search(ending, position).end()
        if cut and end > cut.start(1):
            raise _NotPlainError
        add(end - 1)
        return rows.array(), end

    def _parsed(self, text: bytes, schema: Schema) -> dict[str, Array]:
        parsing = PARSING_BYTES * len(text)
        self._reserve(parsing)
        tensors = json_reader.read(text, schema, self._limits)
        self._reserve(sum(tensor.nbytes for tensor in tensors.values()) - parsing)
        return tensors

    def _match(self, pattern: re.Pattern[bytes], position: int) -> re.Match[bytes]:
        return _found(pattern.match(self._body, position))

    def _search(self, pattern: re.Pattern[bytes], position: int) -> re.Match[bytes]:
        return _found(pattern.search(self._body, position))


class _Rows:
    """Blocks of rows, put one after another where all of them will have room."""

    def __init__(self, rank: int, text_bytes: int) -> None:
        self._rank = rank
        self._text_bytes = text_bytes
        self._whole: Array | None = None
        self._count = 0

    def add(self, block: Array) -> None:
        if self._whole is None:
            self._whole = self._room_for(block)
        if block.shape[1:] != self._whole.shape[1:]:
            raise _NotPlainError
        self._whole[self._count : self._count + len(block)] = block
        self._count += len(block)

    def array(self) -> Array:
        assert self._whole is not None
        return self._whole[: self._count]

    def _room_for(self, block: Array) -> Array:
        """Return a buffer of as many rows as the text can hold; pages come as they are written."""
        if block.ndim != self._rank or not block.size:
            raise _NotPlainError
        # A number takes two bytes or more: a digit, and what parts it from the next.
        rows = self._text_bytes // (2 * math.prod(block.shape[1:])) + 1
        return np.empty((rows, *block.shape[1:]), block.dtype)


@cache
def _cuts(rank: int) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return what parts the rows of an array, its comma as a group, and what ends the array."""
    closing = _SPACE + rb"\]"
    row_end = rb"\]" + closing * (rank - 2)
    return re.compile(row_end + _SPACE + rb"(,)" + _SPACE + rb"\["), re.compile(row_end + closing)


def _found(match: re.Match[bytes] | None) -> re.Match[bytes]:
    if match is None:
        raise _NotPlainError
    return match
