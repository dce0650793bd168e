"""Reads the small JSON objects that the protocol's management routes take."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from softxent_client.wire import MalformedBodyError
from softxent_service.http.admission import Patience
from softxent_service.http.arriving import Ceiling
from softxent_service.http.body import Reader
from softxent_service.http.budget import Reservation
from softxent_service.http.oip.head import read_infer_head
from softxent_service.settings import Settings


async def read_object(request: Request, reader: Reader, settings: Settings) -> dict[str, Any]:
    """Return the object that a body holds, an empty one for no body.

    Raises:
        MalformedBodyError: it is not a JSON object.
        LimitExceededError: it is over the limit of headers.
    """
    ceiling = Ceiling("header_bytes", settings.header_bytes, "shorten the JSON object")
    head = read_infer_head(request.scope)
    with Reservation(reader.budget) as reservation:
        body = await reader.read(
            request.scope,
            request.receive,
            head,
            ceiling,
            reservation,
            Patience.of(settings.timeout_seconds),
        )
        if not len(body):
            return {}
        try:
            members = orjson.loads(body.take())
        except orjson.JSONDecodeError:
            raise MalformedBodyError("the body is not JSON") from None
    if not isinstance(members, dict):
        raise MalformedBodyError("the body is not a JSON object")
    return members
