"""Options of an evaluation as parameters of the OpenAPI document."""

from __future__ import annotations

import dataclasses
from typing import Any

from softxent import Options
from softxent.evaluations import Evaluation
from softxent.option_kinds import Choice
from softxent.options import DECLARED, Declared
from softxent_client.wire import SAFETENSORS
from softxent_service.http.query import LOGITS_DTYPES

Json = dict[str, Any]

_NONE: Json = {"const": "none"}

LOGITS_DTYPE = Declared(
    Choice(LOGITS_DTYPES), f"What JSON logits become; refused with {SAFETENSORS}."
)
"""An option of the service's own."""


def declared(name: str) -> Declared:
    """Return what an option is."""
    return LOGITS_DTYPE if name == "logits_dtype" else DECLARED[name]


def option_parameters(evaluation: Evaluation) -> list[Json]:
    """Return every option of an evaluation as a parameter in the query."""
    return [_parameter(name, evaluation) for name in (*evaluation.options, "logits_dtype")]


def _default(name: str, evaluation: Evaluation) -> str:
    """Return the text of an option's default, in the form a query string gives it."""
    if name == "outputs":
        return ",".join(evaluation.default_outputs)
    if name == "logits_dtype":
        return LOGITS_DTYPES[0]
    value = _DEFAULTS[name]
    return "none" if value is None else str(value)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options)}


def _parameter(name: str, evaluation: Evaluation) -> Json:
    schema = declared(name).kind.schema()
    if name == "outputs":
        schema["items"]["enum"] = list(evaluation.outputs)
    default = _default(name, evaluation)
    kind = schema.get("type")
    schema["default"] = default.split(",") if kind == "array" else _typed(default, kind)
    listed = {"style": "form", "explode": False} if kind == "array" else {}
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": declared(name).sentence,
        "schema": schema,
        **listed,
    }


def option_schema(name: str, evaluation: Evaluation) -> Json:
    """Return an option as a member of a JSON object, where null is none."""
    described = _parameter(name, evaluation)
    schema = dict(described["schema"])
    if "oneOf" in schema:
        schema["oneOf"] = [{"type": "null"} if s == _NONE else s for s in schema["oneOf"]]
    if schema["default"] == "none" and "oneOf" in schema:
        schema["default"] = None
    return {**schema, "description": described["description"]}


def _typed(text: str, kind: str | None) -> object:
    # "nan" is a word where the schema says string, and no default is a number that JSON lacks.
    if kind == "string" or text == "none":
        return text
    return float(text) if kind == "number" else int(text)
