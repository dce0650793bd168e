"""Codecs: named arrays from bytes and back, in every encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent_client.wire import json_form, oip_form, safetensors_form
from softxent_client.wire.errors import (
    LimitExceededError,
    MalformedBodyError,
    NotSupportedError,
    UnknownNameError,
    WireError,
)
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
    "NotSupportedError",
    "Schema",
    "UnknownNameError",
    "WireError",
    "json_form",
    "oip_form",
    "result_tensors",
    "results_of",
    "safetensors_form",
]


def result_tensors(results: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of an answer; numbers become 0-d float64 or int64 arrays."""
    return {name: np.asarray(value) for name, value in results.items()}


def results_of(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Return the results that an answer's tensors describe; the arrays are not copied."""
    return {name: value if value.ndim else value.item() for name, value in tensors.items()}
