"""Time of the kernels beside np.copyto of the same array, and beside the usual libraries.

All candidates of a shape take turns in one run; figures are medians over the rounds, so that a
slow spell of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tables import print_table

import softxent

SHAPES = ((65_536, 10), (8_192, 1_000), (1_024, 32_000), (256, 128_256))
DTYPES = ("float32", "float64")

Work = Callable[[], object]


def aligned(shape: tuple[int, int], dtype: str) -> npt.NDArray[Any]:
    """Return an array that starts on a cache line and whose pages exist."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def medians(candidates: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return each candidate's median seconds; in every round all of them run once."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for work in candidates.values():
        work()
    for _ in range(rounds):
        for name, work in candidates.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def ours(shape: tuple[int, int], dtype: str, threads: int) -> tuple[dict[str, Work], Work]:
    """Return our candidates for a shape, and np.copyto."""
    generator = np.random.default_rng(0)
    logits, gradient, other = (aligned(shape, dtype) for _ in range(3))
    logits[:] = generator.normal(scale=3.0, size=shape)
    other[:] = logits
    labels = generator.integers(0, shape[1], shape[0])

    def call(array: npt.NDArray[Any], **options: Any) -> object:
        return softxent.cross_entropy(array, labels, num_threads=threads, **options)

    return {
        "in place": lambda: call(other, out={"gradient": other}),
        "out of place": lambda: call(logits, out={"gradient": gradient}),
        "loss only": lambda: call(logits, outputs=("loss",)),
    }, lambda: np.copyto(gradient, logits)


def torch_eager(shape: tuple[int, int], dtype: str, threads: int) -> Work | None:
    """Return torch's cross_entropy forward and backward, or None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=getattr(torch, dtype)) * 3
    logits.requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0],), generator=generator)

    def work() -> None:
        logits.grad = None
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()

    return work


def scikit_learn(shape: tuple[int, int], dtype: str, threads: int) -> Work:
    """Return scikit-learn's fused loss and gradient."""
    from sklearn._loss.loss import HalfMultinomialLoss

    loss = HalfMultinomialLoss(n_classes=shape[1])
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=3.0, size=shape).astype(dtype)
    labels = generator.integers(0, shape[1], shape[0]).astype(dtype)
    loss_out = np.empty(shape[0], dtype)
    gradient_out = np.empty(shape, dtype)
    return lambda: loss.loss_gradient(
        y_true=labels,
        raw_prediction=logits,
        loss_out=loss_out,
        gradient_out=gradient_out,
        n_threads=threads,
    )


def table(dtype: str, threads: int, rounds: int) -> None:
    """Print one table: every shape, ours and the peers, on a number of threads."""
    rows = []
    for shape in SHAPES:
        candidates, copy = ours(shape, dtype, threads)
        peers = {"scikit-learn": scikit_learn(shape, dtype, threads)}
        torch = torch_eager(shape, dtype, threads)
        if torch is not None:
            peers["torch"] = torch
        seconds = medians({"copy": copy, **candidates, **peers}, rounds)
        copied = seconds["copy"]
        row = [f"{shape[0]:,} x {shape[1]:,}", f"{copied * 1e3:.2f}"]
        row += [f"{seconds[name] * 1e3:.2f} ({seconds[name] / copied:.2f}x)" for name in candidates]
        for peer in ("torch", "scikit-learn"):
            row.append(
                f"{seconds[peer] * 1e3:.1f} ({seconds[peer] / seconds['out of place']:.1f}x)"
                if peer in seconds
                else "not installed"
            )
        rows.append(row)
    header = [
        "shape",
        "np.copyto, ms",
        "in place, ms (over copyto)",
        "out of place",
        "loss only",
        "torch eager, ms (over ours out of place)",
        "scikit-learn (the same)",
    ]
    print_table(f"{dtype}, {threads} threads, medians of {rounds}", header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="*", default=[os.cpu_count() or 1, 1])
    given = parser.parse_args(arguments)
    for threads in given.threads:
        for dtype in DTYPES:
            table(dtype, threads, given.rounds)


if __name__ == "__main__":
    main()
