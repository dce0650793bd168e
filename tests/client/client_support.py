"""Batches that the tests of the clients send, and how answers are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from softxent.results import CrossEntropyResult
from softxent_client.shared import Encoding

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")
ENCODINGS: tuple[Encoding, ...] = ("binary", "json")


def batch(rows: int, classes: int = 10, dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, classes, rows)
    labels[::11] = -100
    return {
        "logits": (rng.normal(size=(rows, classes)) * 5).astype(dtype),
        "labels": labels,
        "class_weights": rng.uniform(size=classes),
        "row_weights": rng.uniform(size=rows) * (rng.uniform(size=rows) > 0.1),
    }


def assert_same(ours: CrossEntropyResult, theirs: CrossEntropyResult) -> None:
    for name in (*OUTPUTS, "loss_sum", "weight_sum", "count"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert type(a) is type(b), name
        if a is not None:
            assert np.asarray(a).dtype == np.asarray(b).dtype, name
            assert np.asarray(a).shape == np.asarray(b).shape, name
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name
