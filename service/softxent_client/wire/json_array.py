"""One array of a large JSON document, read in pieces that are cut at commas.

A piece is parsed as a document of its own, between as many brackets as are open around it. simdjson
flattens nested arrays, so their shape is read off the positions of brackets and commas: how many
elements stand before each bracket says how long each array is, at every level, whichever way the
pieces are cut. Time is linear in the bytes, and no piece holds the interpreter's lock for long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import simdjson

from softxent.errors import ROWS_NAMED
from softxent_client.wire import json_digits
from softxent_client.wire.errors import MalformedBodyError
from softxent_client.wire.json_reader import fast, overflow, ragged, wrong_values
from softxent_client.wire.json_values import kind_of, shown
from softxent_client.wire.schema import Array, Field

OPEN, CLOSE, COMMA, QUOTE, BRACE = b'[],"{'

FEW = 16
"""Before so many brackets of a piece, commas are counted; for more, their places are searched."""

Parse = Callable[[Any, bytes], Any]
"""Returns simdjson's view of a document, given a parser; refuses what is none."""

MISSING = "the body is not JSON: a bracket, comma, colon or value is missing or too many"


class _Level:
    """The arrays of one depth: how long each is that has ended, in what it holds directly."""

    def __init__(self) -> None:
        self.begun = 0
        self.opened = 1
        self.closed = 0
        self.ended = 0
        self.length: int | None = None
        self.wrong: list[tuple[int, int]] = []
        self.total = 0

    def add(self, begins: Array, ends: Array) -> tuple[int, int] | None:
        """Take note of arrays by what stands before them; return what first stands between two.

        That is its place, in what arrays of this depth hold, and the number of the array behind it.
        """
        opened = self.opened
        is_open = self.opened > self.closed
        self.opened += len(begins)
        begins = np.concatenate(([self.begun], begins)) if is_open else begins
        before = np.concatenate(([self.ended], ends))[int(is_open) :]
        gaps = np.flatnonzero(begins[int(is_open) :] != before[: len(begins) - int(is_open)])
        self._compare(ends - begins[: len(ends)])
        if len(begins) > len(ends):
            self.begun = int(begins[-1])
        if len(ends):
            self.ended = int(ends[-1])
        return (int(before[gaps[0]]), opened + int(gaps[0])) if gaps.size else None

    def _compare(self, lengths: Array) -> None:
        if self.length is None and len(lengths):
            self.length = int(lengths[0])
        wrong = np.flatnonzero(lengths != self.length)
        room = ROWS_NAMED - len(self.wrong)
        self.wrong += [(self.closed + int(row), int(lengths[row])) for row in wrong[:room]]
        self.total += wrong.size
        self.closed += len(lengths)


class _Marks:
    """Brackets and commas of a piece that stand in no string, and how deep the brackets are."""

    def __init__(self, window: bytes, depth: int) -> None:
        self._characters = np.frombuffer(window, np.uint8)
        self._outside: Array | None = None
        if b'"' in window:
            self._outside = np.bitwise_xor.accumulate(self._characters == QUOTE) == 0
        self._depth = depth
        self._stop = len(window)
        self._places = np.empty(0, np.int64)
        if b"[" in window or b"]" in window:
            self._places = self._found((self._characters == OPEN) | (self._characters == CLOSE))
        self._opens = self._characters[self._places] == OPEN
        self._after = depth + np.cumsum(2 * self._opens.astype(np.int64) - 1)
        self._brace = -1
        if b"{" in window:
            self._brace = int(np.append(self._found(self._characters == BRACE), -1)[0])
        ends = np.flatnonzero(self._after == 0)[:1]
        self.end = int(self._places[ends[0]]) if ends.size else None
        self.last_comma = self._last_comma(window)

    def _found(self, mask: Array) -> Array:
        return np.flatnonzero(mask if self._outside is None else mask & self._outside)

    def _last_comma(self, window: bytes) -> int | None:
        if self._outside is None:
            return place if (place := window.rfind(b",")) >= 0 else None
        commas = self._found(self._characters == COMMA)
        return int(commas[-1]) if commas.size else None

    def until(self, size: int) -> None:
        """Leave out what stands at `size` and behind."""
        self._stop = size
        self._characters = self._characters[:size]
        self._outside = None if self._outside is None else self._outside[:size]
        count = int(np.searchsorted(self._places, size))
        self._places, self._opens = self._places[:count], self._opens[:count]
        self._after = self._after[:count]
        # The depth of the array that each bracket begins or ends.
        depths = (self._after + ~self._opens).astype(np.int16)
        self._order = np.argsort(depths, kind="stable")
        counts = np.bincount(depths + 1, minlength=self._depth + 3)
        self._bounds: list[int] = np.cumsum(counts).tolist()

    @cached_property
    def _is_comma(self) -> Array:
        found = self._characters == COMMA
        return np.asarray(found if self._outside is None else found & self._outside)

    @property
    def depth_after(self) -> int:
        return int(self._after[-1]) if self._after.size else self._depth

    def too_deep(self, rank: int) -> int | None:
        """Return where an object or an array stands in the place of a value, None if nowhere."""
        deep = self._places[self._after > rank][:1].tolist()
        if 0 <= self._brace < self._stop:
            deep.append(self._brace)
        return min(deep, default=None)

    def depths(self) -> list[int]:
        """Return the depths of arrays that begin or end here, the deepest first."""
        bounds = self._bounds
        return [d for d in range(len(bounds) - 2, 0, -1) if bounds[d] < bounds[d + 1]]

    def at(self, depth: int) -> tuple[Array, Array]:
        """Return which brackets begin and which end arrays of this depth."""
        bounds: list[int] = [*self._bounds[depth : depth + 2], 0, 0]
        first, last = bounds[:2]
        which = self._order[first:last]
        begins = self._opens[which]
        return which[begins], which[~begins]

    def commas_before(self, place: int) -> int:
        return int(np.count_nonzero(self._is_comma[:place]))

    def opened_before(self, place: int, depth: int) -> int:
        return int(np.searchsorted(self._places[self.at(depth)[0]], place))

    def elements_before(self, which: Array, empty: Array) -> Array:
        """Return how many elements of the piece stand before brackets.

        One comma parts one element from the next, whatever brackets stand between them, and an
        array that is `empty` has none. Before a bracket that ends an array stands one more.
        """
        places = self._places[which]
        if len(places) <= FEW:
            commas = np.array([self.commas_before(place) for place in places.tolist()], np.int64)
        else:
            commas = np.searchsorted(np.flatnonzero(self._is_comma), places)
        ending = ~self._opens[which]
        return np.asarray(commas + ending - np.searchsorted(empty, which, side="right"))

    def empty(self, text: bytes, count: int, *, first: bool) -> Array:
        """Return which brackets end empty arrays, where there are `count` elements."""
        if not self._places.size or count == np.count_nonzero(self._is_comma) + 1:
            return np.empty(0, np.int64)
        starts = np.concatenate(([-1], self._places[:-1]))
        follows = np.concatenate(([first], self._opens[:-1]))
        ends = np.flatnonzero(follows & ~self._opens)
        gaps = self._places[ends] - starts[ends]
        blank = gaps == 1
        for place in np.flatnonzero(gaps > 1).tolist():
            end = int(self._places[ends[place]])
            blank[place] = not text[end - int(gaps[place]) + 1 : end].strip()
        return np.asarray(ends[blank])


