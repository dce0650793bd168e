"""A large set of batches that is the same everywhere, and the SHA-256 of what they evaluate to.

Inputs come from a counter-based integer generator and from operations that IEEE 754 rounds
correctly: no random stream of a library and no function of libm stands in between. Run as a
program, this file prints the hashes as JSON; with --write it makes the golden ones again:

    .venv/bin/python tests/kernels/bit_cases.py --write
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - gives NumPy bfloat16
import numpy as np
import numpy.typing as npt
from bit_targets import target_sets
from splitmix import Generator, Integers

import softxent
from softxent import cross_entropy, hessian_vector_product

Array = npt.NDArray[Any]
Evaluate = Callable[["Batch", dict[str, Any]], dict[str, Any]]

GOLDEN = Path(__file__).with_name("golden_bits.json")
DTYPES = ("float32", "float64", "float16", "bfloat16")
CLASSES = (1, 2, 3, 7, 10, 16, 31, 32, 33, 64, 100, 1_000, 4_096, 4_097, 9_000, 40_000)
HALF_CLASSES = (2, 10, 33, 1_000, 9_000)
BATCHES = [
    (dtype, classes)
    for dtype in DTYPES
    for classes in (CLASSES if dtype in ("float32", "float64") else HALF_CLASSES)
]
ELEMENTS = 120_000
"""At least this many logits a batch: enough for the parallel loop whatever the classes."""

FEWER_ELEMENTS = 33_000
"""The same for batches with every kind of target."""

ROWS = ("loss", "gradient", "log_normalizer", "probabilities")
SUMS = ("loss_sum", "weight_sum", "count")


# Batches ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Logits [N, C], labels [N]."""

    logits: Array
    labels: Integers

    def rows(self, rows: Any) -> Batch:
        """Return some of the rows."""
        return Batch(self.logits[rows], self.labels[rows])


def families(g: Generator, dtype: str, rows: int, classes: int) -> Iterator[Array]:
    """Yield blocks of logits [rows, classes], each a way to lose digits or to meet an edge."""
    shape = rows, classes
    place = np.arange(classes)
    chosen = place == g.below(classes, rows, 1)
    for scale in (2.0**-24, 0.125, 1.0, 8.0, 64.0, 256.0):
        yield g.bell(*shape) * scale
    for offset in (1e8, -1e8, 1e4, 511.5, -511.5, 4095.5, -4096.5):
        yield g.bell(*shape) + offset
    for gap in (4.0, 17.0, 40.0, 87.5, 92.0, 103.9, 350.0, 708.5, 745.2):
        yield np.where(chosen, gap, 0.0)
        yield np.where(chosen, gap, g.below(7, *shape) / 8)
    for value in (0.0, 0.1, 512.0, -4096.0, 1e8, -1e30):
        yield np.full(shape, value)
    yield place * 7919 % classes * (120.0 / classes) - 60.0 + g.bell(rows, 1)
    yield place * -1e6 + g.bell(rows, 1)
    yield g.below(5, *shape) - 2.0
    yield (g.below(3, *shape) - 1.0) * 350.0
    yield np.where(g.below(2, *shape) == 0, 0.0, -0.0)
    yield np.where(g.below(3, *shape) == 0, -1e8, g.bell(*shape))
    for exponents in (0, 12, 40, 250):
        yield g.patterns(dtype, exponents, *shape)
    yield g.patterns("float64", 2000, *shape) if dtype == "float64" else g.bell(*shape) * 4
    yield np.where(g.below(3, *shape) == 0, -np.inf, g.bell(*shape))
    yield np.where(chosen, g.bell(rows, 1), -np.inf)
    yield np.where(chosen, np.nan, g.bell(*shape))
    yield np.where(chosen, np.inf, g.bell(*shape))
    yield np.full(shape, -np.inf)


