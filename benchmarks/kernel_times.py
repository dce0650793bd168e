"""Time of the kernels beside np.copyto of the same array, and beside the usual libraries.

Each number of threads is measured in a process of its own that is bound to as many cores, because
not every library can be told how many threads to use.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import kernel_extras
import numpy as np
from kernel_peers import PEERS
from tables import print_table
from timing import Work, against, aligned, medians, progress

import softxent

SHAPES = ((65_536, 10), (8_192, 1_000), (1_024, 32_000), (256, 128_256))

GOALS: dict[str, tuple[float | None, ...]] = {
    "in place": (None, 0.8, 0.9, 0.9),
    "out of place": (3, 1.0, 1.15, 1.15),
    "torch eager": (10, 8, 12, 8),
    "torch.compile": (2, 2.5, 5, 2.5),
    "scikit-learn": (None,) * 4,
    "JAX, optax": (3, 5, 4, 5),
}
"""What is aimed at, for each shape in float32: ours over np.copyto, peers over ours."""

WIDE_GOAL = 1.5
"""The same for float64: ours, in and out of place, over np.copyto of its own array."""


def candidates(shape: tuple[int, int], dtype: str, threads: int) -> dict[str, Work | None]:
    """Return np.copyto, ours and, for float32, every peer."""
    generator = np.random.default_rng(0)
    logits, gradient, other = (aligned(shape, dtype) for _ in range(3))
    logits[:] = generator.normal(scale=3.0, size=shape)
    other[:] = logits
    labels = generator.integers(0, shape[1], shape[0])

    def call(array: Any, **options: Any) -> object:
        return softxent.cross_entropy(array, labels, num_threads=threads, **options)

    peers = PEERS if dtype == "float32" else {}
    return {
        "np.copyto": lambda: np.copyto(gradient, logits),
        "in place": lambda: call(other, out={"gradient": other}),
        "out of place": lambda: call(logits, out={"gradient": gradient}),
        "loss only": lambda: call(logits, outputs=("loss",)),
        **{name: make(logits, labels, threads) for name, make in peers.items()},
    }


def shapes_table(dtype: str, threads: int, rounds: int) -> None:
    """Print every shape: ours over np.copyto, peers over ours out of place."""
    header = ["shape", "np.copyto, ms", "in place, over it", "out of place", "loss only"]
    header += [f"{name}, over ours" for name in PEERS] if dtype == "float32" else []
    rows = []
    for i, shape in enumerate(SHAPES):
        progress(f"{dtype}, {shape[0]:,} x {shape[1]:,}, {threads} threads")
        seconds = medians(candidates(shape, dtype, threads), rounds)
        copied, ours = seconds["np.copyto"], seconds["out of place"]
        row = [f"{shape[0]:,} x {shape[1]:,}", f"{copied * 1e3:.2f}"]
        for name in ("in place", "out of place", "loss only"):
            goal = GOALS[name][i] if name in GOALS else None
            if dtype == "float64":
                goal = WIDE_GOAL if name != "loss only" else None
            row.append(against(seconds[name] / copied, goal))
        if dtype == "float32":
            row += [against(seconds[name] / ours, GOALS[name][i], at_most=False) for name in PEERS]
        rows.append(row)
    print_table(f"{dtype}, {threads} threads, medians of {rounds} rounds", header, rows)


def measure(threads: int, rounds: int) -> None:
    """Print every table for one number of threads."""
    for dtype in ("float32", "float64"):
        shapes_table(dtype, threads, rounds)
    kernel_extras.tables(threads, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; without --here in a process for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="*", default=[os.cpu_count() or 1, 1])
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        measure(given.here, given.rounds)
        return
    for threads in given.threads:
        cores = sorted(os.sched_getaffinity(0))[:threads]
        command = [sys.executable, __file__, "--here", str(threads), "--rounds", str(given.rounds)]
        bind = partial(os.sched_setaffinity, 0, cores)
        subprocess.run(command, check=True, preexec_fn=bind)
    kernel_extras.compile_table()


if __name__ == "__main__":
    main()
