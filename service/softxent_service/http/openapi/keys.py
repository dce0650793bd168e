"""Security scheme of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from softxent_service.http.middleware.authentication import ANY, OPEN, access

SCHEME = "key"


def describe_keys(document: dict[str, Any]) -> None:
    """Let `document` say that there are keys, and what each operation needs."""
    document["components"]["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key that `softxent key` made, as Authorization: Bearer KEY.",
        }
    }
    for path, item in document["paths"].items():
        needed = access(path)
        for operation in item.values():
            operation["security"] = [] if needed == OPEN else [{SCHEME: []}]
            if needed not in (OPEN, ANY):
                told = operation.get("description", "")
                operation["description"] = f"{told} Needs a key of scope `{needed}`.".strip()
