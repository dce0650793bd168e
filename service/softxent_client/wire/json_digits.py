"""Decimal digits to floating-point types, rounded once.

simdjson gives the nearest float64. Rounding that on to a narrower type is the rounding of the
digits themselves, unless the float64 lies exactly between two numbers of the narrower type: there
the digits say which side they were on. Such a float64 is moved by one step to their side first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from softxent.rounding import round_into
from softxent_client.wire.errors import MalformedBodyError
from softxent_client.wire.schema import Array

Digits = Callable[[], Sequence[bytes | str]]
"""Returns the texts of all elements."""

_LOW_BITS = {"float32": 28, "float16": 41, "bfloat16": 44}
BETWEEN = {np.dtype(name): np.int64((1 << bits) - 1) for name, bits in _LOW_BITS.items()}
"""Low bits that are all 0 in a float64 that lies between two numbers of the type."""

SHORT = 12
"""A text of so many characters without exponent is exact if its float64 lies between two float32:
k / 10^q, k < 10^12, q < 12, differs from j / 2^f, j < 2^25, not at all or by more than half a step
of float64."""

MEDIUM = 64
"""Texts of no more characters are compared as integers."""

SHORT_DOCUMENT = 8 << 10
"""Documents of no more bytes are not looked through for slow numbers: that took 10 us."""

SLOW_CHARACTERS = 22
"""Longer numbers may have 20 digits or more, for which simdjson takes up to 10 us each."""

FEW = 256
"""So many slow numbers of a document are left to simdjson: 3 ms at most. Looking for the places of
commas takes 0.2 ms in 256 KiB."""

_SLOW = re.compile(rb'\d(?<![\w.+"]\d)(?<![eE]-\d)[\d.]{18,}+(?:[eE][+-]?\d++)?(?![\w.+"-])')
"""A number without its sign, not an exponent. A pattern that begins with an assertion is six times
slower."""
_SPACE_AND_BRACKETS = b"[] \t\r\n"


def rounded(wide: Array, dtype: np.dtype[Any], digits: Digits) -> Array:
    """Return float64 `wide`, the nearest to `digits`, as the `dtype` nearest to `digits`."""
    narrow = _cast(wide, dtype)
    flat = wide.reshape(-1)
    low = flat.view(np.int64) & BETWEEN[dtype]
    if low.all():
        return narrow
    between = low == 0
    between &= narrow.reshape(-1).astype(np.float64) != flat
    places = between.nonzero()[0]
    if not places.size or not (places := places[np.isfinite(flat[places])]).size:
        return narrow
    texts = digits()
    moved = flat.copy()
    for place in places.tolist():
        moved[place] = _toward(float(flat[place]), texts[place])
    return _cast(moved.reshape(wide.shape), dtype)


def _cast(wide: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return wide.astype(dtype)
    narrow = np.empty(wide.shape, dtype)
    round_into(narrow, wide)
    return narrow


def _toward(number: float, text: bytes | str) -> float:
    """Return `number`, or the float64 next to it on the side of the exact value of `text`."""
    text = text if isinstance(text, str) else text.decode()
    plain = "e" not in text and "E" not in text
    if plain and len(text) <= SHORT:
        return number
    if plain and len(text) <= MEDIUM:
        return _toward_plain(number, text)
    value = Decimal(text)
    if value == number:
        return number
    return math.nextafter(number, math.inf if value > number else -math.inf)


def _toward_plain(number: float, text: str) -> float:
    """Do `_toward` for a short text without exponent, in integers: a third of the time."""
    whole, _, fraction = text.partition(".")
    numerator, denominator = number.as_integer_ratio()
    given, exact = int(whole + fraction) * denominator, numerator * 10 ** len(fraction)
    if given == exact:
        return number
    return math.nextafter(number, math.inf if given > exact else -math.inf)


def digits_of_piece(text: bytes) -> list[bytes]:
    """Return the texts of the elements of an array that holds no object and no empty array."""
    return text.translate(None, _SPACE_AND_BRACKETS).split(b",")


def digits_of_document(text: bytes, *path: str | int) -> list[Any]:
    """Return the texts of an array of numbers of a whole, small document that is known to be JSON.

    Raises:
        MalformedBodyError: something of it is nested deeper than Python reads.
    """
    try:
        # Of members of one name simdjson keeps the first.
        value: Any = json.loads(
            text,
            parse_float=str,
            parse_int=str,
            object_pairs_hook=lambda pairs: dict(reversed(pairs)),
        )
    except RecursionError:
        raise MalformedBodyError("the JSON is nested too deeply") from None
    for step in path:
        value = value[step]
    return list(_leaves(value))


def _leaves(value: Any) -> list[Any]:
    while value and isinstance(value[0], list):
        value = [leaf for row in value for leaf in row]
    return list(value)


def shortened(text: bytes) -> bytes:
    """Return JSON whose longest numbers are written with the fewest digits that read the same.

    simdjson reads more than 19 digits by long division, 0.3 s a MB where an exponent follows;
    orjson reads the same in 0.005 s.
    """
    if len(text) <= SHORT_DOCUMENT:
        return text
    is_comma = np.frombuffer(text, np.uint8) == ord(",")
    # Of 23 bytes without a comma, 20 are five words: whole tests are a tenth of the time.
    empty = is_comma[: len(text) // 4 * 4].view(np.uint32) == 0
    four = empty[1:] & empty[:-1]
    four = four[2:] & four[:-2]
    five = four[1:] & four[:-1]
    if np.count_nonzero(five[1:] > five[:-1]) < FEW:
        return text
    edges = np.concatenate(([-1], is_comma.nonzero()[0], [len(text)]))
    long = (edges[1:] - edges[:-1] > SLOW_CHARACTERS + 1).nonzero()[0].tolist()
    if len(long) <= FEW:
        return text
    parts = text.split(b",")
    for place, part in zip(long, _each_rewritten([parts[place] for place in long]), strict=True):
        parts[place] = part
    return b",".join(parts)


def _each_rewritten(parts: list[bytes]) -> list[bytes]:
    return rewritten(b",".join(parts)).split(b",")


def rewritten(text: bytes) -> bytes:
    """Return JSON whose numbers of 19 digits or more, integers among them, are written anew.

    What looks like a number and is none stays as it is.
    """
    found = _SLOW.findall(text)
    if not found:
        return text
    try:
        values = orjson.loads(b"[%s]" % b",".join(found))
        texts = iter(orjson.dumps(values)[1:-1].split(b","))
    except orjson.JSONDecodeError:
        texts = map(_anew, found)
    return _SLOW.sub(lambda _: next(texts), text)


def _anew(number: bytes) -> bytes:
    """Return a number written anew, or what is none as it is."""
    try:
        return orjson.dumps(orjson.loads(number))
    except orjson.JSONDecodeError:
        return number
