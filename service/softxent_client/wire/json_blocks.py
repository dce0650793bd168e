"""Large JSON documents, read in pieces of bounded size.

Parsed whole, a document takes several times its size in memory beside its numbers, and every other
thread of the interpreter waits for all of it. So a document is walked along its top level, and its
arrays are read piece by piece. Whoever reads is asked before each piece whether to go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from softxent.errors import TensorError
from softxent_client.wire import json_reader
from softxent_client.wire.errors import MalformedBodyError, check_size
from softxent_client.wire.json_array import MISSING, ArrayReader, Parse
from softxent_client.wire.json_values import kind_of
from softxent_client.wire.limits import Limits
from softxent_client.wire.schema import SHOWN, Array, Field, Schema

BLOCK_BYTES = 256 << 10
"""Text parsed at a time, and the longest value with the white space around it: 1 ms, 25 ms at worst
for numbers of many digits. A document of no more is parsed whole."""

PARSING_BYTES = 16
"""Most memory that a parser takes for each byte of text: its tape, strings and index."""

Reserve = Callable[[int], None]
"""Is told how many bytes are about to be held, or with a minus are held no more. It may raise, and
so ends reading: it is told at least once for each piece."""


def unbounded(_size: int) -> None:
    """Reserve nothing."""


Text = bytes | bytearray | memoryview

_SPACE = rb"[ \t\r\n]*+"
_START = re.compile(_SPACE + rb"\{")
_NAME = re.compile(_SPACE + rb'("(?:[^"\\]|\\.)*+")' + _SPACE + rb":" + _SPACE, re.DOTALL)
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^\[\]{}",:\s]++', re.DOTALL)
_FOLLOWS = re.compile(_SPACE + rb"([,}])")
_BLANK = re.compile(_SPACE)
_NO_MEMBERS = re.compile(_SPACE + rb"\}")
_OPENING = re.compile(rb"\[(?:" + _SPACE + rb"\[)*+")


def read(body: Text, schema: Schema, limits: Limits, reserve: Reserve) -> dict[str, Array]:
    """Return the arrays of a JSON object, lone numbers as 0-d ones.

    What is reserved in the end is the size of the arrays.

    Raises:
        MalformedBodyError, LimitExceededError, TensorError, RowsError: as `json_reader.read`.
    """
    tensors = _Walk(body, schema, limits, reserve).tensors()
    schema.check_names(tensors)
    return tensors


class _Walk:
    """One way along the top level of a document."""

    def __init__(self, body: Text, schema: Schema, limits: Limits, reserve: Reserve) -> None:
        self._cursor = Cursor(body, limits, reserve)
        self._schema = schema
        self._limits = limits

    def tensors(self) -> dict[str, Array]:
        cursor = self._cursor
        cursor.begin()
        tensors: dict[str, Array] = {}
        more = cursor.match(_NO_MEMBERS) is None
        while more:
            name = self._name(tensors)
            if name in self._schema.options:
                self._refuse_option(name)
            tensors[name] = self._value(name, self._schema.field(name))
            check_size(len(tensors), "tensors", self._limits.tensors, "the number of tensors")
            more = cursor.required(_FOLLOWS)[1] == b","
        cursor.required(_BLANK)
        if cursor.left:
            raise MalformedBodyError(MISSING)
        return tensors

    def _name(self, before: dict[str, Array]) -> str:
        quoted = self._cursor.required(_NAME)[1]
        try:
            name = str(orjson.loads(quoted))
        except orjson.JSONDecodeError:
            raise MalformedBodyError("the JSON holds a malformed name") from None
        if name in before:
            raise MalformedBodyError(f"the JSON names {name[:SHOWN]!r} twice")
        return name

    def _refuse_option(self, name: str) -> None:
        found = self._cursor.match(_VALUE)
        text = b"..." if found is None else found[0].strip(b'"')
        json_reader.refuse_option(name, text.decode("utf-8", "replace"), self._schema)

    def _value(self, name: str, field: Field) -> Array:
        cursor = self._cursor
        first = cursor.window(1)
        if first == b"[":
            return read_array(cursor, name, field, json_reader.parse)
        if first == b"{":
            many = kind_of(field.json_dtype).many
            raise TensorError(f"{name} must be {many}, not an object", field=name)
        text = b'{"%s":%s}' % (name.encode(), cursor.required(_VALUE)[0])
        return json_reader.read(text, Schema({name: field}, required=()), self._limits)[name]


class Cursor:
    """A place in a document, and what lies before it."""

    def __init__(self, body: Text, limits: Limits, reserve: Reserve) -> None:
        self._body = memoryview(body)
        self.position = 0
        self.limits = limits
        self.reserve = reserve

    @property
    def left(self) -> int:
        """Return how many bytes of the document are left."""
        return len(self._body) - self.position

    def begin(self) -> None:
        """Go into the object that the document is.

        Raises:
            MalformedBodyError: it is none.
        """
        if self.window(3) == json_reader.BOM:
            raise MalformedBodyError(json_reader.BOM_FORBIDDEN)
        if self.match(_START) is None:
            raise MalformedBodyError("the JSON is not an object of named tensors")

    def window(self, size: int | None = None) -> bytes:
        """Return what comes next, at most `size` bytes of it, BLOCK_BYTES without."""
        return bytes(self._body[self.position : self.position + (size or BLOCK_BYTES)])

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Return what matches here, within BLOCK_BYTES, and go on behind it; None if nothing."""
        found = pattern.match(self._body, self.position, self.position + BLOCK_BYTES)
        self.position = self.position if found is None else found.end()
        return found

    def required(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """Return what matches here, and go on behind it.

        Raises:
            MalformedBodyError: nothing does.
        """
        found = self.match(pattern)
        if found is None:
            raise MalformedBodyError(MISSING)
        return found


def read_array(cursor: Cursor, name: str, field: Field, parse: Parse) -> Array:
    """Return the array that begins here, and go on behind it.

    Raises:
        MalformedBodyError: it is malformed, or nested too deeply.
        RowsError: rows of different lengths, or something that is no value of the field's kind.
    """
    rank = cursor.required(_OPENING)[0].count(b"[")
    if rank >= cursor.limits.json_depth:
        raise json_reader.too_deep(name, cursor.limits)
    reader = ArrayReader(name, field, rank, cursor.left, parse)
    ended = False
    while not ended:
        window, before = cursor.window(), reader.nbytes
        parsing = PARSING_BYTES * len(window)
        cursor.reserve(parsing)
        size, ended = reader.add(window, last=len(window) == cursor.left)
        cursor.position += size
        cursor.reserve(reader.nbytes - before - parsing)
    return reader.array()
