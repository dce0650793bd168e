"""Examples of the OpenAPI document; the service answers each of them unchanged.

Three kinds presuppose something, and say so: a job's arrays, a job, and a region of shared memory.
"""

from __future__ import annotations

from typing import Any

from softxent_client.wire import JSON
from softxent_service.settings import Settings

Json = dict[str, Any]

_BATCH: Json = {"logits": [[2.0, 1.0, 0.1], [20, 0, 0]]}

_INFER: Json = {
    "inputs": [
        {"name": "logits", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 1.0, 0.1]},
        {"name": "labels", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
}

_REGION = "/v2/systemsharedmemory/region/{name}"

BODIES: Json = {
    "/v1/cross_entropy": {**_BATCH, "labels": [0, 0]},
    "/v1/softmax": _BATCH,
    "/v1/hessian_vector_product": {**_BATCH, "labels": [0, 0], "vectors": [[1, 0, 0], [0, 1, 0]]},
    "/v1/explain": {"logits": [2.0, 1.0, 0.1], "label": 0},
    "/v2/models/{model}/infer": _INFER,
    "/v2/models/{model}/versions/{version}/infer": _INFER,
    "/v2/repository/index": {"ready": True},
    f"{_REGION}/register": {"key": "/softxent-example", "byte_size": 64},
}
"""Bodies in JSON, by the paths they are posted to."""

NAMES = {"model": "cross_entropy", "version": "1", "name": "labels-float32"}
"""Parameters of paths."""

PRESUPPOSED = {
    "/v1/jobs": "The arrays of the example must exist before it is sent.",
    "/v1/jobs/{id}": "The id is that of a job which was submitted.",
    _REGION: "The service must run with `SOFTXENT_SHARED_MEMORY`, and an object of shared memory "
    "with the key of the example must exist; its region is registered first.",
}
"""What must be there besides, by how paths begin; the longest beginning holds."""


def add_examples(document: Json, settings: Settings) -> None:
    """Give each operation of `document` that takes something an example."""
    root = settings.root_urls[0] if settings.root_urls else "file:///arrays"
    job = {name: f"{root}/example/{name}.npy" for name in ("logits", "labels")}
    bodies = {**BODIES, "/v1/jobs": {**job, "output": f"{root}/example/result.zarr"}}
    listed = document["paths"]["/v1/arrays"]["get"]["responses"]["200"]["content"][JSON]
    listed["example"] = _page_of_arrays(job)
    for path, item in document["paths"].items():
        names = {**NAMES, "name": "example"} if path.startswith(_REGION) else NAMES
        told = [path.startswith(start) and text for start, text in PRESUPPOSED.items()]
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in names:
                    parameter["example"] = names[parameter["name"]]
            if method == "post" and path in bodies:
                operation["requestBody"]["content"][JSON]["example"] = bodies[path]
            if any(told) and (method == "post" or "{" in path):
                operation["description"] = next(text for text in reversed(told) if text)


def _page_of_arrays(job: Json) -> Json:
    """Return what lists the arrays of the job that is the example."""
    forms = {"labels": ([2], "int64"), "logits": ([2, 3], "float32")}
    arrays = [
        {"url": job[name], "format": "npy", "shape": shape, "dtype": dtype, "problem": None}
        for name, (shape, dtype) in forms.items()
    ]
    return {"arrays": arrays, "next": None, "truncated": False}
