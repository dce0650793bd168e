"""The tables of docs/conventions.md, and what a case of another library's tests came to."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/conventions.md"

COMPARED = "compared"
"""The outcome of a case of which nothing was refused."""

Case = Callable[[], Iterable[str]]
"""Runs one case of another library's tests; raises where results part. Yields what was refused."""


def tables(heading: str, columns: int) -> list[list[str]]:
    """Return the rows, without the header, of every table of so many columns below a heading."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rules = [i for i, row in enumerate(rows) if set(row[0]) <= {"-"}]
    heads = {place for rule in rules for place in (rule - 1, rule)}
    return [row for i, row in enumerate(rows) if i not in heads and len(row) == columns]


def code(cell: str) -> str:
    """Return the one expression a cell holds."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found is not None, f"not one expression: {cell}"
    return found[1]


def documented(suite: str) -> dict[str, int]:
    """Return how many cases of a suite come to which outcome, as the document says."""
    rows = [row[1:] for row in tables("Their own tests", 3) if row[0] == suite]
    assert rows, f"the document does not tell of {suite}"
    return {outcome: int(count) for outcome, count in rows}


def outcomes(cases: Mapping[str, Case]) -> dict[str, int]:
    """Run all cases; count what was refused of each, or that it was compared in full."""
    return dict(Counter(outcome(case) for case in cases.values()))


def outcome(case: Case) -> str:
    """Run one case; name what was refused of it."""
    return "; ".join(sorted(set(case()))) or COMPARED


def assert_near(ours: Any, theirs: Any, magnitude: Any, step: float, ulps: int) -> None:
    """Assert that results differ by no more than ulps steps of the operands' magnitude.

    Where theirs is not finite, ours is the same.
    """
    left, right, size = (_float64(value) for value in (ours, theirs, magnitude))
    assert left.shape == right.shape
    finite = np.isfinite(right)
    np.testing.assert_array_equal(left[~finite], right[~finite])
    size = np.broadcast_to(size, left.shape)
    off = np.abs(left[finite] - right[finite]) > ulps * step * size[finite]
    assert not off.any(), (left[finite][off], right[finite][off], size[finite][off])


def _float64(value: Any) -> npt.NDArray[np.float64]:
    return np.asarray(value, np.float64)


def numbered(names: Iterable[str]) -> list[str]:
    """Return the names, those that occur again with a number after them."""
    counts: Counter[str] = Counter()
    ids = []
    for name in names:
        counts[name] += 1
        ids.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    assert all(a != b for a, b in itertools.pairwise(sorted(ids)))
    return ids
