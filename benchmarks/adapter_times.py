"""Loss and gradient through the adapters beside the frameworks' own losses, and peak memory.

Each number of threads is measured in a process of its own that is bound to as many cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import print_table
from timing import Work, against, medians, progress
from torch.nn.functional import cross_entropy as torchs

from softxent.torch import cross_entropy

TORCH_CASES: tuple[tuple[int, int, torch.dtype, float | None, float | None], ...] = (
    (1_024, 32_000, torch.float32, 8, 4),
    (1_024, 32_000, torch.bfloat16, 6, None),
    (256, 128_256, torch.float32, 6, None),
    (65_536, 10, torch.float32, 7, None),
    (32, 1_000, torch.float32, 1 / 1.4, None),
)
"""Rows, classes, dtype; how many times faster than eager and than compiled is aimed at."""


class Owned(torch.autograd.Function):
    """Makes a buffer autograd's own, as a layer's output is, without any work."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        ctx.mark_dirty(buffer)
        return buffer

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ARG004
        return gradient.view(-1)[:1], None


def torch_works(rows: int, classes: int, dtype: torch.dtype) -> dict[str, Work | None]:
    """Return eager, compiled and ours, out of place and in place."""
    torch.manual_seed(0)
    x = torch.randn(rows, classes).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (rows,))
    weight = torch.zeros(1, requires_grad=True)
    buffer = x.detach().clone()
    compiled = torch.compile(torchs)

    def step(loss: Callable[..., Any]) -> None:
        x.grad = None
        loss(x, labels).backward()

    def in_place() -> None:
        weight.grad = None
        cross_entropy(Owned.apply(weight, buffer.detach()), labels, inplace=True).backward()

    return {
        "eager": partial(step, torchs),
        "compiled": partial(step, compiled),
        "ours": partial(step, cross_entropy),
        "in place": in_place,
    }


def torch_table(rounds: int) -> None:
    """Print eager and compiled over ours."""
    header = ["logits", "eager, ms", "ours, ms", "in place, ms"]
    header += ["eager over ours", "eager over in place", "compiled over ours"]
    lines = []
    for rows, classes, dtype, over_eager, over_compiled in TORCH_CASES:
        progress(f"torch, {rows:,} x {classes:,}, {dtype}")
        count = rounds if rows * classes > 100_000 else rounds * 50
        seconds = medians(torch_works(rows, classes, dtype), count)
        eager, ours, in_place = (seconds[name] for name in ("eager", "ours", "in place"))
        lines.append(
            [
                f"{rows:,} x {classes:,} {str(dtype)[6:]}",
                *(f"{value * 1e3:.3g}" for value in (eager, ours, in_place)),
                against(eager / ours, over_eager, at_most=False),
                against(eager / in_place, over_eager, at_most=False),
                against(seconds["compiled"] / ours, over_compiled, at_most=False),
            ]
        )
    print_table(f"PyTorch, forward and backward, {torch.get_num_threads()} threads", header, lines)


