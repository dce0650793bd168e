"""The worst error of every output beside other libraries, in the units of docs/numerics.md.

Exact values come from mpmath with 60 + (largest gap) / 2.3 digits, at most 930. A row of more than
`DISTINCT` columns repeats that many distinct logits, so that a sum over the classes is a sum over
distinct values, each times how often it stands there: nothing is approximated. Inputs are multiples
of a power of two or are rounded to the type first; every library gets the same array.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accuracy_peers import PEERS, Problem, is_installed
from exact_values import Target, exact
from mpmath import mp, mpf
from tables import table

import softxent

Array = npt.NDArray[Any]

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "numerics.md"
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"

DTYPES = ("float32", "float64")
CLASSES = (1, 2, 10, 1_000, 32_000, 262_144)
DISTINCT = 2_048
SMOOTHING = 0.1
ENTRIES = 64

LOGITS_ALONE = ("log_normalizer", "probabilities", "log_probabilities", "entropy")
CURVATURE = ("hessian_diagonal", "hessian_vector_product")
BOTH = ("loss", "gradient")
KINDS: dict[str, tuple[str, ...]] = {
    "": (*BOTH, *LOGITS_ALONE, *CURVATURE),
    "smoothed": BOTH,
    "soft": (*BOTH, "target_entropy"),
    "top-k": BOTH,
    "temperature 0.01": BOTH,
    "temperature 100": BOTH,
}
"""The outputs that are measured of each kind of problem."""

OUTPUTS = tuple(
    f"{name}, {kind}" if kind else name for kind, names in KINDS.items() for name in names
)


# Inputs -----------------------------------------------------------------------------------------


def families(classes: int) -> Iterator[tuple[str, Array]]:
    """Yield names and logits [classes], each a way to lose digits."""
    rng = np.random.default_rng(classes)
    place = np.arange(classes)

    def bell(unit: float) -> Array:
        values = rng.integers(-(2**20), 2**20, (3, min(classes, DISTINCT))).sum(0) * 2.0**-20
        return np.asarray(values[rng.permutation(classes) % values.size] * unit)

    for gap in (4, 17, 40):
        yield f"one class {gap} above many equal ones", np.where(place == classes // 2, gap, 0.0)
    yield "all equal", np.full(classes, 0.1)
    yield "all but one 92 below", np.where(place == classes - 1, 0.0, bell(1 / 8).round(1) - 92.0)
    steps = min(classes, DISTINCT)
    yield "linear from -60 to 60", np.linspace(-60, 60, steps)[place * steps // classes]
    for offset in (1e4, 1e8):
        yield f"random at offset {offset:.0e}", bell(4.0) + offset
    for unit in (0.01, 1.0, 30.0):
        yield f"random, {unit:g}", bell(unit)


def problems(row: Array) -> Iterator[tuple[str, Problem, Target]]:
    """Yield kinds, problems of one row of logits [C], and their exact targets."""
    classes = row.size
    logits = row.reshape(1, -1)
    # A value of each distinct logit, so that equal logits are equal in every respect.
    vector = ((np.unique(row, return_inverse=True)[1] * 7 % 11) / 8 - 0.5).astype(row.dtype)
    common: dict[str, Any] = {"logits": logits, "vector": vector.reshape(1, -1)}
    places = sorted({int(row.argmax()), int(row.argmin()), classes // 3})
    for label in places:
        hot = np.zeros(classes)
        hot[label] = 1
        yield "", Problem(**common, label=label), Target(hot, mpf, is_label=True)
        smoothed = Problem(**common, label=label, smoothing=SMOOTHING)
        yield "smoothed", smoothed, Target(hot, lambda t: _smooth(t, classes))
        one_hot = Problem(**common, probabilities=hot.astype(row.dtype).reshape(1, -1))
        yield "soft", one_hot, Target(hot, mpf)
        for kind, temperature in (("temperature 0.01", 0.01), ("temperature 100", 100.0)):
            tempered = Problem(**common, label=label, temperature=temperature)
            yield kind, tempered, Target(hot, mpf, is_label=True)
    for sharpness in (1.0, 0.7):
        teacher = np.exp(sharpness * (row.astype(np.float64) - row.max()))
        given = (teacher / teacher.sum()).astype(row.dtype)
        yield "soft", Problem(**common, probabilities=given.reshape(1, -1)), Target(given, mpf)
    yield _top_k(row, common)


def _smooth(t: float, classes: int) -> mpf:
    return (1 - mpf(SMOOTHING)) * t + mpf(SMOOTHING) / classes


def _top_k(row: Array, common: dict[str, Any]) -> tuple[str, Problem, Target]:
    """Return the problem of a teacher's largest entries, which are divided by their sum."""
    best = np.argsort(-row, kind="stable")[:ENTRIES]
    logs = (0.7 * (row[best].astype(np.float64) - row.max()) - 5.0).astype(row.dtype)
    numbers = np.full(row.size, -np.inf)
    numbers[best] = logs
    with mp.workdps(100):
        total = mp.fsum(mp.exp(float(v)) for v in logs)
    problem = Problem(**common, indices=best.reshape(1, -1), log_probabilities=logs.reshape(1, -1))
    return "top-k", problem, Target(numbers, lambda v: mp.exp(v) / total)


