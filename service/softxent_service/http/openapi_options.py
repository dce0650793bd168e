"""The options of an evaluation as parameters of an OpenAPI document."""

from __future__ import annotations

import dataclasses
from typing import Any

from softxent import Options
from softxent.evaluations import Evaluation
from softxent.option_values import (
    DTYPES,
    EMPTY,
    MEAN_OVER,
    NON_FINITE,
    REDUCTIONS,
    SMOOTHINGS,
    TAILS,
)
from softxent_client.wire import SAFETENSORS
from softxent_service.http.query import LOGITS_DTYPES

Json = dict[str, Any]

_CHOICES = {
    "reduction": REDUCTIONS,
    "smoothing": SMOOTHINGS,
    "tail": TAILS,
    "mean_over": MEAN_OVER,
    "non_finite": NON_FINITE,
    "empty": EMPTY,
    "logits_dtype": LOGITS_DTYPES,
}

_POSITIVE: Json = {"type": "number", "exclusiveMinimum": 0}
_SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}
_NONE: Json = {"const": "none"}

_SCHEMAS: dict[str, Json] = {
    "ignore_index": {"oneOf": [{"type": "integer"}, _NONE]},
    "label_smoothing": _SHARE,
    "z_loss": {"type": "number", "minimum": 0},
    "softcap": {"oneOf": [_POSITIVE, _NONE]},
    "temperature": _POSITIVE,
    "hard_weight": {"oneOf": [_SHARE, _NONE]},
    "denominator": {"oneOf": [_POSITIVE, _NONE]},
    "scale": {"type": "number"},
    "output_dtype": {"oneOf": [{"type": "string", "enum": list(DTYPES)}, _NONE]},
    **{name: {"type": "string", "enum": list(values)} for name, values in _CHOICES.items()},
}

TEXTS = {
    "outputs": "What is computed, separated by commas.",
    "reduction": "none gives a loss a row, sum and mean one number.",
    "ignore_index": "Rows with this label are left out; none leaves out no row.",
    "label_smoothing": "The target is (1 - eps) of what is given, and eps spread over classes.",
    "smoothing": "Whether eps is spread over all classes or over the others than the label.",
    "z_loss": "A factor of the squared log-normaliser, which is added to the loss.",
    "softcap": "s turns each logit x into s tanh(x / s).",
    "temperature": "Divides the logits, after the softcap.",
    "tail": "What becomes of the probability that a top-k target does not name: renormalize "
    "divides by what it names, bucket gives the rest to all other classes together, none leaves "
    "it out.",
    "hard_weight": "The label's share where there is a soft target too; then required.",
    "denominator": "What mean divides by, in place of what mean_over says.",
    "mean_over": "Whether mean divides by the sum of weights or by the rows that are not ignored.",
    "scale": "A factor on loss and gradient, applied before rounding.",
    "non_finite": "error refuses rows whose loss or log-normaliser is not finite.",
    "empty": "What a mean over no weight is.",
    "output_dtype": "What outputs of one value a logit are stored in; none is the logits' dtype.",
    "logits_dtype": f"What JSON logits become; refused with {SAFETENSORS}.",
}
"""What each option is, in a sentence."""


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


def _outputs(evaluation: Evaluation) -> Json:
    names = {"type": "string", "enum": list(evaluation.outputs)}
    return {"type": "array", "items": names, "uniqueItems": True}


def _parameter(name: str, evaluation: Evaluation) -> Json:
    schema = _outputs(evaluation) if name == "outputs" else dict(_SCHEMAS[name])
    default = _default(name, evaluation)
    kind = schema.get("type")
    schema["default"] = default.split(",") if kind == "array" else _typed(default, kind)
    listed = {"style": "form", "explode": False} if kind == "array" else {}
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": TEXTS[name],
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
