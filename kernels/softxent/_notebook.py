"""HTML of explanations and results in notebooks: of bounded size, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from softxent.explanation_steps import Step, steps_of

if TYPE_CHECKING:
    from softxent.explanation import Explanation
    from softxent.results import CrossEntropyResult

MOST_VALUES = 6
"""Values of an array that are shown."""


def explanation_html(found: Explanation) -> str:
    """Return the steps with their formulas in MathML and their numbers in tables."""
    return f"<div>{''.join(_step(n, step) for n, step in enumerate(steps_of(found), 1))}</div>"


def result_html(result: CrossEntropyResult) -> str:
    """Return a table of what was asked for: shapes, dtypes and the first values."""
    given = ((field.name, getattr(result, field.name)) for field in fields(result))
    lines = [_output(name, value) for name, value in given if value is not None]
    return _table(("output", "shape", "dtype", "values"), lines)


def _step(n: int, step: Step) -> str:
    formula = f'<math display="block">{step.mathml}</math>'
    remark = f"<p>{escape(step.remark.removeprefix('; '))}</p>" if step.remark else ""
    table = _table(step.header, step.lines) if step.lines else ""
    return f"<h4>{n}. {escape(step.title)}</h4>{formula}{table}{remark}"


def _output(name: str, value: Any) -> tuple[str, ...]:
    array = np.asarray(value)
    # Not a copy of all of it.
    first = ", ".join(str(array[np.unravel_index(i, array.shape)]) for i in _first(array.size))
    more = ", ..." if array.size > MOST_VALUES else ""
    return name, str(list(array.shape)), str(array.dtype), first + more


def _first(size: int) -> range:
    return range(min(size, MOST_VALUES))


def _table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
