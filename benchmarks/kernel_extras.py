"""The kernels beside themselves: types, targets, outputs, sizes, small calls, compiling."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numba
import numpy as np
from kernel_peers import scikit_learn, torch_eager
from tables import print_table
from timing import Work, against, aligned, medians, progress

import softxent

SHAPE = (1_024, 32_000)
ENTRIES = 64
HALF_GOAL = 0.8
TOP_K_GOAL = 1.1
READ_GOAL = 2.0
LARGE_GOAL = 1.2
LARGE = (31_250, 32_000)
"""10^9 logits, 4 GB of float32, evaluated in place."""


@numba.njit(parallel=True)
def read_pass(values: Any) -> Any:  # pragma: no cover - compiled
    """Read an array of uint32 [N, C] once, on all threads there are."""
    total = np.zeros(values.shape[0], np.uint32)
    for i in numba.prange(values.shape[0]):
        part = np.uint32(0)
        for j in range(values.shape[1]):
            part += values[i, j]
        total[i] = part
    return total.sum()


def batch(shape: tuple[int, int] = SHAPE, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Return logits and labels."""
    generator = np.random.default_rng(0)
    logits = aligned(shape, dtype)
    logits[:] = (generator.standard_normal(shape, np.float32) * 3).astype(dtype)
    return logits, generator.integers(0, shape[1], shape[0])


def tables(threads: int, rounds: int) -> None:
    """Print every table of this file that depends on the number of threads."""
    numba.set_num_threads(threads)
    progress("16-bit types")
    half_table(threads, rounds)
    progress("targets and transforms")
    targets_table(threads, rounds)
    progress("outputs")
    outputs_table(threads, rounds)
    progress("sizes")
    sizes_table(threads)
    if threads == 1:
        small_table()


def half_table(threads: int, rounds: int) -> None:
    """Print elements a second of 16-bit types over those of float32."""
    call = partial(softxent.cross_entropy, num_threads=threads)
    works: dict[str, Work | None] = {}
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        logits, labels = batch(dtype=dtype)
        other, gradient = logits.copy(), aligned(SHAPE, dtype)
        name = np.dtype(dtype).name
        works[f"{name} in place"] = partial(call, other, labels, out={"gradient": other})
        works[f"{name} out of place"] = partial(call, logits, labels, out={"gradient": gradient})
    seconds = medians(works, rounds)
    rows = [
        [name, *(rate(seconds, name, how) for how in ("in place", "out of place"))]
        for name in ("float16", "bfloat16")
    ]
    print_table(
        f"elements a second over float32's, {threads} threads",
        ["type", "in place", "out of place"],
        rows,
    )


def rate(seconds: dict[str, float], name: str, how: str) -> str:
    """Return float32's seconds over those of another type."""
    ratio = seconds[f"float32 {how}"] / seconds[f"{name} {how}"]
    return against(ratio, HALF_GOAL, at_most=False)


def targets_table(threads: int, rounds: int) -> None:
    """Print targets and transforms over plain labels, loss and gradient out of place."""
    logits, labels = batch()
    gradient = aligned(SHAPE, np.float32)
    generator = np.random.default_rng(1)
    indices = np.argsort(generator.random((SHAPE[0], SHAPE[1])), axis=1)[:, :ENTRIES].copy()
    entries = {
        "target_indices": indices,
        "target_log_probabilities": -5.0 - generator.random(indices.shape),
    }
    dense = np.full(SHAPE, 1 / SHAPE[1], np.float32)
    plain = {"labels": labels}
    calls: dict[str, dict[str, Any]] = {
        "labels": plain,
        "top-k, renormalize": {**entries, "tail": "renormalize"},
        "top-k, bucket": {**entries, "tail": "bucket"},
        "top-k, none": {**entries, "tail": "none"},
        "probabilities": {"target_probabilities": dense},
        "label smoothing": {**plain, "label_smoothing": 0.1},
        "z-loss": {**plain, "z_loss": 1e-4},
        "temperature": {**plain, "temperature": 2.0},
        "softcap": {**plain, "softcap": 30.0},
        "class mask": {**plain, "class_mask": np.ones(SHAPE[1], bool)},
    }
    plain_call = partial(
        softxent.cross_entropy, logits, out={"gradient": gradient}, num_threads=threads
    )
    works: dict[str, Work | None] = {
        name: partial(plain_call, **options) for name, options in calls.items()
    }
    seconds = medians(works, rounds)
    goals = {"top-k, renormalize": TOP_K_GOAL, "top-k, none": TOP_K_GOAL}
    rows = [
        [name, f"{s * 1e3:.2f}", against(s / seconds["labels"], goals.get(name))]
        for name, s in seconds.items()
    ]
    print_table(
        f"float32 {SHAPE[0]:,} x {SHAPE[1]:,}, K = {ENTRIES}, {threads} threads",
        ["target or option", "ms", "over labels"],
        rows,
    )


