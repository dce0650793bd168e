"""OpenAPI document of the routes that read their own bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from softxent.evaluations import EVALUATIONS, Evaluation
from softxent.explanation import MAX_CLASSES, Explanation
from softxent_client.wire import JSON, REQUEST, RESPONSE, SAFETENSORS, Limits, Schema
from softxent_client.wire.schema import Field
from softxent_service.http import problems
from softxent_service.http.openapi.examples import add_examples
from softxent_service.http.openapi.jobs import JOB_REFUSALS, JOB_SCHEMAS, describe_jobs
from softxent_service.http.openapi.options import option_parameters
from softxent_service.http.routes import explain
from softxent_service.http.routes.oip import openapi as oip
from softxent_service.http.routes.oip.routes import Documented
from softxent_service.settings import Settings

Json = dict[str, Any]

_COMPONENTS = "#/components/schemas/"

NUMBER: Json = {
    "oneOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}],
    "description": "A number; those that JSON lacks travel as words.",
}
INTEGER: Json = {"type": "integer"}
BOOLEAN: Json = {"type": "boolean"}


def _nested(one: Json, name: str) -> Json:
    arrays = {"type": "array", "items": {"$ref": _COMPONENTS + name}}
    return {
        "oneOf": [one, arrays],
        "description": "One value, or an array of equally long arrays of them.",
    }


SCHEMAS: Json = {
    "Number": NUMBER,
    "Numbers": _nested({"$ref": f"{_COMPONENTS}Number"}, "Numbers"),
    "Integers": _nested(INTEGER, "Integers"),
    "Booleans": _nested(BOOLEAN, "Booleans"),
}

_VALUES: dict[str, tuple[Json, str]] = {"i": (INTEGER, "Integers"), "b": (BOOLEAN, "Booleans")}
"""What is neither a number nor an array of numbers, by NumPy's kind of what it becomes."""

SUMMARIES = {
    "cross_entropy": "Loss, gradient and more of a batch",
    "softmax": "Softmax of a batch of logits, its logarithm and its log-normaliser",
    "hessian_vector_product": "Hessian of each row's loss by its logits, times a vector",
}

TARGETS: Json = {
    "anyOf": [
        {"required": ["labels"]},
        {"required": ["target_probabilities"]},
        {"required": ["target_indices", "target_log_probabilities"]},
    ]
}
"""What a request must hold beside logits."""

PROBLEM: Json = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "description": "urn:softxent:problem:<slug>"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string", "description": "Equal to detail."},
        "field": {"type": "string", "description": "The tensor, option or header at fault."},
        "rows": {"type": "array", "items": {"type": "integer"}, "description": "First ten."},
        "values": {
            "type": "array",
            "items": {},
            "description": "What stands in those rows; non-finite-result of a batch: their losses.",
        },
        "total": {"type": "integer", "description": "How many rows are at fault."},
        "limit_name": {"type": "string"},
        "limit": {"type": "integer"},
    },
}

REFUSALS = {
    400: "The request or its body is malformed, or has another length than announced",
    401: "No key, or none that is known; never without keys",
    403: "The key is for something else",
    404: "No such model, version or region of shared memory",
    405: "The route does not answer to this method; Allow says to which it does",
    406: "No form of the answer suits Accept",
    408: "The request stopped arriving",
    409: "A region of shared memory is registered under this name already",
    413: "A limit is exceeded; the document names it",
    415: "Content-Type is missing, repeated or not read here, or a coding is not",
    422: "The batch or an option has no meaning",
    429: "Others use up memory or places; Retry-After says when to try again",
    431: "Request line and headers are over their limit",
    500: "A fault of the service",
    501: "A part of the protocol that is not served",
    503: "Not ready, or stopping; Retry-After says when to try again",
    504: "The call was not done in time",
}

EVALUATION = (400, 401, 403, 406, 408, 413, 415, 422, 429, 431, 500, 503, 504)
"""What an evaluation may be refused with."""

ANYWHERE = (400, 401, 403, 408, 431, 500, 503)
"""What any request may be refused with, whatever it asks for."""


