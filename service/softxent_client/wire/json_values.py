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
    """Kind of the values of a tensor.

    Attributes:
        buffer_type: simdjson's code for a whole array of them; None where it has none.
        dtype: what they are read as.
        convert: gives the value, or None for what is not of this kind.
        convert_all: does so for a list.
        one, many, either: what errors call a lone one, several, and all that is allowed.
    """

    buffer_type: str | None
    dtype: np.dtype[Any]
    convert: Callable[[object], float | int | None]
    convert_all: Callable[[list[Any]], list[Any]]
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
    return "an array" if isinstance(value, (simdjson.Array, list)) else "an object"


def _float(value: object) -> float | None:
    if type(value) is float or type(value) is int:
        return value
    return WORDS.get(value) if type(value) is str else None


def _integer(value: object) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _boolean(value: object) -> bool | None:
    return value if type(value) is bool else None


def _floats(values: list[Any]) -> list[Any]:
    kinds = set(map(type, values))
    if kinds <= {float, int}:
        return values
    if kinds == {str}:
        return list(map(WORDS.get, values))
    if str not in kinds and kinds.isdisjoint((float, int)):
        return [None] * len(values)
    return list(map(_float, values))


def _integers(values: list[Any]) -> list[Any]:
    return list(map(_integer, values)) if int in set(map(type, values)) else [None] * len(values)


def _booleans(values: list[Any]) -> list[Any]:
    return values if set(map(type, values)) <= {bool} else list(map(_boolean, values))


_WORDS = f"numbers or the words {', '.join(WORDS)}"
NUMBERS = Kind("d", np.dtype(np.float64), _float, _floats, "a number", "numbers", _WORDS)
INTEGERS = Kind(
    "i", np.dtype(np.int64), _integer, _integers, "an integer", "integers", "int64 integers"
)
BOOLEANS = Kind(
    None, np.dtype(np.bool_), _boolean, _booleans, "a boolean", "booleans", "true or false"
)
_KINDS = {"i": INTEGERS, "b": BOOLEANS}
