"""The values that JSON tensors are made of: what is read as which, and how errors show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson

from softxent.errors import WORDS
from softxent_client.wire.schema import SHOWN


@dataclass(frozen=True)
class Kind:
    """What the values of a tensor are.

    Attributes:
        buffer_type: simdjson's code for a whole array of them; None where it has none.
        dtype: what they are read as.
        convert: gives the value, or None for what is not of this kind.
        one, many, either: what errors call a lone one, several, and all that is allowed.
    """

    buffer_type: str | None
    dtype: np.dtype[Any]
    convert: Callable[[object], float | int | None]
    one: str
    many: str
    either: str


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Return what becomes `dtype`; NumPy calls bfloat16, as every dtype it does not own, "V"."""
    return _KINDS.get(dtype.kind, NUMBERS)


def shown(value: object) -> str | int | float:
    """Return what an error shows of a JSON value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return f'"{value[:SHOWN]}"'
    return "an array" if isinstance(value, simdjson.Array) else "an object"


def _float(value: object) -> float | None:
    if type(value) is float or type(value) is int:
        return value
    return WORDS.get(value) if type(value) is str else None


def _integer(value: object) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _boolean(value: object) -> bool | None:
    return value if type(value) is bool else None


_WORDS = f"numbers or the words {', '.join(WORDS)}"
NUMBERS = Kind("d", np.dtype(np.float64), _float, "a number", "numbers", _WORDS)
INTEGERS = Kind("i", np.dtype(np.int64), _integer, "an integer", "integers", "int64 integers")
BOOLEANS = Kind(None, np.dtype(np.bool_), _boolean, "a boolean", "booleans", "true or false")
_KINDS = {"i": INTEGERS, "b": BOOLEANS}
