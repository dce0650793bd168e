"""The data of a large inference request, lifted out of its JSON, so that it is read in pieces.

What is left has a marker in the place of each array. A marker is a random number of 60 bits more
than what a client could have written there itself.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

import numpy as np
import simdjson

from softxent_client.wire import json_blocks
from softxent_client.wire.errors import MalformedBodyError
from softxent_client.wire.json_array import MISSING
from softxent_client.wire.json_blocks import Cursor, Reserve, read_array
from softxent_client.wire.json_structure import CLOSE, OPEN, brackets, outside_strings
from softxent_client.wire.limits import Limits
from softxent_client.wire.oip_document import parse_with_words
from softxent_client.wire.schema import Array, Field

FIRST_BYTES = 1 << 10
"""Where an array ends is looked for in so many bytes, then in twice as many, up to one piece."""

_NAME = b'"data"'
_IN_DEPTH = re.compile(rb'["\[]')
_DATA = re.compile(rb'"data"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')


class Lifted:
    """Places of the arrays of data in a text.

    Attributes:
        rest: the text with markers in their places.
    """

    def __init__(self, text: bytes, limits: Limits, reserve: Reserve) -> None:
        """Find them.

        Raises:
            MalformedBodyError: one does not end, or what is left is longer than one piece.
        """
        self._text = text
        self._limits = limits
        self._reserve = reserve
        self._first = secrets.randbits(60)
        self._begins: list[int] = []
        self.rest = self._lift()

    def _lift(self) -> bytes:
        parts: list[bytes] = []
        room = json_blocks.BLOCK_BYTES
        kept = position = 0
        while room > 0 and (at := self._text.find(_NAME, position, kept + room)) >= 0:
            found = _DATA.match(self._text, at, at + json_blocks.BLOCK_BYTES)
            position = at + len(_NAME)
            if found is not None:
                marker = b"[%d]" % (self._first + len(self._begins))
                parts += [self._text[kept : found.end()], marker]
                room -= found.end() - kept + len(marker)
                self._begins.append(found.end())
                kept = position = self._end(found.end())
        if len(self._text) - kept > room:
            most = json_blocks.BLOCK_BYTES
            raise MalformedBodyError(f"the JSON beside its data has more than {most} bytes")
        return b"".join([*parts, self._text[kept:]])

    def _end(self, position: int) -> int:
        """Return what follows the array that begins at `position`."""
        end = self._text.find(b"]", position, position + FIRST_BYTES)
        if end > 0 and not _IN_DEPTH.search(self._text, position + 1, end):
            return end + 1
        depth, inside, size = 0, False, FIRST_BYTES
        while window := self._text[position : position + size]:
            self._reserve(0)
            size = min(2 * size, json_blocks.BLOCK_BYTES)
            characters = np.frombuffer(window, np.uint8)
            outside = None
            if inside or b'"' in window:
                outside = outside_strings(characters, inside=inside)
                inside = not outside[-1]
            places, kinds = brackets(characters, outside)
            steps = (kinds == OPEN).astype(np.int64) - (kinds == CLOSE)
            depths = depth + np.cumsum(steps)
            ends = places[(depths == 0) & (steps < 0)][:1]
            if ends.size:
                return position + int(ends[0]) + 1
            depth += int(steps.sum())
            position += len(window)
        raise MalformedBodyError(MISSING)

    def array(self, name: str, value: Any, field: Field) -> Array:
        """Return the array that a marker stands for.

        Raises:
            MalformedBodyError: `value` is no marker, or the array is malformed.
            RowsError: as `json_blocks.read_array`.
        """
        marked = value.as_list() if isinstance(value, simdjson.Array) else [None]
        if len(marked) != 1 or type(marked[0]) is not int:
            raise MalformedBodyError(f"data of {name} must be an array, its name bare", field=name)
        index = marked[0] - self._first
        if not 0 <= index < len(self._begins):
            raise MalformedBodyError(f"data of {name} must be an array, its name bare", field=name)
        cursor = Cursor(self._text, self._limits, self._reserve)
        cursor.position = self._begins[index]
        return read_array(cursor, name, field, parse_with_words)
