"""Brackets and commas of a piece of a JSON array, and the lengths that they say.

simdjson flattens nested arrays, so their shape is read off the positions of brackets and commas:
how many elements stand before each bracket says how long each array is, at every level, whichever
way the pieces are cut. Time is linear in the bytes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from softxent.errors import ROWS_NAMED
from softxent_client.wire.schema import Array

DEEPEST = 2**15 - 2
"""No array may be as deep: numbers of 16 bits are sorted in linear time."""

OPEN, CLOSE, COMMA, QUOTE, BRACE = b'[],"{'


def outside_strings(characters: Array, *, inside: bool = False) -> Array:
    """Return which characters stand in no string; `inside` says that the first one does."""
    return np.asarray(np.bitwise_xor.accumulate(characters == QUOTE) == inside)


def brackets(characters: Array, outside: Array | None) -> tuple[Array, Array]:
    """Return where brackets and braces stand, and which they are."""
    # Two passes instead of seven: beside []{} these bits are those of Y, y, _ and DEL alone.
    found = (characters | 0x26) == 0x7F
    places = (found if outside is None else found & outside).nonzero()[0]
    return places, characters[places]


class Level:
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

    def add_rows(self, lengths: list[int], before: int, *, stays_open: bool) -> bool:
        """Take note of arrays by their lengths, the first of them one that is open, if one is.

        Return False, and note nothing, if one is empty here or ends with another length than the
        first of all.

        Args:
            lengths: how much each holds of what comes now.
            before: how much comes before it.
            stays_open: the last one does not end here.
        """
        is_open = self.opened > self.closed
        whole = [lengths[0] + before - self.begun, *lengths[1:]] if is_open else lengths
        ended = whole[:-1] if stays_open else whole
        length = ended[0] if self.length is None and ended else self.length
        if 0 in lengths or not {length}.issuperset(ended):
            return False
        inside = sum(lengths[:-1])
        if len(lengths) > is_open:
            self.begun = before + inside
        if ended:
            self.ended = before + inside + (0 if stays_open else lengths[-1])
        self.opened += len(lengths) - is_open
        self.closed += len(ended)
        self.length = length
        return True

    def _compare(self, lengths: Array) -> None:
        if self.length is None and len(lengths):
            self.length = int(lengths[0])
        wrong = np.flatnonzero(lengths != self.length)
        room = ROWS_NAMED - len(self.wrong)
        self.wrong += [(self.closed + int(row), int(lengths[row])) for row in wrong[:room]]
        self.total += wrong.size
        self.closed += len(lengths)


class Marks:
    """Brackets and commas of a piece that stand in no string, and how deep the brackets are."""

    def __init__(self, window: bytes, depth: int) -> None:
        """Find the brackets of what begins in an array of this depth."""
        self._characters = np.frombuffer(window, np.uint8)
        self._outside = outside_strings(self._characters) if b'"' in window else None
        self._depth = depth
        self._places, kinds = brackets(self._characters, self._outside)
        self._opens = kinds == OPEN
        self._brace: int | None = None
        is_bracket = self._opens | (kinds == CLOSE)
        if not is_bracket.all():
            self._brace = next(iter(self._places[kinds == BRACE][:1].tolist()), None)
            self._places, self._opens = self._places[is_bracket], self._opens[is_bracket]
        self._after = depth + np.cumsum(2 * self._opens.astype(np.int64) - 1)
        ends = np.flatnonzero(self._after == 0)[:1]
        self.end = int(self._places[ends[0]]) if ends.size else None
        self.last_comma = self._last_comma(window)

    def _last_comma(self, window: bytes) -> int | None:
        if self._outside is None:
            return place if (place := window.rfind(b",")) >= 0 else None
        commas = np.flatnonzero(self._is_comma)
        return int(commas[-1]) if commas.size else None

    def until(self, size: int) -> None:
        """Leave out what stands at `size` and behind."""
        self._characters = self._characters[:size]
        self._outside = None if self._outside is None else self._outside[:size]
        count = int(np.searchsorted(self._places, size))
        self._places, self._opens = self._places[:count], self._opens[:count]
        self._after = self._after[:count]
        # The depth of the array that each bracket begins or ends; what is too deep is refused.
        depths = np.minimum(self._after + ~self._opens, DEEPEST).astype(np.int16)
        self._order = np.argsort(depths, kind="stable")
        counts = np.bincount(depths + 1, minlength=self._depth + 3)
        self._bounds: list[int] = np.cumsum(counts).tolist()
        self._at: dict[int, tuple[Array, Array]] = {}

    @property
    def _is_comma(self) -> Array:
        found = self._characters == COMMA
        return np.asarray(found if self._outside is None else found & self._outside)

    @cached_property
    def _commas(self) -> Array:
        """How many commas stand before each bracket, and in all."""
        counts = np.cumsum(self._is_comma, dtype=np.int32)
        return np.append(counts[self._places], counts[-1])

    @property
    def depth_after(self) -> int:
        """Return how deep the brackets are at the end."""
        return int(self._after[-1]) if self._after.size else self._depth

    def too_deep(self, rank: int) -> int | None:
        """Return where an object or an array stands in the place of a value, None if nowhere."""
        deep = self._places[self._after > rank][:1].tolist()
        if self._brace is not None and self._brace < len(self._characters):
            deep.append(self._brace)
        return min(deep, default=None)

    def depths(self) -> list[int]:
        """Return the depths of arrays that begin or end here, the deepest first."""
        bounds = self._bounds
        return [d for d in range(len(bounds) - 2, 0, -1) if bounds[d] < bounds[d + 1]]

    def at(self, depth: int) -> tuple[Array, Array]:
        """Return which brackets begin and which end arrays of this depth."""
        if depth not in self._at:
            bounds: list[int] = [*self._bounds[depth : depth + 2], 0, 0]
            first, last = bounds[:2]
            which = self._order[first:last]
            begins = self._opens[which]
            self._at[depth] = which[begins], which[~begins]
        return self._at[depth]

    def commas_before(self, place: int) -> int:
        """Return how many commas stand before a place."""
        return int(np.count_nonzero(self._is_comma[:place]))

    def opened_before(self, place: int, depth: int) -> int:
        """Return how many arrays of this depth begin before a place."""
        return int(np.searchsorted(self._places[self.at(depth)[0]], place))

    def elements_before(self, which: Array, empty: Array) -> Array:
        """Return how many elements of the piece stand before brackets.

        One comma parts one element from the next, whatever brackets stand between them, and an
        array that is `empty` has none. Before a bracket that ends an array stands one more.
        """
        counts = self._commas[which] + ~self._opens[which]
        return np.asarray(counts - np.searchsorted(empty, which, side="right"))

    def empty(self, text: bytes, count: int, *, first: bool) -> Array:
        """Return which brackets end empty arrays, where there are `count` elements."""
        if not self._places.size or count == self._commas[-1] + 1:
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
