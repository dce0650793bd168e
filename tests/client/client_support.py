"""Batches that the tests of the clients send, and how answers are compared."""

from __future__ import annotations

from typing import Any

import ml_dtypes
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


KINDS = ("labels", "probabilities", "top_k", "labels and probabilities", "labels and top_k")


def target_batch(
    kind: str, rows: int, dtype: str = "float32", soft: str | None = None
) -> dict[str, Any]:
    """Return a call of this kind, its soft target of dtype `soft`; the last class is in none."""
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    call = batch(rows)
    call["logits"] = call["logits"].astype(stored)
    labels = call.pop("labels") % 9
    labels[::11] = -100
    if "labels" in kind:
        call["labels"] = labels
    if " and " in kind:
        call["hard_weight"] = 0.3
    rng = np.random.default_rng(8)
    shares = np.exp(rng.normal(size=(rows, 10)) * 2)
    shares[:, -1] = 0
    shares /= shares.sum(1, keepdims=True)
    if "probabilities" in kind:
        call["target_probabilities"] = shares.astype(soft or stored)
    if "top_k" in kind:
        indices = np.argsort(-shares, axis=1)[:, :4]
        logs = np.log(np.take_along_axis(shares, indices, 1)).astype(soft or stored)
        indices[::2, 3] = -1
        call |= {"target_indices": indices, "target_log_probabilities": logs}
    return call


def assert_same(ours: CrossEntropyResult, theirs: CrossEntropyResult) -> None:
    for name in (*OUTPUTS, "loss_sum", "weight_sum", "count"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert type(a) is type(b), name
        if a is not None:
            assert np.asarray(a).dtype == np.asarray(b).dtype, name
            assert np.asarray(a).shape == np.asarray(b).shape, name
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name
