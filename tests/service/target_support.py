"""Batches of every kind of target, and how they are sent."""

from __future__ import annotations

from typing import Any

import httpx
import ml_dtypes
import numpy as np
import numpy.typing as npt
from service_support import BINARY, JSON, post

from softxent import Options
from softxent_client.wire import json_form, safetensors_form

Tensors = dict[str, npt.NDArray[Any]]

KINDS = ("labels", "probabilities", "top_k", "labels and probabilities", "labels and top_k")


def target_batch(kind: str, dtype: str = "float32", rows: int = 7, classes: int = 9) -> Tensors:
    """Return logits with a target: probabilities in the logits' dtype, top-k with pads."""
    random = np.random.default_rng(11)
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = {"logits": (random.normal(size=(rows, classes)) * 4).astype(stored)}
    if "labels" in kind:
        tensors["labels"] = random.integers(0, classes, rows)
        tensors["labels"][::5] = -100
    teacher = np.exp(random.normal(size=(rows, classes)) * 2)
    teacher /= teacher.sum(1, keepdims=True)
    if "probabilities" in kind:
        tensors["target_probabilities"] = teacher.astype(stored)
    if "top_k" in kind:
        indices = np.argsort(-teacher, axis=1)[:, :4]
        logs = np.log(np.take_along_axis(teacher, indices, 1))
        indices[::2, 3] = -1
        tensors |= {"target_indices": indices, "target_log_probabilities": logs}
    return tensors


def send(url: str, tensors: Tensors, form: str, options: dict[str, Any]) -> httpx.Response:
    """Send a batch in one of the forms, with `options` in the query."""
    pairs = Options(**options).to_text()
    if form == JSON:
        pairs["logits_dtype"] = tensors["logits"].dtype.name
    encode = json_form.encode if form == JSON else safetensors_form.encode
    body = b"".join(encode(tensors))
    return post(url, body, form, f"?{httpx.QueryParams(pairs)}", accept=BINARY)
