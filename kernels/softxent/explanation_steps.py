"""Steps of an explanation as titles, formulas and tables of text, for terminals and notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from softxent.explanation import Explanation

MOST_CLASSES = 12
"""Classes that are shown; of more, the first ones and how many there are."""

Line = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step: what it is, its formula as text and as MathML, its numbers, and a remark."""

    title: str
    formula: str
    mathml: str
    header: Line = ()
    lines: tuple[Line, ...] = ()
    remark: str = ""


def steps_of(found: Explanation) -> Iterator[Step]:
    """Yield the steps in their order."""
    yield _softmax(found)
    yield _jacobian(found)
    yield _loss(found)
    yield _quotient(found)
    yield _product(found)
    yield _fused(found)
    yield _naive(found)


def _i(name: str, index: str = "") -> str:
    letters = "".join(f"<mi>{letter}</mi>" for letter in index)
    return f"<msub><mi>{name}</mi><mrow>{letters}</mrow></msub>" if index else f"<mi>{name}</mi>"


def _o(sign: str) -> str:
    return f"<mo>{sign}</mo>"


def _fraction(above: str, below: str) -> str:
    return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"


def _partial(above: str, below: str) -> str:
    return _fraction(_o("∂") + above, _o("∂") + below)


def _sum(index: str) -> str:
    return f"<munder><mo>∑</mo>{_i(index)}</munder>"


_EXP = f"<msup>{_i('e')}<mrow>{_i('x', 'n')}{_o('−')}{_i('m')}</mrow></msup>"
_GRADIENT = _partial(_i("L"), _i("x", "m"))
_BY_SOFTMAX = _partial(_i("L"), _i("s", "n"))
_J = _partial(_i("s", "n"), _i("x", "m"))


def _softmax(found: Explanation) -> Step:
    stable = found.stable
    return Step(
        "softmax",
        "s_n = e_n / (1 + S), e_n = exp(x_n - m)",
        _i("s", "n")
        + _o("=")
        + _fraction(_i("e", "n"), f"<mn>1</mn>{_o('+')}{_i('S')}")
        + _o(",")
        + _i("e", "n")
        + _o("=")
        + _EXP,
        ("n", "e", "s"),
        _by_class(stable.e, found.softmax_out),
        f"m = {_text(stable.m)}, S = {_text(stable.S)}" + _more(found),
    )


def _jacobian(found: Explanation) -> Step:
    shown = found.softmax_jacobian[:MOST_CLASSES, :MOST_CLASSES]
    return Step(
        "its Jacobian",
        "ds_n / dx_m = s_n (delta_nm - s_m)",
        _J + _o("=") + _i("s", "n") + _o("(") + _i("δ", "nm") + _o("−") + _i("s", "m") + _o(")"),
        ("n, m", *map(str, range(shown.shape[1]))),
        tuple((str(n), *(f"{value:.4g}" for value in line)) for n, line in enumerate(shown)),
        _more(found),
    )


def _loss(found: Explanation) -> Step:
    return Step(
        "cross entropy",
        "L = - sum_n y_n log s_n = sum_n y_n (m - x_n) + log(1 + S)",
        f"{_i('L')}{_o('=')}{_o('−')}{_sum('n')}{_i('y', 'n')}<mi>log</mi>{_i('s', 'n')}",
        remark=f"L = {_text(found.loss)} nats",
    )


def _quotient(found: Explanation) -> Step:
    formula = _BY_SOFTMAX + _o("=") + _o("−") + _fraction(_i("y", "n"), _i("s", "n"))
    text = "dL / ds_n = - y_n / s_n"
    if found.loss_by_softmax_out is None:
        return Step("the loss by the softmax", text, formula, remark=found.notes[0])
    lines = _by_class(found.target, found.loss_by_softmax_out)
    return Step("the loss by the softmax", text, formula, ("n", "y", "-y / s"), lines)


def _product(found: Explanation) -> Step:
    title, text = "the chain rule", "dL / dx_m = sum_n dL / ds_n ds_n / dx_m"
    formula = _GRADIENT + _o("=") + _sum("n") + _BY_SOFTMAX + _J
    if found.chain_rule_product is None:
        return Step(title, text, formula, remark=found.notes[1])
    return Step(title, text, formula, ("m", "dL/dx"), _by_class(found.chain_rule_product))


def _fused(found: Explanation) -> Step:
    difference = found.largest_difference
    return Step(
        "what is left",
        "dL / dx_m = s_m - y_m",
        _GRADIENT + _o("=") + _i("s", "m") + _o("−") + _i("y", "m"),
        ("m", "s - y"),
        _by_class(found.fused_gradient),
        "" if difference is None else f"largest difference from the product: {_text(difference)}",
    )


def _naive(found: Explanation) -> Step:
    forms = (found.naive.float64, found.naive.float32)
    loss = ("L", found.loss, 0.0, [form.loss for form in forms])
    gradient = [
        (
            f"dL/dx_{m}",
            found.fused_gradient[m],
            0.0 if y == 1 else y,
            [f.gradient[m] for f in forms],
        )
        for m, y in enumerate(found.target[:MOST_CLASSES])
    ]
    return Step(
        "what the textbook forms give",
        "exp(x) / sum(exp(x)), -log(s), s - y",
        _fraction(
            f"<msup>{_i('e')}{_i('x', 'n')}</msup>",
            f"{_sum('k')}<msup>{_i('e')}{_i('x', 'k')}</msup>",
        ),
        ("", "here", "float64", "", "float32", ""),
        tuple(starmap(_beside, [loss, *gradient])),
    )


def _beside(name: str, right: float, scale: float, found: Sequence[np.floating[Any]]) -> Line:
    marked = (part for value in found for part in (str(value), agreement(value, right, scale)))
    return (name, _text(right), *marked)


def agreement(value: np.floating[Any], right: float, scale: float = 0.0) -> str:
    """Return in words how much of `value` is right, within the 4 ulp that are promised.

    Where a difference was formed, `scale` is its larger operand, whose digits bound it.
    """
    if not np.isfinite(value):
        return "not a number" if np.isnan(value) else "infinite"
    error = abs(float(value) - right)
    if error <= 4 * float(np.finfo(value.dtype).eps) * max(abs(right), scale):
        return "right"
    digits = 0 if right == 0 else max(0, math.floor(-math.log10(error / abs(right))))
    return "no digit right" if digits == 0 else f"{digits} digit{'s' * (digits > 1)} right"


def _by_class(*columns: Sequence[float] | np.ndarray[Any, Any]) -> tuple[Line, ...]:
    shown = zip(*(column[:MOST_CLASSES] for column in columns), strict=True)
    return tuple((str(n), *map(_text, values)) for n, values in enumerate(shown))


def _text(value: float) -> str:
    return repr(float(value))


def _more(found: Explanation) -> str:
    hidden = found.softmax_out.size - MOST_CLASSES
    return f"; {hidden} more classes are not shown" if hidden > 0 else ""
