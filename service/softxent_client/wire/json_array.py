"""One array of a large JSON document, read in pieces that are cut at commas.

A piece is parsed as a document of its own, between as many brackets as are open around it, and the
lengths of arrays are compared by the positions of the brackets. Time is linear in the bytes, and no
piece holds the interpreter's lock for long.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import simdjson

from softxent.errors import ROWS_NAMED
from softxent_client.wire import json_digits
from softxent_client.wire.errors import MalformedBodyError
from softxent_client.wire.json_reader import (
    fast,
    keep_parser,
    opened,
    overflow,
    ragged,
    take_parser,
    wrong_values,
)
from softxent_client.wire.json_structure import BRACE, CLOSE, OPEN, Level, Marks
from softxent_client.wire.json_values import kind_of, shown
from softxent_client.wire.schema import Array, Field

Parse = Callable[[Any, bytes], Any]
"""Returns simdjson's view of a document, given a parser; refuses what is none."""

SPACE = b" \t\r\n"

MOST_SPACE = 64
"""Behind a row that ends with more white space, brackets are looked for."""

MISSING = "the body is not JSON: a bracket, comma, colon or value is missing or too many"


class ArrayReader:
    """Reader of an array that begins with `rank` brackets, which the first piece lacks."""

    def __init__(self, name: str, field: Field, rank: int, room: int, parse: Parse) -> None:
        self._name = name
        self._dtype = field.json_dtype
        self._kind = kind_of(field.json_dtype)
        self._rank = rank
        self._parse = parse
        self._parser = take_parser()
        self._levels = [Level() for _ in range(rank)]
        self._depth = rank
        self._count = 0
        self._begun = False
        self._plain = rank <= 2
        # An element takes two bytes of text or more; pages come into being as they are written.
        self._flat = np.empty(room // 2 + 1, self._dtype)
        self._faults: list[tuple[int, str | int | float]] = []
        self._overflows: list[tuple[int, float]] = []
        self._totals = [0, 0]
        self._last_rows = [-1, -1]

    @property
    def nbytes(self) -> int:
        """Return how many bytes its elements take by now."""
        return self._count * self._dtype.itemsize

    def add(self, window: bytes, *, last: bool) -> tuple[int, bool]:
        """Read the array on; return how many bytes were read, and whether the array has ended.

        Args:
            window: what follows of the document; `last` says that nothing comes after it.
            last: see there.
        """
        if self._plain and (plain := self._plain_piece(window)):
            return plain + 1, False
        self._plain = False
        marks = Marks(window, self._depth)
        size = marks.end if marks.end is not None else marks.last_comma
        if size is None:
            if last:
                raise MalformedBodyError(MISSING)
            raise MalformedBodyError(
                f"{self._name} holds a value, or white space, of more than {len(window)} bytes",
                field=self._name,
            )
        marks.until(size)
        self._piece(window[:size], marks, ended=marks.end is not None)
        return size + 1, marks.end is not None

    def _plain_piece(self, window: bytes) -> int:
        """Read plain numbers, in rows of one length; return their size, 0 where it is not so.

        simdjson's lengths of rows then say all that marks would, in a third of the time.
        """
        size = window.rfind(b",")
        # Behind the array comes a name, or the end of the document.
        if size < 0 or b'"' in window or b"}" in window:
            return 0
        text = memoryview(window)[:size]
        ends_row = window[max(0, size - MOST_SPACE) : size].rstrip(SPACE).endswith(b"]")
        depth = 1 if ends_row else self._rank
        body = self._wrapped(text, depth)
        try:
            root = self._parse(self._parser, body)
        except MalformedBodyError:
            return 0
        values = fast(root, self._kind)
        if values is None or not len(values):
            return 0
        narrow = self._cast(values, lambda: text.tobytes())
        if not np.isfinite(narrow).all() or not self._takes_rows(root, body, depth):
            return 0
        self._keep(narrow)
        self._depth, self._begun = depth, True
        return size

    def _takes_rows(self, root: Any, body: bytes, depth: int) -> bool:
        """Take note of the rows of a piece; tell whether their lengths say all."""
        lengths = list(map(len, root)) if self._rank == 2 else []
        # An array in the place of a number adds a bracket and is otherwise invisible.
        if opened(body) != 1 + len(lengths):
            return False
        return self._rank == 1 or self._levels[1].add_rows(
            lengths, self._count, stays_open=depth == 2
        )

    def _wrapped(self, text: bytes | memoryview, depth: int) -> bytes:
        """Return a piece as a document of its own, at whose end arrays of `depth` are open."""
        return b"".join((b"[" * self._depth, text, b"]" * depth))

    def _piece(self, text: bytes, marks: Marks, *, ended: bool) -> None:
        self._check_ends(text, ended=ended)
        self._check_depth(text, marks)
        depth = 1 if ended else marks.depth_after
        root = self._parse(self._parser, self._wrapped(text, depth))
        values = fast(root, self._kind)
        items = _leaves(root) if values is None else []
        rows_begin = self._measure(text, marks, len(items) if values is None else len(values))
        if values is None:
            values = self._converted(items, rows_begin)
        self._store(values, text, rows_begin)
        self._depth, self._begun = depth, True
        if ended:
            self._close()

    def _check_ends(self, text: bytes, *, ended: bool) -> None:
        """Refuse a comma without a value before or after it, which the brackets would hide."""
        bare = text.strip(SPACE)
        begins_wrong = self._begun and (not bare or bare[0] == CLOSE)
        ends_wrong = not ended and (not bare or bare[-1] == OPEN)
        if begins_wrong or ends_wrong:
            raise MalformedBodyError(MISSING)

    def _check_depth(self, text: bytes, marks: Marks) -> None:
        place = marks.too_deep(self._rank)
        if place is None:
            return
        shown_as = "an object" if text[place] == BRACE else "an array"
        raise wrong_values(self._name, [(self._row_at(marks, place), shown_as)], 1, self._kind)

    def _row_at(self, marks: Marks, place: int) -> int:
        if self._rank == 1:
            return self._count + marks.commas_before(place)
        return self._levels[-1].opened - 1 + marks.opened_before(place, self._rank)

    def _measure(self, text: bytes, marks: Marks, count: int) -> Array:
        """Compare lengths at every depth; return how many elements come before each new row."""
        empty = marks.empty(text, count, first=not self._begun)
        rows_begin = np.empty(0, np.int64)
        for depth in marks.depths():
            opens, closes = marks.at(depth)
            if depth == self._rank:
                units = [self._count + marks.elements_before(w, empty) for w in (opens, closes)]
                rows_begin = units[0]
            else:
                below = marks.at(depth + 1)[0]
                before = self._levels[depth].opened - len(below)
                units = [before + np.searchsorted(below, which) for which in (opens, closes)]
            stray = self._levels[depth - 1].add(*units)
            if stray is not None:
                self._refuse_stray(text, *stray)
        rows = self._levels[-1]
        if self._rank > 1 and rows.opened == rows.closed and rows.ended < self._count + count:
            self._refuse_stray(text, rows.ended, rows.closed)
        return rows_begin

    def _refuse_stray(self, text: bytes, element: int, row: int) -> None:
        """Refuse a value in the place of a row, which is where reading ends."""
        texts = [one for one in json_digits.digits_of_piece(text) if one]
        value = shown(simdjson.Parser().parse(texts[element - self._count]))
        rows = self._levels[-1]
        wrong = [(at, length) for at, length in rows.wrong if at < row]
        raise ragged(self._name, rows.length or 0, [*wrong, (row, value)], len(wrong) + 1)

    def _converted(self, items: list[Any], rows_begin: Array) -> Array:
        converted = self._kind.convert_all(items)
        if None not in converted:
            return np.array(converted, self._kind.dtype)
        wrong = np.array([value is None for value in converted]).nonzero()[0]
        self._note(0, self._faults, wrong, items, rows_begin)
        # Nothing of an array with faults is used.
        return np.zeros(len(items), self._kind.dtype)

    def _store(self, values: Array, text: bytes, rows_begin: Array) -> None:
        narrow = self._cast(values, lambda: text)
        if not np.isfinite(narrow).all():
            lost = np.flatnonzero(np.isinf(narrow) & np.isfinite(values))
            self._note(1, self._overflows, lost, values, rows_begin)
        self._keep(narrow)

    def _cast(self, values: Array, text: Callable[[], bytes]) -> Array:
        if values.dtype == self._dtype:
            return values
        return json_digits.rounded(values, self._dtype, lambda: _digits(text(), len(values)))

    def _keep(self, values: Array) -> None:
        self._flat[self._count : self._count + len(values)] = values
        self._count += len(values)

    def _note(
        self, which: int, kept: list[Any], places: Array, values: Any, rows_begin: Array
    ) -> None:
        """Keep the first rows at fault with the first wrong value of each, and count all."""
        if not len(places):
            return
        rows = self._count + places
        if self._rank > 1:
            opened = self._levels[-1].opened - len(rows_begin)
            rows = opened - 1 + np.searchsorted(rows_begin, rows, side="right")
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rows = rows[first]
        new = rows > self._last_rows[which]
        rows, first = rows[new], first[new]
        for row, place in zip(rows.tolist(), first.tolist(), strict=True):
            if len(kept) == ROWS_NAMED:
                break
            value = values[int(places[place])]
            kept.append((row, float(value) if which else shown(value)))
        self._totals[which] += len(rows)
        if len(rows):
            self._last_rows[which] = int(rows[-1])

    def _close(self) -> None:
        self._levels[0].length = self._count if self._rank == 1 else self._levels[1].opened
        for level in self._levels[1:]:
            if level.total:
                raise ragged(self._name, level.length or 0, level.wrong, level.total)
        if self._faults:
            raise wrong_values(self._name, self._faults, self._totals[0], self._kind)
        if self._overflows:
            raise overflow(self._name, self._dtype, self._overflows, self._totals[1])
        keep_parser(self._parser)

    def array(self) -> Array:
        """Return all of it, once it has ended."""
        shape = [level.length or 0 for level in self._levels]
        return self._flat[: self._count].reshape(shape)


def _leaves(root: Any) -> list[Any]:
    values: list[Any] = root.as_list()
    kinds = set(map(type, values))
    while list in kinds:
        if len(kinds) == 1:
            values = list(itertools.chain.from_iterable(values))
        else:
            values = [leaf for v in values for leaf in (v if type(v) is list else (v,))]
        kinds = set(map(type, values))
    return values


def _digits(text: bytes, count: int) -> list[bytes]:
    texts = json_digits.digits_of_piece(text)
    return texts if len(texts) == count else [one for one in texts if one]
