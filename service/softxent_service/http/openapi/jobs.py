"""OpenAPI document of the routes of jobs."""

from __future__ import annotations

from typing import Any

from softxent.evaluations import TENSORS
from softxent_client.wire import JSON
from softxent_service.http.openapi.options import option_schema
from softxent_service.http.routes.arrays import PATH as ARRAYS_PATH
from softxent_service.http.routes.jobs import PATH
from softxent_service.jobs.histogram import BINS, edge
from softxent_service.jobs.progress import MOST_RATES
from softxent_service.jobs.specification import JOB, ON_ERROR
from softxent_service.jobs.states import STATES

Json = dict[str, Any]

_COMPONENTS = "#/components/schemas/"

JOB_REFUSALS = {
    404: "No job has this id",
    409: "The state of the job, or what lies at its output, does not allow it",
}
"""What a request about jobs may be refused with besides."""

_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_OBJECT: Json = {"type": ["object", "null"]}

_RATES: Json = {
    "type": "array",
    "maxItems": MOST_RATES,
    "description": "How fast the present run was over time: each between the one before and its own"
    " seconds, which are counted from the run's beginning.",
    "items": {
        "type": "object",
        "required": ["seconds", "rows_a_second", "blocks_a_second"],
        "properties": {
            name: {"type": "number"} for name in ("seconds", "rows_a_second", "blocks_a_second")
        },
    },
}

_COUNT: Json = {"type": "integer", "minimum": 0}

_HISTOGRAM: Json = {
    "type": "object",
    "description": "How many rows, ignored and skipped ones left out, have a loss in each bin:"
    " counts[i] of at least edges[i] and less than edges[i + 1].",
    "required": ["edges", "counts", "below", "above", "non_finite"],
    "properties": {
        "edges": {"type": "array", "items": {"type": "number"}, "maxItems": BINS + 1},
        "counts": {"type": "array", "items": _COUNT, "maxItems": BINS},
        "below": {**_COUNT, "description": f"Of less than {edge(0)}, 0 and negative ones too."},
        "above": {**_COUNT, "description": f"Of {edge(BINS):.0f} and more."},
        "non_finite": {**_COUNT, "description": "NaN and infinite ones."},
    },
}

_PROGRESS: Json = {
    **_OBJECT,
    "properties": {
        "rates": _RATES,
        **{
            name: {"type": kind}
            for name, kind in {
                "rows": "integer",
                "blocks": "integer",
                "rows_done": "integer",
                "blocks_done": "integer",
                "seconds": "number",
                "rows_a_second": ["number", "null"],
                "seconds_left": ["number", "null"],
            }.items()
        },
    },
}

_ARRAY: Json = {
    "type": "object",
    "required": ["url", "format", "shape", "dtype", "problem"],
    "properties": {
        "url": {"type": "string", "format": "uri", "description": "As a job names it."},
        "format": {"type": "string", "enum": ["npy", "zarr"]},
        "shape": {"type": ["array", "null"], "items": {"type": "integer"}},
        "dtype": {"type": ["string", "null"]},
        "problem": {
            "type": ["string", "null"],
            "description": "Why a job could not read it; shape and dtype are null then.",
        },
    },
}

JOB_SCHEMAS: Json = {
    "JobSpecification": {
        "type": "object",
        "required": ["logits", "output"],
        "additionalProperties": False,
        "properties": {
            **{
                name: {"type": "string", "format": "uri", "description": f"Where {name} lie."}
                for name in TENSORS
            },
            "output": {
                "type": "string",
                "format": "uri",
                "description": "The Zarr group to be made.",
            },
            "on_error": {
                "type": "string",
                "enum": list(ON_ERROR),
                "default": "fail",
                "description": "fail ends the job at rows that are refused; skip leaves them out.",
            },
            **{name: option_schema(name, JOB) for name in JOB.options},
        },
    },
    "Job": {
        "type": "object",
        "required": ["id", "state", "created", "job"],
        "properties": {
            "id": {"type": "string"},
            "state": {"type": "string", "enum": list(STATES)},
            "created": {"type": "string", "format": "date-time"},
            "started": _TIME,
            "finished": _TIME,
            "job": {"$ref": f"{_COMPONENTS}JobSpecification"},
            "progress": _PROGRESS,
            "result": {
                **_OBJECT,
                "description": "The attributes of the result.",
                "properties": {"loss_histogram": _HISTOGRAM},
            },
            "error": {**_OBJECT, "description": "Why it failed, as a problem document."},
        },
    },
    "Arrays": {
        "type": "object",
        "required": ["arrays", "next", "truncated"],
        "properties": {
            "arrays": {"type": "array", "items": _ARRAY},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the arrays that follow.",
            },
            "truncated": {
                "type": "boolean",
                "description": "Whether folders were left out, as too deep or not to be listed.",
            },
        },
    },
    "Jobs": {
        "type": "object",
        "required": ["jobs", "next"],
        "properties": {
            "jobs": {"type": "array", "items": {"$ref": f"{_COMPONENTS}Job"}},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the jobs that follow.",
            },
        },
    },
}


def describe_jobs(paths: Json) -> list[tuple[Json, tuple[int, ...]]]:
    """Complete the operations about jobs; return them with what each may be refused with."""
    paths[PATH]["post"] = _submit()
    one, many, events = (paths[PATH + "/{id}"], paths[PATH], paths[PATH + "/{id}/events"])
    arrays = paths[ARRAYS_PATH]["get"]
    cancel = paths[PATH + "/{id}/cancel"]["post"]
    one["get"]["responses"]["200"] = _answer("Job")
    many["get"]["responses"]["200"] = _answer("Jobs")
    cancel["responses"]["200"] = _answer("Job")
    arrays["responses"]["200"] = _answer("Arrays")
    return [
        (paths[PATH]["post"], (406, 409, 413, 415, 422, 429, 504)),
        (many["get"], (422, 504)),
        (one["get"], (404, 504)),
        (events["get"], (404, 504)),
        (cancel, (404, 409, 504)),
        (arrays, (422, 504)),
    ]


def _submit() -> Json:
    return {
        "summary": "A job over arrays at rest",
        "tags": ["jobs"],
        "operationId": "submit_job",
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key with the same job is the same job.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": f"{_COMPONENTS}JobSpecification"}}},
        },
        "responses": {
            "202": {
                **_answer("Job"),
                "description": "The job is checked and recorded; Location is its path",
                "headers": {"Location": {"schema": {"type": "string"}}},
            }
        },
    }


def _answer(name: str) -> Json:
    content = {JSON: {"schema": {"$ref": _COMPONENTS + name}}}
    return {"description": "What was asked for", "content": content}
