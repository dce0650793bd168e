"""Lets in those who have a key, by `Authorization: Bearer ...` (RFC 6750)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import lru_cache

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from softxent_service.http.docs import PATHS as DOCS_PATHS
from softxent_service.http.errors import ForbiddenError, UnauthorizedError
from softxent_service.http.page import page_paths
from softxent_service.http.problems import problem_of
from softxent_service.keys import Key, KeyRing
from softxent_service.telemetry.record import record_of

OPEN_PATHS = DOCS_PATHS | {"/openapi.json"}
OPEN_PREFIXES = ("/v2/health/",)

ANY_KEY_PATHS = frozenset({"/v1/info", "/v2", "/v2/"})
ANY_KEY_PREFIXES = ("/v1/fixtures",)

SCOPES = (("/v1/jobs", "jobs"), ("/metrics", "metrics"))
"""What paths that begin so need; every other one, also one that is no route, needs `evaluate`."""

LONGEST_KEY = 256
"""Bytes of what is compared at all; keys made here have 52."""


class Bearer:
    """Answers 401 to who has no key, 403 to who has one that is for something else."""

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring
        self._open_paths = OPEN_PATHS | page_paths()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or refuse it before a byte of its body is read."""
        app = self._refusal(scope) or self._app
        return app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        path = scope["path"]
        if path in self._open_paths or path.startswith(OPEN_PREFIXES):
            return None
        text = bearer(scope["headers"])
        key = None if text is None else self._ring.find(text)
        if key is None:
            return _unauthorized(text)
        needed = needed_scope(path)
        if needed is not None and needed not in key.scopes:
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


@lru_cache(maxsize=64)
def needed_scope(path: str) -> str | None:
    """Return the scope that a path needs, None where any key will do."""
    if path in ANY_KEY_PATHS or path.startswith(ANY_KEY_PREFIXES):
        return None
    return next((scope for prefix, scope in SCOPES if path.startswith(prefix)), "evaluate")


def _unauthorized(text: bytes | None) -> Response:
    if text is None:
        error, more = UnauthorizedError("send a key as Authorization: Bearer KEY"), ""
    else:
        error, more = UnauthorizedError("the key is not known here"), ' error="invalid_token"'
    return problem_of(error, {"www-authenticate": f"Bearer{more}"})


def _forbidden(key: Key, needed: str) -> Response:
    error = ForbiddenError(f"the key {key.name} lacks the scope {needed} that this path needs")
    challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
    return problem_of(error, {"www-authenticate": challenge})
