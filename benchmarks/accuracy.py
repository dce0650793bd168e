"""The worst error of every output beside other libraries, in the units of docs/numerics.md.

Exact values come from mpmath with 60 + (largest gap) / 2.3 digits. A row of more than `DISTINCT`
columns repeats that many distinct logits, so that a sum over the classes is a sum over distinct
values, each times how often it stands there: nothing is approximated. Inputs are multiples of a
power of two or are rounded to the type first; every library gets the same array.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf
from tables import table

import softxent

Array = npt.NDArray[Any]
Peer = Callable[[Array, Array], dict[str, Array]]

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "numerics.md"
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"

DTYPES = ("float32", "float64")
CLASSES = (1, 2, 10, 1_000, 32_000, 262_144)
DISTINCT = 2_048
SMOOTHING = 0.1
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


# Exact values -----------------------------------------------------------------------------------


class Exact(NamedTuple):
    """Values as unevaluated sums of two float64, and the magnitudes that set their units."""

    high: Array
    low: Array
    operand: Array

    @classmethod
    def of(cls, values: Sequence[mpf], operands: Sequence[mpf]) -> Exact:
        """Split exact values."""
        high = [float(v) for v in values]
        low = [float(v - h) for v, h in zip(values, high, strict=True)]
        return cls(np.array(high), np.array(low), np.array([abs(float(o)) for o in operands]))

    def spread(self, place: Array, label: int, at_label: Exact) -> Exact:
        """Return distinct values in their places, and the label's own value in its."""
        fields = [of_all[place] for of_all in self]
        for field, own in zip(fields, at_label, strict=True):
            field[label] = own[0]
        return Exact(*fields)

    def worst(self, got: Array, classes: int) -> float:
        """Return the largest error of `got` in ulp; infinite where it is not finite."""
        info = np.finfo(got.dtype)
        size = np.maximum(self.operand, classes * float(info.tiny))
        unit = np.ldexp(1.0, np.frexp(size)[1] - info.nmant - 1)
        with np.errstate(invalid="ignore"):
            errors = np.abs((got.astype(np.float64) - self.high) - self.low) / unit
        return float(np.where(np.isfinite(errors), errors, np.inf).max())


class Softmax(NamedTuple):
    """One row's distinct logits in exact arithmetic; `place` says where they stand."""

    digits: int
    logits: list[mpf]
    probabilities: list[mpf]
    log_normalizer: mpf
    place: Array
    counts: list[int]


@functools.lru_cache(maxsize=1)
def softmax(row: bytes, dtype: str) -> Softmax:
    """Return the softmax of a row of finite logits, given as bytes."""
    values, place, counts = np.unique(
        np.frombuffer(row, dtype), return_inverse=True, return_counts=True
    )
    numbers: list[float] = values.astype(np.float64).tolist()
    digits = 60 + int((numbers[-1] - numbers[0]) / 2.3)
    with mp.workdps(digits):
        logits = [mpf(v) for v in numbers]
        exponentials = [mp.exp(v - logits[-1]) for v in logits]
        how_often: list[int] = counts.tolist()
        total = mpmath.fsum(n * e for n, e in zip(how_often, exponentials, strict=True))
        shares = [e / total for e in exponentials]
        return Softmax(digits, logits, shares, logits[-1] + mp.log(total), place, how_often)


def exact(row: Array, label: int, smoothing: float) -> dict[str, Exact]:
    """Return the exact outputs of one row; unsmoothed ones under their own names."""
    s = softmax(row.tobytes(), row.dtype.name)
    suffix = ", smoothed" if smoothing else ""
    with mp.workdps(s.digits):
        part = mpf(smoothing) / row.size
        own = int(s.place[label])
        rest = mpmath.fsum(
            n * (s.log_normalizer - x) for n, x in zip(s.counts, s.logits, strict=True)
        )
        loss = (1 - mpf(smoothing)) * (s.log_normalizer - s.logits[own])
        loss += part * rest if smoothing else 0
        gradient = _gradient(s.probabilities, part, bool(smoothing))
        at_label = _gradient(
            s.probabilities[own : own + 1], part + 1 - mpf(smoothing), bool(smoothing)
        )
        found = {
            f"loss{suffix}": Exact.of([loss], [loss]),
            f"gradient{suffix}": gradient.spread(s.place, label, at_label),
        }
        if not smoothing:
            largest = max(abs(s.logits[-1]), abs(s.log_normalizer))
            shares = Exact.of(s.probabilities, s.probabilities)
            found["log_normalizer"] = Exact.of([s.log_normalizer], [largest])
            found["probabilities"] = Exact(*(field[s.place] for field in shares))
        return found


