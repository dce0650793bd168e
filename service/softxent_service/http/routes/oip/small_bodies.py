"""Reader of the small JSON objects that management routes take."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from softxent_client.wire import MalformedBodyError
from softxent_service.http.call import Call, CallLimits
from softxent_service.http.limits.body_buffer import Ceiling
from softxent_service.http.routes.oip.head import read_infer_head


async def read_object(request: Request, limits: CallLimits) -> dict[str, Any]:
    """Return the object that a body holds, an empty one for no body.

    Raises:
        MalformedBodyError: it is not a JSON object.
        LimitExceededError: it is over the limit of headers.
    """
    header_bytes = limits.settings.header_bytes
    ceiling = Ceiling("header_bytes", header_bytes, "shorten the JSON object")
    head = read_infer_head(request.scope)
    with Call(limits, request.scope, request.receive) as call:
        body = await call.read(head, ceiling)
        if not len(body):
            return {}
        try:
            members = orjson.loads(body.take())
        except orjson.JSONDecodeError:
            raise MalformedBodyError("the body is not JSON") from None
    if not isinstance(members, dict):
        raise MalformedBodyError("the body is not a JSON object")
    return members
