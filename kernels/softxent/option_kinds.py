"""Kinds of option values: validation, reading from text, JSON schema."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from softxent.errors import OptionError
from softxent.evaluations import EVERY_OUTPUT, OUTPUTS
from softxent.hints import LONGEST, unknown

Json = dict[str, Any]


class Kind(Protocol):
    """The values that an option may have."""

    def check(self, field: str, value: object, /) -> object:
        """Return a value as it is kept; refuse what is none of this kind.

        Raises:
            OptionError: it is none.
        """

    def read(self, field: str, text: str, /) -> object:
        """Return the value of a text of a query string or command line, still to be checked.

        Raises:
            OptionError: it is no text of such a value.
        """

    def schema(self) -> Json:
        """Return the JSON schema of a value."""


@dataclass(frozen=True)
class OrNone:
    """None, written "none", or a value of another kind."""

    kind: Kind

    def check(self, field: str, value: object, /) -> object:
        return None if value is None else self.kind.check(field, value)

    def read(self, field: str, text: str, /) -> object:
        return None if text == "none" else self.kind.read(field, text)

    def schema(self) -> Json:
        return {"oneOf": [self.kind.schema(), {"const": "none"}]}


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, field: str, value: object, /) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise OptionError(
                f"{field} must be one of {', '.join(self.words)}, not {_shown(value)}", field=field
            )
        return value

    def read(self, _field: str, text: str, /) -> str:
        return text

    def schema(self) -> Json:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class Number:
    """A finite number of a range.

    Attributes:
        least: the least one; None is no bound.
        above: a number that it must be above; None is no bound.
        most: the largest one; None is no bound.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def check(self, field: str, value: object, /) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            message = f"{field} must be a number that is {self._range}, not {_shown(value)}"
            raise OptionError(message, field=field)
        number = _as_float(value)
        if not self._holds(number):
            raise OptionError(f"{field} must be {self._range}, not {number!r}", field=field)
        return number

    def read(self, field: str, text: str, /) -> float:
        if not _FLOAT.fullmatch(text):
            raise _no_number(field, "a decimal number such as 0.1 or 1e-4", text, _FLOAT)
        return float(text)

    def schema(self) -> Json:
        bounds = {"minimum": self.least, "exclusiveMinimum": self.above, "maximum": self.most}
        return {"type": "number"} | {
            name: int(bound) for name, bound in bounds.items() if bound is not None
        }

    def _holds(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
        )

    @property
    def _range(self) -> str:
        if self.most is not None:
            return f"in [{self.least:g}, {self.most:g}]"
        if self.above is not None:
            return f"finite and > {self.above:g}"
        return "finite" if self.least is None else "finite and not negative"


@dataclass(frozen=True)
class Integer:
    """An integer that int64 holds."""

    def check(self, field: str, value: object, /) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise OptionError(
                f"{field} must be an integer or None, not {_shown(value)}", field=field
            )
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise OptionError(
                f"{field} must lie in [-2^63, 2^63), not {_shown(number)}", field=field
            )
        return number

    def read(self, field: str, text: str, /) -> int:
        if not _INTEGER.fullmatch(text):
            raise _no_number(field, "an integer of at most 19 digits", text, _INTEGER)
        return int(text)

    def schema(self) -> Json:
        return {"type": "integer"}


@dataclass(frozen=True)
class OutputNames:
    """Names of outputs, each once, kept in the order in which they are returned."""

    def check(self, field: str, value: object, /) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.split(",")
        names = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        if not names:
            raise OptionError(f"{field} is empty; ask for at least one output", field=field)
        for name in names:
            if not isinstance(name, str) or name not in EVERY_OUTPUT:
                raise OptionError(unknown("output", str(name), OUTPUTS), field=field)
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise OptionError(f"{field} names {twice} more than once", field=field)
        return tuple(name for name in EVERY_OUTPUT if name in names)

    def read(self, _field: str, text: str, /) -> tuple[str, ...]:
        return tuple(text.split(","))

    def schema(self) -> Json:
        names = {"type": "string", "enum": list(EVERY_OUTPUT)}
        return {"type": "array", "items": names, "uniqueItems": True}


def _shown(value: object) -> str:
    """Return a value as an error repeats it: a client's text may be as long as a head."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a larger one"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


# Decimal numbers as programs write them, 1, 0.5, .5, 5., 1e-4, +1E+2. Python's own float and int
# also read underscores, surrounding blanks, other scripts' digits, "nan" and "inf".
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def _no_number(name: str, wanted: str, text: str, pattern: re.Pattern[str]) -> OptionError:
    """Return the refusal of a text; forms and query strings turn a plus sign into a blank."""
    message = f"{name} must be {wanted}, not {_shown(text)}"
    if pattern.fullmatch(text.replace(" ", "+")):
        message += "; in a query string + stands for a blank: write %2B, or leave it out"
    return OptionError(message, field=name)
