"""Forked children that evaluate and tell what they got."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

import softxent

ROWS, CLASSES = 700, 64
"""More logits than a serial loop takes."""


def batch(seed: int) -> tuple[Any, Any]:
    """Return logits and labels of a batch for the parallel loops."""
    g = np.random.default_rng(seed)
    return g.normal(size=(ROWS, CLASSES)).astype(np.float32), g.integers(0, CLASSES, ROWS)


def answer(seed: int) -> tuple[bytes, float]:
    """Return what a batch comes to; it enters the parallel loops where it may."""
    result = softxent.cross_entropy(*batch(seed), reduction="mean")
    assert result.gradient is not None
    return result.gradient.tobytes(), result.loss_sum


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked child.

    Raises:
        ChildProcessError: the child ended without an answer.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(writes, "wb") as told:
                pickle.dump(work(), told)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writes)
    with open(reads, "rb") as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    if status or not text:
        raise ChildProcessError(f"the child ended with {os.waitstatus_to_exitcode(status)}")
    return pickle.loads(text)  # noqa: S301 - our own child's