# Measuring and printing -------------------------------------------------------------------------


def installed(names: Sequence[str]) -> dict[str, str | None]:
    """Return each library's version, None where it cannot be imported."""
    return {
        name: importlib.metadata.version(name) if is_installed(name) else None for name in names
    }


Worst = dict[tuple[str, str, str, int, str], float]
"""(library, dtype, output, classes, family) -> ulp."""


def measure(dtype: str, classes: int, names: Sequence[str]) -> Worst:
    """Return the worst errors of each library over the rows of every family."""
    worst: Worst = {}
    for family, logits in families(classes):
        for kind, problem, target in problems(logits.astype(dtype)):
            row, vector = problem.logits[0], problem.vector[0]
            wanted = exact(row, target, problem.temperature, vector, KINDS[kind])
            for output, values in wanted.items():
                shown = f"{output}, {kind}" if kind else output
                for name in names:
                    got = PEERS[name][1](problem, output)
                    if got is not None:
                        key = name, dtype, shown, classes, family
                        error = values.worst(got.reshape(-1), classes)
                        worst[key] = max(worst.get(key, 0.0), error)
    return worst


def by_classes(worst: Worst, dtypes: Sequence[str], classes: Sequence[int]) -> str:
    """Return the table of every output: the worst over the families."""
    rows = []
    for dtype in dtypes:
        for output in OUTPUTS:
            for name in PEERS:
                found = [_largest(worst, name, dtype, output, c) for c in classes]
                if any(error is not None for error in found):
                    rows.append([f"{dtype} {output}", name, *map(_ulp, found)])
    return table(["output", "library", *(f"C = {c:,}" for c in classes)], rows)


def by_family(worst: Worst, dtypes: Sequence[str], names: Sequence[str]) -> str:
    """Return the table of every family: the worst of loss and gradient over the classes."""
    columns = [(dtype, name) for dtype in dtypes for name in names]
    rows = []
    for family in dict.fromkeys(key[-1] for key in worst):
        found = [
            [_largest(worst, name, dtype, output, None, family) for output in OUTPUTS[:2]]
            for dtype, name in columns
        ]
        rows.append([family, *(_ulp(max(e for e in both if e is not None)) for both in found)])
    return table(["logits", *(f"{dtype} {name}" for dtype, name in columns)], rows)


def _largest(
    worst: Worst,
    name: str,
    dtype: str,
    output: str,
    classes: int | None = None,
    family: str | None = None,
) -> float | None:
    found = [
        error
        for (n, d, o, c, f), error in worst.items()
        if (n, d, o) == (name, dtype, output) and classes in (None, c) and family in (None, f)
    ]
    return max(found, default=None)


def _ulp(error: float | None) -> str:
    """Return an error with two digits, never rounded down."""
    if error is None:
        return "-"
    if math.isinf(error):
        return "inf"
    if error < 1000:
        places = 2 if error < 10 else 0
        return f"{math.ceil(error * 10**places) / 10**places:.{places}f}"
    return f"{error:.1e}".replace("e+0", "e").replace("e+", "e")


def report(dtypes: Sequence[str], classes: Sequence[int], names: Sequence[str]) -> str:
    """Measure; return both tables and what they were measured with."""
    versions = installed(names)
    present = [name for name, version in versions.items() if version]
    worst: Worst = {}
    for dtype in dtypes:
        for count in classes:
            print(f"accuracy: {dtype}, {count:,} classes", file=sys.stderr, flush=True)
            worst |= measure(dtype, count, present)
    told = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    compared = [name for name in ("softxent", "torch", "scikit-learn") if name in present]
    return "\n".join(
        [
            f"Measured with {told}; numerics version {softxent.NUMERICS_VERSION}.",
            "",
            by_classes(worst, dtypes, classes),
            "",
            "By kind of row: the worst of loss and gradient, without smoothing, over every C.",
            "",
            by_family(worst, dtypes, compared),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--libraries", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    given = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = report(given.dtypes, given.classes, given.libraries)
    if not given.write:
        print(text)
        return
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
