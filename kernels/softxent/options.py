"""The options of an evaluation: one frozen record, checked when it is made.

Each option has the same name as a keyword, a query parameter and a command-line flag.
`Options.from_text` reads the textual form ("none" is the word for null, lists are separated by
commas) and `Options.to_text` writes it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypedDict

from softxent.errors import OptionError

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")
"""Every output that can be asked for, in the order in which they are returned."""

REDUCTIONS = ("none", "mean", "sum")
SMOOTHINGS = ("all", "others")
TAILS = ("renormalize", "bucket", "none")
MEAN_OVER = ("weights", "rows")
NON_FINITE = ("error", "propagate")
EMPTY = ("nan", "zero", "error")


class OptionKeywords(TypedDict, total=False):
    """The fields of `Options` as keyword arguments; all may be left out."""

    outputs: tuple[str, ...] | list[str] | str
    reduction: str
    ignore_index: int | None
    label_smoothing: float
    smoothing: str
    z_loss: float
    softcap: float | None
    temperature: float
    tail: str
    hard_weight: float | None
    denominator: float | None
    mean_over: str
    scale: float
    non_finite: str
    empty: str


@dataclass(frozen=True)
class Options:
    """How a batch is evaluated.

    Attributes:
        outputs: what is computed, any of `OUTPUTS`, each once.
        reduction: "none" gives a loss a row, "sum" and "mean" one float64.
        ignore_index: rows with this label are left out; None ignores no row.
        label_smoothing: eps in [0, 1]: the target is (1 - eps) of what is given, and eps
            spread evenly over classes.
        smoothing: whether eps is spread over "all" classes or over the "others" alone.
        z_loss: factor, not negative, of the squared log-normaliser that is added to a loss.
        softcap: s > 0 turns each logit x into s tanh(x / s); None leaves it.
        temperature: > 0, divides the logits, after the softcap.
        tail: what becomes of the probability that a top-k target does not name: "renormalize"
            divides by what it names, "bucket" gives the rest to all other classes together,
            "none" leaves it out.
        hard_weight: share in [0, 1] of the label where there is a soft target too.
        denominator: what "mean" divides by, > 0; None divides by what `mean_over` says.
        mean_over: "weights" divides by the sum of weights, "rows" by the rows not ignored.
        scale: a finite factor on loss and gradient, applied before rounding.
        non_finite: "error" refuses rows whose loss or log-normaliser is not finite,
            "propagate" returns them.
        empty: what a mean over no weight is: "nan", "zero" or an "error".

    Raises:
        OptionError: an option has the wrong type, is out of range or does not apply.
    """

    outputs: tuple[str, ...] = ("loss", "gradient")
    reduction: str = "none"
    ignore_index: int | None = -100
    label_smoothing: float = 0.0
    smoothing: str = "all"
    z_loss: float = 0.0
    softcap: float | None = None
    temperature: float = 1.0
    tail: str = "renormalize"
    hard_weight: float | None = None
    denominator: float | None = None
    mean_over: str = "weights"
    scale: float = 1.0
    non_finite: str = "error"
    empty: str = "nan"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _CHECKS[field.name](getattr(self, field.name)))
        for name in ("denominator", "mean_over"):
            if self.reduction != "mean" and getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(
                    f"{name} applies only with reduction=mean, not {self.reduction}", field=name
                )
        if self.denominator is not None and self.mean_over != "weights":
            raise OptionError(
                "mean_over says what the mean divides by, and so does denominator: give one",
                field="mean_over",
            )

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> Options:
        """Make options of keyword arguments.

        Raises:
            OptionError: a name is unknown, or a value is refused.
        """
        for name in given:
            _check_known(name)
        return cls(**given)

    @classmethod
    def from_text(cls, pairs: Iterable[tuple[str, str]]) -> Options:
        """Read options from (name, text) pairs, as a query string or a command line gives them.

        Raises:
            OptionError: a name is unknown or repeated, or its text is not a legal value.
        """
        given: dict[str, Any] = {}
        for name, text in pairs:
            _check_known(name)
            if name in given:
                raise OptionError(f"option {name} is given more than once", field=name)
            given[name] = _READERS[name](name, text)
        return cls(**given)

    def to_text(self) -> dict[str, str]:
        """Return the options that differ from their defaults, in the form `from_text` reads."""
        return {
            field.name: _as_text(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options)}


def _check_known(name: str) -> None:
    if name not in _READERS:
        raise OptionError(f"unknown option {name!r}; known are {', '.join(_READERS)}", field=name)


def _as_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(value)
    return repr(value) if isinstance(value, float) else str(value)


def _outputs(value: object) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not names:
        raise OptionError("outputs is empty; ask for at least one output", field="outputs")
    for name in names:
        if not isinstance(name, str) or name not in OUTPUTS:
            raise OptionError(
                f"unknown output {name!r}; known are {', '.join(OUTPUTS)}", field="outputs"
            )
    if len(set(names)) != len(names):
        raise OptionError("an output is asked for more than once", field="outputs")
    return tuple(name for name in OUTPUTS if name in names)


def _choice(field: str, choices: tuple[str, ...]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise OptionError(
                f"{field} must be one of {', '.join(choices)}, not {value!r}", field=field
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
            raise OptionError(f"{field} must be a number {range_}, not {value!r}", field=field)
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
            f"ignore_index must be an integer or None, not {value!r}", field="ignore_index"
        )
    index = int(value)
    if not -(2**63) <= index < 2**63:
        raise OptionError("ignore_index does not fit int64", field="ignore_index")
    return index


_CHECKS: dict[str, Callable[[object], object]] = {
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
}


# JSON's numbers with an optional plus. Python's own float and int also read underscores,
# surrounding blanks, other scripts' digits, "nan" and "inf".
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _read_float(name: str, text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise OptionError(f"{name} must be a number, not {text!r}", field=name)
    return float(text)


def _read_int(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise OptionError(
            f"{name} must be an integer of at most 19 digits, not {text!r}", field=name
        )
    return int(text)


def _or_none(read: Callable[[str, str], object]) -> Callable[[str, str], object]:
    return lambda name, text: None if text == "none" else read(name, text)


_READERS: dict[str, Callable[[str, str], object]] = {
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
}