class ArrayReader:
    """Reads an array that begins with `rank` brackets, which are left out of the first piece."""

    def __init__(self, name: str, field: Field, rank: int, room: int, parse: Parse) -> None:
        self._name = name
        self._dtype = field.json_dtype
        self._kind = kind_of(field.json_dtype)
        self._rank = rank
        self._parse = parse
        self._parser = simdjson.Parser()
        self._levels = [_Level() for _ in range(rank)]
        self._depth = rank
        self._count = 0
        self._begun = False
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
        marks = _Marks(window, self._depth)
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

    def _piece(self, text: bytes, marks: _Marks, *, ended: bool) -> None:
        self._check_ends(text, ended=ended)
        self._check_depth(text, marks)
        depth = 1 if ended else marks.depth_after
        root = self._parse(self._parser, b"[" * self._depth + text + b"]" * depth)
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
        bare = text.strip(b" \t\r\n")
        begins_wrong = self._begun and (not bare or bare[0] == CLOSE)
        ends_wrong = not ended and (not bare or bare[-1] == OPEN)
        if begins_wrong or ends_wrong:
            raise MalformedBodyError(MISSING)

    def _check_depth(self, text: bytes, marks: _Marks) -> None:
        place = marks.too_deep(self._rank)
        if place is None:
            return
        shown_as = "an object" if text[place] == BRACE else "an array"
        raise wrong_values(self._name, [(self._row_at(marks, place), shown_as)], 1, self._kind)

    def _row_at(self, marks: _Marks, place: int) -> int:
        if self._rank == 1:
            return self._count + marks.commas_before(place)
        return self._levels[-1].opened - 1 + marks.opened_before(place, self._rank)

    def _measure(self, text: bytes, marks: _Marks, count: int) -> Array:
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
        convert = self._kind.convert
        values = np.zeros(len(items), self._kind.dtype)
        converted = [convert(item) for item in items]
        wrong = [place for place, value in enumerate(converted) if value is None]
        for place in wrong:
            converted[place] = 0
        values[:] = converted
        self._note(0, self._faults, np.array(wrong, np.int64), items, rows_begin)
        return values

    def _store(self, values: Array, text: bytes, rows_begin: Array) -> None:
        narrow = values
        if values.dtype != self._dtype:
            narrow = json_digits.rounded(values, self._dtype, lambda: _digits(text, len(values)))
            lost = np.flatnonzero(np.isinf(narrow) & np.isfinite(values))
            self._note(1, self._overflows, lost, values, rows_begin)
        self._flat[self._count : self._count + len(values)] = narrow
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

    def array(self) -> Array:
        """Return all of it, once it has ended."""
        shape = [level.length or 0 for level in self._levels]
        return self._flat[: self._count].reshape(shape)


def _leaves(root: Any) -> list[Any]:
    values: list[Any] = []
    for value in root:
        if type(value) is simdjson.Array:
            values += _leaves(value)
        else:
            values.append(value)
    return values


def _digits(text: bytes, count: int) -> list[bytes]:
    texts = json_digits.digits_of_piece(text)
    return texts if len(texts) == count else [one for one in texts if one]
