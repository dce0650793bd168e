"""Targets, transforms and outputs of all kinds for the batches of `bit_cases`.

As there, every number comes from integers and from operations that IEEE 754 rounds correctly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from splitmix import Generator, Integers

from softxent import OUTPUTS

Array = npt.NDArray[Any]

ENTRIES = 5
WITHOUT_LABELS = tuple(name for name in OUTPUTS if name not in ("correct", "rank"))
WITHOUT_HESSIAN = tuple(name for name in OUTPUTS if name != "hessian_diagonal")

NAMES = (
    "all outputs",
    "z-loss, mask",
    "cold, masks, others",
    "hot, weighted",
    "softcap",
    "probabilities",
    "probabilities, weighted, smoothed",
    "top-k",
    "top-k, tail lost",
    "bucket",
    "label and probabilities",
    "label and bucket, mean",
    "product",
)


def target_sets(logits: Array, labels: Integers) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and keyword arguments; without labels where they say `"labels": None`."""
    rows, classes = logits.shape
    g = Generator.named(f"targets {logits.dtype} {rows} {classes}")
    weights = {"class_weights": (1 + g.below(1000, classes)) / 512}
    indices, logs = top_k(g, rows, classes)
    entries: dict[str, Any] = {"target_indices": indices, "target_log_probabilities": logs}
    keep = g.below(3, rows, classes) > 0
    keep[np.arange(rows), labels] = True
    masks = {"class_mask": keep | (np.arange(classes) == labels[0])}
    mask = {"class_mask": np.ones(classes, bool)}
    mask["class_mask"][: classes // 3] = np.isin(np.arange(classes // 3), labels)
    dense = {"target_probabilities": shares(g, rows, classes).astype(logits.dtype)}
    soft: dict[str, Any] = {"labels": None, "outputs": WITHOUT_LABELS}
    mean = {"reduction": "mean", "mean_over": "rows"}
    sets: list[dict[str, Any]] = [
        {"outputs": OUTPUTS},
        {"outputs": OUTPUTS, "z_loss": 0.01, **mask},
        {"outputs": OUTPUTS, "temperature": 0.01, "label_smoothing": 0.1, **masks}
        | {"smoothing": "others"},
        {"outputs": OUTPUTS, "temperature": 100.0, "label_smoothing": 0.1, **weights},
        {"outputs": WITHOUT_HESSIAN, "softcap": 30.0, "temperature": 1.7},
        {**soft, **dense},
        {**soft, **dense, **weights, "label_smoothing": 0.2, "z_loss": 1e-4},
        {**soft, **entries},
        {**soft, **entries, "tail": "none", "temperature": 2.0},
        {**soft, **entries, "tail": "bucket"},
        {"outputs": OUTPUTS, **dense, "hard_weight": 0.3},
        {"outputs": OUTPUTS, **entries, "tail": "bucket", "hard_weight": 0.7, **mean},
        {"vectors": g.bell(rows, classes), "z_loss": 0.1, **entries, "labels": None},
    ]
    yield from zip(NAMES, sets, strict=True)


def top_k(g: Generator, rows: int, classes: int) -> tuple[Integers, Array]:
    """Return classes at equal distances, the last one now and then a pad, and logarithms."""
    count = min(ENTRIES, classes)
    first = g.below(classes, rows, 1)
    indices = (first + np.arange(count) * (classes // count)) % classes
    indices[g.below(4, rows) == 0, count - 1] = -1
    return indices, -2.0 - g.below(64, rows, count) / 8


def shares(g: Generator, rows: int, classes: int) -> Array:
    """Return probabilities of integers over their sum; a third of the rows are one-hot."""
    counts = 1 + g.below(1000, rows, classes)
    counts[::3] = np.arange(classes) == g.below(classes, rows, 1)[::3]
    whole: Array = counts / counts.sum(1, keepdims=True)
    return whole