def outputs_table(threads: int, rounds: int) -> None:
    """Print each output alone over a read pass and over loss with gradient."""
    logits, labels = batch()
    vectors = logits.copy()
    patterns = logits.view(np.uint32)
    call = partial(softxent.cross_entropy, logits, labels, num_threads=threads)
    works: dict[str, Work | None] = {
        "read pass": partial(read_pass, patterns),
        "loss and gradient": call,
        **{name: partial(call, outputs=name) for name in softxent.OUTPUTS},
        "hessian_vector_product": partial(
            softxent.hessian_vector_product, logits, vectors, labels, num_threads=threads
        ),
    }
    seconds = medians(works, rounds)
    rows = [
        [
            name,
            f"{s * 1e3:.2f}",
            against(s / seconds["read pass"], READ_GOAL if name == "loss" else None),
            against(s / seconds["loss and gradient"], None),
        ]
        for name, s in seconds.items()
    ]
    print_table(
        f"outputs alone, float32 {SHAPE[0]:,} x {SHAPE[1]:,}, new arrays, {threads} threads",
        ["output", "ms", "over a read pass", "over loss and gradient"],
        rows,
    )


def sizes_table(threads: int) -> None:
    """Print the time for an element of 10^9 over that of 10^7, in place."""
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 6 << 30:
        print("\n10^9 logits: not measured, less than 6 GiB of memory are free")
        return
    nanoseconds = []
    for shape in ((LARGE[0] // 100, LARGE[1]), LARGE):
        logits = np.empty(shape, np.float32)
        row = np.random.default_rng(0).standard_normal(shape[1], np.float32) * 3
        logits[:] = row
        labels = np.zeros(shape[0], np.int64)
        call = partial(softxent.cross_entropy, logits, labels, num_threads=threads)
        work = partial(call, out={"gradient": logits})
        nanoseconds.append(medians({"call": work}, 3)["call"] / logits.size * 1e9)
    ratio = against(nanoseconds[1] / nanoseconds[0], LARGE_GOAL)
    rows = [[f"{nanoseconds[0]:.3f}", f"{nanoseconds[1]:.3f}", ratio]]
    header = ["10^7 logits, ns each", "10^9 logits", "ratio"]
    print_table(f"float32 in place, {threads} threads", header, rows)


def small_table() -> None:
    """Print microseconds of small calls on one thread, beside peers'."""
    rows = []
    for shape in ((1, 10), (32, 1_000)):
        logits, labels = batch(shape)
        works: dict[str, Work | None] = {
            "softxent": partial(softxent.cross_entropy, logits, labels, num_threads=1),
            "torch eager": torch_eager(logits, labels, 1),
            "scikit-learn": scikit_learn(logits, labels, 1),
        }
        seconds = medians(works, 500)
        shown = [f"{s * 1e6:.0f}" if s == s else "not installed" for s in seconds.values()]
        rows.append([f"{shape[0]} x {shape[1]:,}", *shown])
    header = ["shape", "softxent, us", "torch eager", "scikit-learn"]
    print_table("small calls, loss and gradient, one thread", header, rows)


WARM_UP = """
import time
began = time.perf_counter()
from softxent import serving
serving.warm_up()
from softxent._kernels.build.compilation import cache_directory, compile_events
print(time.perf_counter() - began, len(list(cache_directory().glob("*.nbi"))))
"""


def compile_table() -> None:
    """Print how long a process takes until every kernel is there, with and without a cache."""
    progress("compiling every kernel, twice")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(softxent.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, Path(folder) / "softxent", ignore=ignore)
        environment = {**os.environ, "PYTHONPATH": folder, "HOME": folder}
        rows = []
        for what in ("no cache", "cache filled"):
            done = subprocess.run(
                [sys.executable, "-P", "-c", WARM_UP],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            seconds, kernels = done.stdout.split()
            rows.append([what, f"{float(seconds):.1f}", kernels])
    print_table(
        f"import and warm-up of a process, {os.cpu_count()} cores",
        ["machine code", "seconds", "kernels"],
        rows,
    )
