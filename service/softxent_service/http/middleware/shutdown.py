"""Refusal of the requests that a stopping service cannot wait for."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from softxent_service.http.errors import DrainingError
from softxent_service.http.problems import problem_of, status_of
from softxent_service.telemetry.record import record_of


class ShutdownMiddleware:
    """Refusal of requests that a shutdown cancels.

    uvicorn cancels what still runs `shutdown_seconds` after it was told to stop. An answer that has
    begun cannot be taken back; its connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; refuse it where it is cancelled before its answer has begun."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            error = DrainingError("the service stops; try again, it or another may answer then")
            record = record_of(scope)
            if not record.status:
                await problem_of(error, {"connection": "close"})(scope, receive, send)
            record.status, record.problem = status_of(DrainingError), error.slug