@functools.lru_cache(maxsize=1)
def batch(dtype: str, classes: int) -> Batch:
    """Return every family, row by row in turns; every third label stands at the maximum."""
    g = Generator.named(f"{dtype} {classes}")
    rows = 1 + ELEMENTS // (50 * classes)
    drawn = "float64" if dtype == "float64" else "float32"
    with np.errstate(over="ignore"):
        blocks = [np.asarray(b, drawn).astype(dtype) for b in families(g, drawn, rows, classes)]
    logits = np.stack(np.broadcast_arrays(*blocks), axis=1).reshape(-1, classes)
    labels = g.below(classes, len(logits))
    labels[::3] = logits[::3].argmax(axis=1)
    return Batch(logits, labels)


def option_sets(rows: int, classes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and keyword arguments; those of `ROW_ARGUMENTS` hold a value a row."""
    g = Generator.named(f"options {rows} {classes}")
    weights = (1 + g.below(1000, classes)) / 512
    weights[g.below(4, classes) == 0] = 0.0
    weights[classes // 2] = 1e12
    moderate = np.array([0.0, 0.3, 1.0, 7.7])[g.below(4, rows)]
    extreme = np.array([0.0, 1e-320, 1e-42, 0.3, 1.0, 1e39, 1e300])[g.below(7, rows)]
    yield "plain", {}
    yield "smoothed", {"label_smoothing": 0.1}
    yield "spread", {"label_smoothing": 1.0, "scale": 3.0}
    yield "weighted", {"class_weights": weights}
    yield "weighted, smoothed", {"class_weights": weights, "label_smoothing": 0.3}
    yield "extreme row weights", {"row_weights": extreme, "scale": -0.37, "ignore_index": 1}
    yield "extreme row weights, smoothed", {"row_weights": extreme, "label_smoothing": 0.01}
    yield "extreme scale", {"scale": 1e-38, "label_smoothing": 0.5, "class_weights": weights}
    yield "mean", {"reduction": "mean", "row_weights": moderate, "label_smoothing": 0.1}
    yield "mean by denominator", {"reduction": "mean", "denominator": 7e5, "scale": 65536.0}


ROW_ARGUMENTS = (
    "row_weights",
    "target_probabilities",
    "target_indices",
    "target_log_probabilities",
    "class_mask",
    "vectors",
)


def of_rows(options: dict[str, Any], rows: Integers) -> dict[str, Any]:
    """Return the options of some of the rows; a class mask may be the same for all of them."""

    def cut(name: str, value: Any) -> Any:
        shared = name not in ROW_ARGUMENTS or (name == "class_mask" and value.ndim == 1)
        return value if shared else value[rows]

    return {name: cut(name, value) for name, value in options.items()}


# Ways to evaluate a batch -----------------------------------------------------------------------


def evaluate(given: Batch, options: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Evaluate a batch; rows that are not finite are returned."""
    call = {"labels": given.labels, "non_finite": "propagate", **options, **how}
    if "vectors" in call:
        return {"hessian_vector_product": hessian_vector_product(given.logits, **call)}
    return vars(cross_entropy(given.logits, **{"outputs": ROWS, **call}))


WHOLE = ("one thread", "two threads", "in place")
"""The ways that have sums: one call evaluates every row."""


def whole(threads: int) -> Evaluate:
    """Return a way that takes the batch as it is."""
    return lambda given, options: evaluate(given, options, num_threads=threads)


def in_place(given: Batch, options: dict[str, Any]) -> dict[str, Any]:
    """Write the gradient over a copy of the logits."""
    if "vectors" in options:
        return evaluate(given, options, out=np.empty_like(given.logits))
    copied = Batch(given.logits.copy(), given.labels)
    return evaluate(copied, options, out={"gradient": copied.logits})


def in_pieces(pieces: list[Integers]) -> Evaluate:
    """Return a way that evaluates the rows of each piece on their own, in any order."""

    def way(given: Batch, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("reduction") == "mean":
            over_rows = options.get("mean_over") == "rows"
            divisor = evaluate(given, options)["count" if over_rows else "weight_sum"]
            options = {"denominator": divisor, **options, "mean_over": "weights"}
        parts: dict[str, list[Array]] = {}
        for rows in pieces:
            result = evaluate(given.rows(rows), of_rows(options, rows))
            for name, values in _rows_of(result, options).items():
                parts.setdefault(name, []).append(values)
        place = np.argsort(np.concatenate(pieces))
        return {name: np.concatenate(values)[place] for name, values in parts.items()}

    return way


def chunked(rows: int, size: int) -> Evaluate:
    """Return a way that takes consecutive rows, `size` at a time."""
    return in_pieces([np.arange(i, min(i + size, rows)) for i in range(0, rows, size)])


def reordered(rows: int) -> Evaluate:
    """Return a way that takes all rows in another order."""
    return in_pieces([np.argsort(Generator.named("order").words(rows), kind="stable")])


def ways(rows: int) -> dict[str, Evaluate]:
    """Return every way to evaluate a batch of this many rows."""
    return {
        "one thread": whole(1),
        "two threads": whole(2),
        "in place": in_place,
        "reordered": reordered(rows),
        "chunked": chunked(rows, 13 + rows // 40),
    }


# Hashes -----------------------------------------------------------------------------------------


def _rows_of(values: dict[str, Any], options: dict[str, Any]) -> dict[str, Array]:
    """Return the outputs that hold a value a row: the mean of the loss does not."""
    names = options.get("outputs", ROWS) if "vectors" not in options else values
    return {n: values[n] for n in names if n != "loss" or "reduction" not in options}


def _add(digest: Any, values: Any) -> None:
    """Add the bytes of an array, with one NaN for all of them; its sign and payload are free."""
    array = np.array(values)
    if array.dtype.kind not in "ib":
        array[np.isnan(array)] = np.nan
    digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def hashes(dtype: str, classes: int, way: str) -> dict[str, str]:
    """Return name -> SHA-256 of one batch under every set of options; sums where there are any."""
    given = batch(dtype, classes)
    found: dict[str, str] = {}
    sums = hashlib.sha256()
    fewer = given.rows(np.arange(min(len(given.labels), 50 + FEWER_ELEMENTS // classes)))
    sets = [(given, *named) for named in option_sets(*given.logits.shape)]
    sets += [(fewer, *named) for named in target_sets(fewer.logits, fewer.labels)]
    for part, name, options in sets:
        evaluate_so = ways(len(part.labels))[way]
        values = evaluate_so(part, options)
        digest = hashlib.sha256()
        for output in _rows_of(values, options).values():
            _add(digest, output)
        found[f"{dtype} {classes} {name}"] = digest.hexdigest()
        if way in WHOLE and "vectors" not in options:
            # One NaN, infinity or 1e30 would leave nothing of the other rows in a sum.
            calm = np.flatnonzero(np.asarray(evaluate(part, {})["loss"]) < 1e6)
            values = evaluate_so(part.rows(calm), of_rows(options, calm))
            for field in (*SUMS, "loss") if "reduction" in options else SUMS:
                _add(sums, values[field])
    if way in WHOLE:
        found[f"{dtype} {classes} sums"] = sums.hexdigest()
    return found


def golden() -> tuple[int, dict[str, str]]:
    """Return the numerics version that the golden hashes belong to, and the hashes."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return stored["numerics"], stored["sha256"]


def main() -> None:
    """Print the hashes of every batch, or make the golden ones again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", default="one thread")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--write", action="store_true", help=f"write {GOLDEN.name}")
    given = parser.parse_args()
    found: dict[str, str] = {}
    for dtype, classes in BATCHES:
        if dtype in given.dtypes and classes in given.classes:
            found |= hashes(dtype, classes, given.way)
    stored = {"numerics": softxent.NUMERICS_VERSION, "sha256": found}
    text = json.dumps(stored, indent=1) + "\n"
    if given.write:
        GOLDEN.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
