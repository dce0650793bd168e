"""Functions for services: evaluation by name and in time slices, and machine code."""

from __future__ import annotations

import numpy as np

from softxent._api import cross_entropy
from softxent._execute import PARALLEL_ELEMENTS, TURN_ELEMENTS, Turn, evaluate
from softxent._kernels.build import compilation
from softxent._kernels.build.compilation import cache_directory
from softxent._kernels.loop import threads
from softxent._kernels.loop.precompile import precompile

__all__ = [
    "PARALLEL_ELEMENTS",
    "TURN_ELEMENTS",
    "Turn",
    "cache_directory",
    "compilations",
    "evaluate",
    "threading_layer",
    "warm_up",
]


def warm_up() -> None:
    """Compile, or load from the cache, every kernel there is, and start the kernel threads."""
    precompile(threads.available_threads())
    rows = PARALLEL_ELEMENTS // 64
    for dtype in ("float16", "float32", "float64"):
        cross_entropy(np.zeros((rows, 64), dtype), np.zeros(rows, np.int64))


def compilations() -> int:
    """Return how many kernels this process has compiled, not found as machine code."""
    return compilation.compile_events


def threading_layer() -> str | None:
    """Return what runs parallel loops ("omp", "tbb", "workqueue"); None before the first has."""
    return threads.layer()