def describe_routes(
    app: FastAPI, routes: Sequence[BaseRoute], protocol: Sequence[Documented], settings: Settings
) -> Json:
    """Return the OpenAPI document: `routes` of FastAPI, and those with bodies of their own."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=routes
    )
    if settings.base_path is not None:
        document["servers"] = [{"url": settings.base_path}]
    limits = settings.limits
    document["paths"] = {
        **{f"/v1/{name}": {"post": _evaluation(e, limits)} for name, e in EVALUATIONS.items()},
        explain.PATH: {"post": _explain()},
        **document["paths"],
        **_protocol(protocol),
    }
    described = describe_jobs(document["paths"])
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {**SCHEMAS, **oip.SCHEMAS, "Problem": PROBLEM, **JOB_SCHEMAS}
    for operation, statuses in described:
        operation["responses"] |= _refusals(statuses)
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"] = {**_refusals(ANYWHERE), **operation["responses"]}
    add_examples(document, settings)
    return document


def _evaluation(evaluation: Evaluation, limits: Limits) -> Json:
    request = _both_forms(REQUEST(evaluation=evaluation))
    response = _both_forms(RESPONSE(evaluation=evaluation))
    if evaluation.has_target:
        request[JSON]["schema"] |= TARGETS
    return {
        "summary": SUMMARIES[evaluation.name],
        "tags": ["evaluation"],
        "operationId": evaluation.name,
        "parameters": option_parameters(evaluation),
        "requestBody": {
            "required": True,
            "description": f"At most {limits.json_bytes} bytes of JSON (json_bytes) or "
            f"{limits.binary_bytes} of the binary form (binary_bytes).",
            "content": request,
        },
        "responses": {
            "200": {"description": "What was asked for", "content": response},
            **_refusals(EVALUATION),
        },
    }


def _protocol(documented: Sequence[Documented]) -> Json:
    items = oip.path_items(documented)
    for path, item in items.items():
        for operation in item.values():
            operation["responses"] |= _refusals(oip.refused(path))
    return items


def _both_forms(schema: Schema) -> Json:
    return {JSON: {"schema": _json_schema(schema)}, SAFETENSORS: {"schema": _binary(schema)}}


def _json_schema(schema: Schema) -> Json:
    return {
        "type": "object",
        "properties": {
            name: _tensor(field, _least_rank(schema, field))
            for name, field in schema.fields.items()
        },
        "required": list(schema.required),
        "additionalProperties": False,
    }


def _least_rank(schema: Schema, field: Field) -> int:
    rows_of = schema.fields.get(schema.rows_of or "")
    return field.min_rank if field.below is None or not rows_of else rows_of.min_rank - field.below


def _tensor(field: Field, least_rank: int) -> Json:
    """Return arrays in arrays down to `least_rank`, and below them what may be nested further."""
    one, many = _VALUES.get(field.json_dtype.kind, ({"$ref": f"{_COMPONENTS}Number"}, "Numbers"))
    inner: Json = {"$ref": _COMPONENTS + many} if field.max_rank > least_rank else one
    for _ in range(least_rank):
        inner = {"type": "array", "items": inner}
    return inner


def _binary(schema: Schema) -> Json:
    tensors = "; ".join(
        f"{name}: {' '.join(field.dtypes)}" for name, field in schema.fields.items()
    )
    return {
        "type": "string",
        "format": "binary",
        "description": "The safetensors layout: 8 bytes with the header's length (little-endian), "
        f"a JSON header, then the tensors. {tensors}.",
    }


def _explain() -> Json:
    request = _json_schema(explain.EXPLAIN)
    request["description"] = (
        f"One row of 1 to {MAX_CLASSES} classes, and exactly one of label and target_probabilities."
    )
    for row in request["properties"].values():
        if row["type"] == "array":
            row |= {"minItems": 1, "maxItems": MAX_CLASSES}
    request["oneOf"] = [{"required": ["label"]}, {"required": ["target_probabilities"]}]
    return {
        "summary": "The derivation of the gradient, step by step, on one row",
        "tags": ["evaluation"],
        "operationId": "explain",
        "requestBody": {"required": True, "content": {JSON: {"schema": request}}},
        "responses": {
            "200": {
                "description": "Every step under its own name; null where one is not defined",
                "content": {JSON: {"schema": _explanation()}},
            },
            **_refusals(EVALUATION),
        },
    }


def _explanation() -> Json:
    numbers: Json = {"type": "array", "items": {"type": "number"}}
    shapes: dict[str, Json] = {
        "softmax_jacobian": {"type": "array", "items": numbers},
        "loss": {"type": "number"},
        "loss_by_softmax_out": {**numbers, "type": ["array", "null"]},
        "chain_rule_product": {**numbers, "type": ["array", "null"]},
        "largest_difference": {"type": ["number", "null"]},
        "notes": {"type": "array", "items": {"type": "string"}},
        "stable": _all_required(
            {
                name: numbers if name == "e" else {"type": "number"}
                for name in ("m", "e", "S", "log1p")
            }
        ),
        "naive": _all_required({"float32": _naive_form(), "float64": _naive_form()}),
    }
    names = [field.name for field in dataclasses.fields(Explanation)]
    return _all_required({name: shapes.get(name, numbers) for name in names})


def _naive_form() -> Json:
    number: Json = {"$ref": f"{_COMPONENTS}Number"}
    numbers: Json = {"type": "array", "items": number}
    return _all_required({"softmax_out": numbers, "loss": number, "gradient": numbers})


def _all_required(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _refusals(statuses: Iterable[int]) -> Json:
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_COMPONENTS}Problem"}}}
    texts = REFUSALS | JOB_REFUSALS
    return {str(status): {"description": texts[status], "content": content} for status in statuses}
