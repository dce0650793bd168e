"""Authentication by key: `Authorization: Bearer ...` (RFC 6750)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import cache

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from softxent_service.http.errors import ForbiddenError, UnauthorizedError
from softxent_service.http.problems import problem_of
from softxent_service.http.router import match_of
from softxent_service.http.routes.docs import PATHS as DOCS_PATHS
from softxent_service.http.routes.page import PATH as PAGE_PATH
from softxent_service.keys import Key, KeyRing
from softxent_service.telemetry.record import UNMATCHED, record_of

OPEN, ANY = "open", "any"
"""Access of routes that need no key, and of those that any key is good for."""

ACCESS = {
    "/v1/info": ANY,
    "/v2": ANY,
    # Who has a key may know that a path is none; who has not learns nothing.
    UNMATCHED: ANY,
    **dict.fromkeys((PAGE_PATH, *DOCS_PATHS), OPEN),
}

ACCESS_BELOW = {
    "/v2/health/": OPEN,
    "/web/": OPEN,
    "/v1/fixtures": ANY,
    "/v1/jobs": "jobs",
    "/v1/arrays": "jobs",
    "/metrics": "metrics",
}
"""Access of routes whose declared paths begin so; every other route needs `evaluate`."""

LONGEST_KEY = 256
"""Bytes of what is compared at all; keys made here have 52."""


class BearerAuth:
    """Authentication: 401 without a key, 403 with a key that lacks the scope."""

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or refuse it before a byte of its body is read."""
        app = self._refusal(scope) or self._app
        return app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        needed = access(match_of(scope).path)
        if needed == OPEN:
            return None
        text = bearer(scope["headers"])
        key = None if text is None else self._ring.find(text)
        if key is None:
            return _unauthorized(text)
        if needed != ANY and needed not in key.scopes:
            return _forbidden(key, needed)
        record_of(scope).key = key.name
        return None


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return what stands behind Bearer; None if nothing does, or there are two such headers."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, text = found[0].partition(b" ")
    text = text.strip()
    return text if scheme.lower() == b"bearer" and 0 < len(text) <= LONGEST_KEY else None


@cache
def access(path: str) -> str:
    """Return what a route needs, by its declared path: a scope, ANY or OPEN."""
    if path in ACCESS:
        return ACCESS[path]
    found = (needed for start, needed in ACCESS_BELOW.items() if path.startswith(start))
    return next(found, "evaluate")


def _unauthorized(text: bytes | None) -> Response:
    if text is None:
        error, more = UnauthorizedError("send a key as Authorization: Bearer KEY"), ""
    else:
        error, more = UnauthorizedError("the key is not known here"), ' error="invalid_token"'
    return problem_of(error, {"www-authenticate": f"Bearer{more}"})


def _forbidden(key: Key, needed: str) -> Response:
    error = ForbiddenError(f"the key {key.name} lacks the scope {needed} that this route needs")
    challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
    return problem_of(error, {"www-authenticate": challenge})
