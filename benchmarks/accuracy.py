"""The worst error of every output beside other libraries, in the units of docs/numerics.md.

Exact values come from mpmath with 60 + (largest gap) / 2.3 digits. A row of more than `DISTINCT`
columns repeats that many distinct logits, so that a sum over the classes is a sum over distinct
values, each times how often it stands there: nothing is approximated. Inputs are multiples of a
power of two or are rounded to the type first; every library gets the same array.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accuracy_peers import PEERS, SMOOTHING
from exact_values import exact
from tables import table

import softxent

Array = npt.NDArray[Any]

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "numerics.md"
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"

DTYPES = ("float32", "float64")
CLASSES = (1, 2, 10, 1_000, 32_000, 262_144)
DISTINCT = 2_048
OUTPUTS = (
    "loss",
    "gradient",
    "log_normalizer",
    "probabilities",
    "loss, smoothed",
    "gradient, smoothed",
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


def batches(dtype: str, classes: int) -> Iterator[tuple[str, Array, Array]]:
    """Yield names, logits [n, classes] and labels [n]: at the maximum, the minimum, elsewhere."""
    for name, logits in families(classes):
        row = logits.astype(dtype)
        places = {int(row.argmax()), int(row.argmin()), classes // 3}
        labels = np.array(sorted(places))
        yield name, np.tile(row, (len(labels), 1)), labels


# Measuring and printing -------------------------------------------------------------------------


def installed(names: Sequence[str]) -> dict[str, str | None]:
    """Return each library's version, None where it cannot be imported."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            importlib.import_module(PEERS[name][0])
        except ImportError:
            versions[name] = None
        else:
            versions[name] = importlib.metadata.version(name)
    return versions


Worst = dict[tuple[str, str, str, int, str], float]
"""(library, dtype, output, classes, family) -> ulp."""


def measure(dtype: str, classes: int, names: Sequence[str]) -> Worst:
    """Return the worst errors of each library over the rows of every family."""
    worst: Worst = {}
    for family, logits, labels in batches(dtype, classes):
        got = {name: PEERS[name][1](logits, labels) for name in names}
        for i, label in enumerate(labels.tolist()):
            wanted = exact(logits[i], label, 0.0) | exact(logits[i], label, SMOOTHING)
            for name, outputs in got.items():
                for output, values in outputs.items():
                    key = name, dtype, output, classes, family
                    error = wanted[output].worst(np.atleast_1d(values[i]), classes)
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