def _gradient(probabilities: Sequence[mpf], target: mpf, smoothed: bool) -> Exact:
    """Return p - t; smoothed ones are measured at the larger operand, the lesser complement."""
    values = [p - target for p in probabilities]
    if not smoothed:
        return Exact.of(values, values)
    complement = [max(1 - p, 1 - target) if p > 0.5 else mpf("inf") for p in probabilities]
    sizes = [max(p, target) for p in probabilities]
    return Exact.of(values, [min(s, c) for s, c in zip(sizes, complement, strict=True)])


# Libraries --------------------------------------------------------------------------------------


def _softxent(logits: Array, labels: Array) -> dict[str, Array]:
    outputs = ("loss", "gradient", "log_normalizer", "probabilities")
    plain = vars(softxent.cross_entropy(logits, labels, outputs=outputs))
    smoothed = softxent.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    found = {name: plain[name] for name in outputs}
    return found | {
        "loss, smoothed": np.asarray(smoothed.loss),
        "gradient, smoothed": np.asarray(smoothed.gradient),
    }


def _torch(logits: Array, labels: Array) -> dict[str, Array]:
    import torch
    from torch.nn.functional import cross_entropy

    found: dict[str, Array] = {}
    for suffix, smoothing in (("", 0.0), (", smoothed", SMOOTHING)):
        x = torch.tensor(logits, requires_grad=True)
        loss = cross_entropy(
            x, torch.from_numpy(labels), reduction="none", label_smoothing=smoothing
        )
        loss.sum().backward()
        assert x.grad is not None
        found[f"loss{suffix}"] = loss.detach().numpy()
        found[f"gradient{suffix}"] = x.grad.numpy()
    x = torch.from_numpy(logits)
    found["log_normalizer"] = torch.logsumexp(x, 1).numpy()
    found["probabilities"] = torch.softmax(x, 1).numpy()
    return found


def _sklearn(logits: Array, labels: Array) -> dict[str, Array]:
    from sklearn._loss import HalfMultinomialLoss

    if logits.shape[1] == 1:
        return {}
    model = HalfMultinomialLoss(n_classes=logits.shape[1])
    loss, gradient = model.loss_gradient(labels.astype(logits.dtype), logits)
    return {
        "loss": loss,
        "gradient": gradient,
        "probabilities": model.predict_proba(logits),
    }


def _scipy(logits: Array, labels: Array) -> dict[str, Array]:
    special: Any = importlib.import_module("scipy.special")
    return {
        "loss": -special.log_softmax(logits, 1)[np.arange(len(labels)), labels],
        "log_normalizer": special.logsumexp(logits, 1),
        "probabilities": special.softmax(logits, 1),
    }


def _optax(logits: Array, labels: Array) -> dict[str, Array]:
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)
    x = jax.numpy.asarray(logits)

    def losses(x: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, labels)

    return {
        "loss": np.asarray(losses(x)),
        "gradient": np.asarray(jax.grad(lambda x: losses(x).sum())(x)),
        "log_normalizer": np.asarray(jax.nn.logsumexp(x, 1)),
        "probabilities": np.asarray(jax.nn.softmax(x, 1)),
    }


PEERS: dict[str, tuple[str, Peer]] = {
    "softxent": ("softxent", _softxent),
    "torch": ("torch", _torch),
    "scikit-learn": ("sklearn", _sklearn),
    "scipy": ("scipy", _scipy),
    "optax": ("optax", _optax),
}


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


# Measuring and printing -------------------------------------------------------------------------

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
