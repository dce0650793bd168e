"""Models of the protocol, one for each evaluation, and their metadata."""

from __future__ import annotations

from typing import Any

import softxent
from softxent.evaluations import EVALUATIONS, INTEGERS, PER_LOGIT, Evaluation
from softxent_client.wire import REQUEST
from softxent_client.wire.oip_form import NAMES
from softxent_service.http.errors import UnknownModelError
from softxent_service.http.readiness import Readiness

Json = dict[str, Any]

VERSION = "1"
"""Of every model: what it takes and gives. Its bits are numbered by `numerics` in its config."""

PLATFORM = "softxent"

EXTENSIONS = ("binary_tensor_data", "parameters", "statistics", "model_configuration")

_SHAPES = {"class_weights": [-1], "labels": [-1], "row_weights": [-1]}
_FLOATS = "FP32"
"""Told of floats; the others are taken as well, and outputs follow the logits."""


def find_model(model: str, version: str | None = None) -> Evaluation:
    """Return a model.

    Raises:
        UnknownModelError: there is none, or not in this version.
    """
    if model not in EVALUATIONS:
        known = ", ".join(EVALUATIONS)
        raise UnknownModelError(
            f"Request for unknown model: {model!r} is not found; known are {known}", field="model"
        )
    if version not in (None, VERSION):
        raise UnknownModelError(
            f"Request for unknown model: {model!r} version {version} is not found; there is "
            f"version {VERSION}",
            field="version",
        )
    return EVALUATIONS[model]


def server_metadata(*, shared_memory: bool) -> Json:
    """Return what the server is."""
    extensions = [*EXTENSIONS, *(["system_shared_memory"] if shared_memory else [])]
    return {"name": "softxent", "version": softxent.__version__, "extensions": extensions}


def model_metadata(model: Evaluation) -> Json:
    """Return inputs and outputs of a model; -1 stands for any number."""
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, datatype, shape in _inputs(model)
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, datatype, shape in _outputs(model)
        ],
    }


def model_config(model: Evaluation) -> Json:
    """Return the same as a Triton `ModelConfig`; what it may be called without is optional."""
    needed = REQUEST(evaluation=model).required
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [
            _configured(name, datatype, shape) | {"optional": name not in needed}
            for name, datatype, shape in _inputs(model)
        ],
        "output": [_configured(*one) for one in _outputs(model)],
        "parameters": {"numerics": {"string_value": str(softxent.NUMERICS_VERSION)}},
    }


def repository_index(readiness: Readiness, *, ready_only: bool) -> list[Json]:
    """Return every model and whether it may be called."""
    reason = readiness.unready
    if reason is not None and ready_only:
        return []
    state = {"state": "READY", "reason": ""}
    if reason is not None:
        state = {"state": "UNAVAILABLE", "reason": reason}
    return [{"name": name, "version": VERSION, **state} for name in EVALUATIONS]


def _configured(name: str, datatype: str, shape: list[int]) -> Json:
    return {"name": name, "data_type": f"TYPE_{datatype}", "dims": shape}


def _inputs(model: Evaluation) -> list[tuple[str, str, list[int]]]:
    return [
        (name, _dtype_names(field.dtypes), _SHAPES.get(name, [-1, -1]))
        for name, field in REQUEST(evaluation=model).fields.items()
    ]


def _dtype_names(dtypes: tuple[str, ...]) -> str:
    """Return one data type for an input that takes several."""
    if "F32" in dtypes:
        return _FLOATS
    return "INT64" if "I64" in dtypes else NAMES[dtypes[0]]


def _outputs(model: Evaluation) -> list[tuple[str, str, list[int]]]:
    return [
        (name, INTEGERS.get(name, "FP32").upper(), [-1, -1] if name in PER_LOGIT else [-1])
        for name in model.outputs
    ]
