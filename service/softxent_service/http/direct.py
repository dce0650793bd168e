"""Hands calls that evaluate to their endpoints at once.

On the way through the framework's router, two of its middlewares and its table of handlers a call
of 1 x 10 spent 16 of its 126 us.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from softxent.errors import SoftxentError
from softxent_service.http.problems import refusal
from softxent_service.telemetry.record import record_of


class Direct:
    """Innermost: what is no such call goes on to the router, which knows these paths too.

    `endpoints` has them by path; `base_path` may stand before each.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp], base_path: str) -> None:
        self._app = app
        self._found = {
            prefix + path: (path, endpoint)
            for path, endpoint in endpoints.items()
            for prefix in ("", base_path)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call, with a problem document where it is refused, or pass it on."""
        found = self._found.get(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        record.route, endpoint = found
        try:
            await endpoint(scope, receive, send)
        except SoftxentError as error:
            if record.status:
                # An answer that has begun cannot become a refusal; its connection ends.
                raise
            await refusal(error)(scope, receive, send)
