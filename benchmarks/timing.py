"""Timing by turns: in every round all candidates run once, so that a slow spell meets them all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Work = Callable[[], object]


def aligned(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Return an array that starts on a cache line and whose pages exist."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return np.asarray(raw[start : start + size].view(dtype).reshape(shape))


def medians(candidates: Mapping[str, Work | None], rounds: int) -> dict[str, float]:
    """Return each candidate's median seconds, NaN for None; each runs once before that."""
    works = {name: work for name, work in candidates.items() if work is not None}
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    found = {name: statistics.median(values) for name, values in times.items()}
    return {name: found.get(name, float("nan")) for name in candidates}


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def against(ratio: float, goal: float | None, *, at_most: bool = True) -> str:
    """Return a ratio and whether it reaches its goal."""
    if ratio != ratio:
        return "not installed"
    shown = f"{ratio:.2f}x"
    if goal is None:
        return shown
    reached = ratio <= goal if at_most else ratio >= goal
    sign = "<=" if at_most else ">="
    return f"{shown} ({sign} {goal:g}: {'reached' if reached else 'missed'})"
