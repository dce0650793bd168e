"""What each option may be: as a Python value, and as the text of a query or a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from numbers import Integral, Real

from softxent.errors import OptionError
from softxent.evaluations import OUTPUTS, PRODUCT
from softxent.hints import LONGEST, unknown

REDUCTIONS = ("none", "mean", "sum")
SMOOTHINGS = ("all", "others")
TAILS = ("renormalize", "bucket", "none")
MEAN_OVER = ("weights", "rows")
NON_FINITE = ("error", "propagate")
EMPTY = ("nan", "zero", "error")
DTYPES = ("float64", "float32", "float16", "bfloat16")
"""What logits may be, and what is returned; bfloat16 is the dtype of the package ml_dtypes."""

_EVERY_OUTPUT = (*OUTPUTS, PRODUCT)


def _shown(value: object) -> str:
    """Return a value as an error repeats it: a client's text may be as long as a head."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a larger one"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _outputs(value: object) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not names:
        raise OptionError("outputs is empty; ask for at least one output", field="outputs")
    for name in names:
        if not isinstance(name, str) or name not in _EVERY_OUTPUT:
            raise OptionError(unknown("output", str(name), OUTPUTS), field="outputs")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"outputs names {twice} more than once", field="outputs")
    return tuple(name for name in _EVERY_OUTPUT if name in names)


def _choice(
    field: str, choices: tuple[str, ...], *, optional: bool = False
) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or value not in choices:
            raise OptionError(
                f"{field} must be one of {', '.join(choices)}, not {_shown(value)}", field=field
            )
        return value

    return check


def _number(
    field: str, accepts: Callable[[float], bool], range_: str, *, optional: bool = False
) -> Callable[[object], float | None]:
    def check(value: object) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            message = f"{field} must be a number that is {range_}, not {_shown(value)}"
            raise OptionError(message, field=field)
        number = _as_float(value)
        if not accepts(number):
            raise OptionError(f"{field} must be {range_}, not {number!r}", field=field)
        return number

    return check


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _ignore_index(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise OptionError(
            f"ignore_index must be an integer or None, not {_shown(value)}", field="ignore_index"
        )
    index = int(value)
    if not -(2**63) <= index < 2**63:
        raise OptionError(
            f"ignore_index must lie in [-2^63, 2^63), not {_shown(index)}", field="ignore_index"
        )
    return index


CHECKS: dict[str, Callable[[object], object]] = {
    "outputs": _outputs,
    "reduction": _choice("reduction", REDUCTIONS),
    "ignore_index": _ignore_index,
    "label_smoothing": _number("label_smoothing", lambda v: 0 <= v <= 1, "in [0, 1]"),
    "smoothing": _choice("smoothing", SMOOTHINGS),
    "z_loss": _number("z_loss", lambda v: 0 <= v < math.inf, "finite and not negative"),
    "softcap": _number("softcap", lambda v: 0 < v < math.inf, "finite and > 0", optional=True),
    "temperature": _number("temperature", lambda v: 0 < v < math.inf, "finite and > 0"),
    "tail": _choice("tail", TAILS),
    "hard_weight": _number("hard_weight", lambda v: 0 <= v <= 1, "in [0, 1]", optional=True),
    "denominator": _number(
        "denominator", lambda v: 0 < v < math.inf, "finite and > 0", optional=True
    ),
    "mean_over": _choice("mean_over", MEAN_OVER),
    "scale": _number("scale", math.isfinite, "finite"),
    "non_finite": _choice("non_finite", NON_FINITE),
    "empty": _choice("empty", EMPTY),
    "output_dtype": _choice("output_dtype", DTYPES, optional=True),
}


# Decimal numbers as programs write them, 1, 0.5, .5, 5., 1e-4, +1E+2. Python's own float and int
# also read underscores, surrounding blanks, other scripts' digits, "nan" and "inf".
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def _read_float(name: str, text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise _no_number(name, "a decimal number such as 0.1 or 1e-4", text, _FLOAT)
    return float(text)


def _read_int(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _no_number(name, "an integer of at most 19 digits", text, _INTEGER)
    return int(text)


def _no_number(name: str, wanted: str, text: str, pattern: re.Pattern[str]) -> OptionError:
    """Return the refusal of a text; forms and query strings turn a plus sign into a blank."""
    message = f"{name} must be {wanted}, not {_shown(text)}"
    if pattern.fullmatch(text.replace(" ", "+")):
        message += "; in a query string + stands for a blank: write %2B, or leave it out"
    return OptionError(message, field=name)


def _or_none(read: Callable[[str, str], object]) -> Callable[[str, str], object]:
    return lambda name, text: None if text == "none" else read(name, text)


READERS: dict[str, Callable[[str, str], object]] = {
    "outputs": lambda _name, text: tuple(text.split(",")),
    "reduction": lambda _name, text: text,
    "ignore_index": _or_none(_read_int),
    "label_smoothing": _read_float,
    "smoothing": lambda _name, text: text,
    "z_loss": _read_float,
    "softcap": _or_none(_read_float),
    "temperature": _read_float,
    "tail": lambda _name, text: text,
    "hard_weight": _or_none(_read_float),
    "denominator": _or_none(_read_float),
    "mean_over": lambda _name, text: text,
    "scale": _read_float,
    "non_finite": lambda _name, text: text,
    "empty": lambda _name, text: text,
    "output_dtype": _or_none(lambda _name, text: text),
}
