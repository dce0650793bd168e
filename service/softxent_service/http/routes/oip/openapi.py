"""The protocol's routes in the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from softxent_client.wire import JSON
from softxent_client.wire.oip_form import DATATYPES
from softxent_service.http.routes.oip.infer import OCTETS
from softxent_service.http.routes.oip.routes import Documented

Json = dict[str, Any]

_OBJECT: Json = {"type": "object"}
_PARAMETERS: Json = {"type": "object", "additionalProperties": True}
_SHAPE: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _or_null(schema: Json) -> Json:
    """Return the schema of a member of a request that counts as absent where it is null."""
    return {**schema, "type": [schema["type"], "null"]}


def _tensor(*, required: list[str], parameters: Json = _PARAMETERS, **properties: Json) -> Json:
    named: Json = {"name": {"type": "string"}, **properties, "parameters": parameters}
    return {"type": "object", "required": ["name", *required], "properties": named}


_DATA: Json = {
    "datatype": {"type": "string", "enum": list(DATATYPES)},
    "shape": _SHAPE,
    "data": {"type": "array", "items": {}},
}

SCHEMAS: Json = {
    "InferenceRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _or_null({"type": "string"}),
            "parameters": _or_null(_PARAMETERS),
            "inputs": {
                "type": "array",
                "items": _tensor(
                    required=["datatype", "shape"], parameters=_or_null(_PARAMETERS), **_DATA
                ),
            },
            "outputs": _or_null(
                {
                    "type": "array",
                    "items": _tensor(required=[], parameters=_or_null(_PARAMETERS)),
                }
            ),
        },
    },
    "InferenceResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "parameters": _PARAMETERS,
            "outputs": {"type": "array", "items": _tensor(required=["datatype", "shape"], **_DATA)},
        },
    },
}

_BODIES: dict[str, Json] = {
    "infer": {JSON: {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}},
    "register": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["key", "byte_size"],
                "properties": {
                    "key": {"type": "string"},
                    "offset": {"type": "integer", "minimum": 0, "default": 0},
                    "byte_size": {"type": "integer", "minimum": 1},
                },
            }
        }
    },
    "index": {JSON: {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}},
}
"""What is sent to routes, by the last word of their paths."""

_LISTS = ("index", "status")

_OF_BODIES = (413, 415, 429, 504)

REFUSED: dict[str, tuple[int, ...]] = {
    "infer": (404, 422, 501, *_OF_BODIES),
    "register": (409, 501, *_OF_BODIES),
    "index": _OF_BODIES,
    "unregister": (501,),
    "status": (404,),
}
"""What routes refuse with, beside what any may and 404 for an unknown model."""


def path_items(documented: Iterable[Documented]) -> Json:
    """Return the items of these routes, responses of status 200 alone."""
    items: Json = {}
    for route in documented:
        items.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return items


def refused(route_path: str) -> tuple[int, ...]:
    """Return the statuses that a route refuses with."""
    own = REFUSED.get(_last(route_path), ())
    return own if "{model}" not in route_path or 404 in own else (404, *own)


def _operation(route: Documented) -> Json:
    last = _last(route.path)
    operation: Json = {
        "summary": route.summary,
        "tags": ["open inference protocol"],
        "operationId": re.sub(r"\W+", "_", f"{route.method}{route.path}").lower().strip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {"200": {"description": "Done", "content": _answer(last)}},
    }
    if last in _BODIES:
        content = _BODIES[last]
        if last == "infer":
            content = {**content, OCTETS: {"schema": _binary()}}
        operation["requestBody"] = {"required": last != "index", "content": content}
    return operation


def _answer(last: str) -> Json:
    if last == "infer":
        whole = {"schema": {"$ref": "#/components/schemas/InferenceResponse"}}
        return {JSON: whole, OCTETS: {"schema": _binary()}}
    return {JSON: {"schema": {"type": "array", "items": _OBJECT} if last in _LISTS else _OBJECT}}


def _binary() -> Json:
    return {
        "type": "string",
        "format": "binary",
        "description": "The same JSON, whose length Inference-Header-Content-Length says, then the "
        "tensors that have a binary_data_size, little-endian, in their order.",
    }


def _last(path: str) -> str:
    return path.rpartition("/")[2]
