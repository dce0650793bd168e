"""Telemetry middleware: a record for every request, and response headers made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from softxent_service.telemetry.record import Record
from softxent_service.telemetry.request_ids import HEADER
from softxent_service.telemetry.telemetry import Telemetry


class TelemetryMiddleware:
    """Outermost: sees every answer but those that the protocol itself gives."""

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, route_of: Callable[[Scope], str]
    ) -> None:
        """Begin; `route_of` returns the declared path of the route that a request reaches."""
        self._app = app
        self._telemetry = telemetry
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and tell of it when its answer has ended or it has failed."""
        record = self._telemetry.begin(scope)
        record.route = self._route_of(scope)

        # No coroutine of its own around each message.
        def watched(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                _begin_answer(record, message)
            elif not record.answer.disconnected:
                record.sent += len(message.get("body", b""))
            return send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            # An answer that has begun is cut; else the framework's own of status 500 comes next.
            record.status, record.problem = 500, "internal-error"
            raise
        finally:
            record.end()
            self._telemetry.end(record)


def _begin_answer(record: Record, message: Message) -> None:
    record.status = message["status"]
    headers = [*message["headers"], (HEADER, record.request_id.encode())]
    if record.dtype is not None:
        headers.append((b"server-timing", record.server_timing()))
    message["headers"] = headers