def jax_table(rounds: int) -> None:
    """Print optax under jit over ours, with logits that are kept and logits that are donated."""
    import jax
    import optax

    from softxent.jax import cross_entropy as ours

    logits = np.random.default_rng(0).normal(size=(1_024, 32_000)).astype(np.float32)
    labels = jax.numpy.asarray(np.arange(1_024))

    def mean(x: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()

    def our_mean(x: Any) -> Any:
        return ours(x, labels, reduction="mean")

    def kept(loss: Any) -> Work:
        step, x = jax.jit(jax.value_and_grad(loss)), jax.numpy.asarray(logits)
        return lambda: jax.block_until_ready(step(x))

    def donated(loss: Any) -> Work:
        step = jax.jit(jax.value_and_grad(loss), donate_argnums=0)
        held = [jax.numpy.array(logits, copy=True)]

        def work() -> None:
            _, held[0] = jax.block_until_ready(step(held[0]))

        return work

    progress("JAX")
    works = {
        "optax": kept(mean),
        "optax, donated": donated(mean),
        "ours": kept(our_mean),
        "ours, donated": donated(our_mean),
    }
    seconds = medians(works, rounds)
    lines = [
        [
            case.strip(", ") or "kept",
            f"{seconds[f'optax{case}'] * 1e3:.1f}",
            f"{seconds[f'ours{case}'] * 1e3:.1f}",
            against(seconds[f"optax{case}"] / seconds[f"ours{case}"], goal, at_most=False),
        ]
        for case, goal in (("", 1.4), (", donated", 3))
    ]
    header = ["logits 1,024 x 32,000", "optax under jit, ms", "ours, ms", "optax over ours"]
    print_table(
        "JAX, value and gradient", header, [[line[0].strip(", "), *line[1:]] for line in lines]
    )


MEMORY = """
import os, sys, torch
from process_memory import forget_peak, now, peak
from torch.nn.functional import cross_entropy as torchs
from softxent.torch import cross_entropy
name = sys.argv[1]
loss = {"eager": torchs, "ours": cross_entropy}.get(
    name, lambda x, y: cross_entropy(x, y, inplace=True))
h, w = torch.randn(1024, 4), torch.randn(32000, 4, requires_grad=True)
y = torch.randint(0, 32000, (1024,))
loss(torch.nn.functional.linear(h[:8], w[:64]), y[:8] % 64).backward()
forget_peak(os.getpid())
before = now(os.getpid())
loss(torch.nn.functional.linear(h, w), y).backward()
print((peak(os.getpid()) - before) / (1024 * 32000 * 4))
"""
"""The peak of `getrusage` will not do: a child begins with that of the process that started it."""


def memory_table() -> None:
    """Print by how much the peak of a process grows in one step, over the logits' bytes."""
    lines = []
    for name, goal in (("eager", None), ("ours", 2.05), ("in place", 1.05)):
        progress(f"memory, {name}")
        command = [sys.executable, "-c", MEMORY, name]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, env=here, capture_output=True, check=True, text=True)
        found = float(done.stdout)
        lines.append([name, against(found, goal)])
    print_table("Peak memory of a step, 1,024 x 32,000 float32", ["loss", "over logits"], lines)


def boosting_table(rounds: int) -> None:
    """Print whole rounds of boosting with our objective over those with the built-in one."""
    import lightgbm
    import xgboost

    import softxent.lightgbm
    import softxent.xgboost

    rows, classes = 65_536, 10
    random = np.random.default_rng(0)
    x, y = random.normal(size=(rows, 2)), random.integers(0, classes, rows)
    lines = []
    matrix = xgboost.DMatrix(x, label=y)
    shared = {"num_class": classes, "max_depth": 1, "base_score": 0.5}

    def of_xgboost(objective: Any) -> Work:
        own = {"objective": "multi:softprob"} if objective is None else {}
        return lambda: xgboost.train({**shared, **own}, matrix, 5, obj=objective)

    def of_lightgbm(objective: Any) -> Work:
        given = {"objective": objective, "num_class": classes, "num_leaves": 2, "verbosity": -1}
        return lambda: lightgbm.train(given, lightgbm.Dataset(x, y), 5)

    for name, works in {
        "XGBoost": (of_xgboost(None), of_xgboost(softxent.xgboost.SoftmaxObjective())),
        "LightGBM": (
            of_lightgbm("multiclass"),
            of_lightgbm(softxent.lightgbm.SoftmaxObjective()),
        ),
    }.items():
        progress(name)
        seconds = medians({"theirs": works[0], "ours": works[1]}, rounds)
        theirs, ours = seconds["theirs"], seconds["ours"]
        lines.append(
            [name, f"{theirs * 1e3:.0f}", f"{ours * 1e3:.0f}", against(ours / theirs, 1.0)]
        )
    header = ["library", "built in, ms", "ours, ms", "ours over it"]
    print_table("Five rounds of stumps, 65,536 rows, 10 classes", header, lines)


def measure(threads: int, rounds: int) -> None:
    """Print every table for one number of threads."""
    torch.set_num_threads(threads)
    torch_table(rounds)
    jax_table(rounds)
    memory_table()
    boosting_table(rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; without --here in a process for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
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


if __name__ == "__main__":
    main()
