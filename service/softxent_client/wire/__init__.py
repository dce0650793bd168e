"""Both directions of both encodings: bytes to named arrays and back, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.options import OUTPUTS
from softxent.results import CrossEntropyResult
from softxent_client.wire import json_form, safetensors_form
from softxent_client.wire.errors import LimitExceededError, MalformedBodyError, WireError
from softxent_client.wire.limits import Limits
from softxent_client.wire.schema import REQUEST, RESPONSE, Schema

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"

MEDIA_TYPES = {JSON: json_form, SAFETENSORS: safetensors_form}
"""The module with `decode` and `encode` for each media type."""

__all__ = [
    "JSON",
    "MEDIA_TYPES",
    "REQUEST",
    "RESPONSE",
    "SAFETENSORS",
    "LimitExceededError",
    "Limits",
    "MalformedBodyError",
    "Schema",
    "WireError",
    "json_form",
    "result_from_tensors",
    "result_tensors",
    "safetensors_form",
]


def result_tensors(result: CrossEntropyResult) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of an answer; numbers become 0-d float64 or int64 arrays."""
    tensors = {
        name: np.asarray(value) for name in OUTPUTS if (value := getattr(result, name)) is not None
    }
    return {
        **tensors,
        "loss_sum": np.asarray(result.loss_sum, np.float64),
        "weight_sum": np.asarray(result.weight_sum, np.float64),
        "count": np.asarray(result.count, np.int64),
    }


def result_from_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> CrossEntropyResult:
    """Return the result that an answer's tensors describe; the arrays are not copied."""
    outputs: dict[str, Any] = {name: tensors.get(name) for name in OUTPUTS}
    loss = outputs["loss"]
    if loss is not None and loss.ndim == 0:
        outputs["loss"] = float(loss)
    return CrossEntropyResult(
        **outputs,
        loss_sum=float(tensors["loss_sum"]),
        weight_sum=float(tensors["weight_sum"]),
        count=int(tensors["count"]),
    )
