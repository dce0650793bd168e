"""`softxent serve` without what tells of requests, to be measured beside the one with it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from softxent_service.http import app


class Untold:
    """Stands where `Watching` does, and passes every request on."""

    def __init__(self, app: ASGIApp, **_telemetry: object) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self._app(scope, receive, send)


if __name__ == "__main__":
    vars(app)["Watching"] = Untold
    from softxent_service.commands import app as commands

    commands(prog_name="softxent")
