"""Status of each error, and the problem documents (RFC 9457) that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from softxent import errors as library
from softxent_client.wire import errors as wire
from softxent_service.http import errors as http
from softxent_service.http.limits.compression import CODINGS
from softxent_service.jobs import errors as jobs
from softxent_service.telemetry.record import CUT_STATUS, record_of
from softxent_service.telemetry.request_ids import HEADER

MEDIA_TYPE = "application/problem+json"

STATUSES: dict[type[Exception], int] = {
    library.InputError: 422,
    library.EmptyReductionError: 422,
    library.OutputBufferError: 422,
    wire.WireError: 400,
    wire.LimitExceededError: 413,
    wire.NotSupportedError: 501,
    http.HttpError: 400,
    http.HeadTooLargeError: 431,
    http.HeadTimeoutError: 408,
    http.NotAcceptableError: 406,
    http.UnsupportedMediaTypeError: 415,
    http.UnauthorizedError: 401,
    http.ForbiddenError: 403,
    http.BodyTimeoutError: 408,
    http.ClientGoneError: CUT_STATUS,
    http.NotFoundError: 404,
    http.MethodNotAllowedError: 405,
    http.UnknownModelError: 404,
    http.UnknownRegionError: 404,
    http.RegionTakenError: 409,
    http.OverloadedError: 429,
    http.DeadlineError: 504,
    http.NotReadyError: 503,
    http.DrainingError: 503,
    jobs.StorageError: 422,
    jobs.InputChangedError: 409,
    jobs.OutputInUseError: 409,
    jobs.NumericsError: 409,
    jobs.QueueFullError: 429,
    jobs.UnknownJobError: 404,
    jobs.TransitionError: 409,
    jobs.JobsUnavailableError: 503,
}
"""The status of an error is that of the nearest class of its MRO that stands here."""

INTERNAL_ERROR = "internal-error"
"""What a fault of the service is called, which no error class of ours stands for."""

RETRY_AFTER_SECONDS = {
    "not-ready": 5,
    "draining": 1,
    "overloaded": 1,
    "jobs-unavailable": 5,
    "queue-full": 30,
}
"""A first start compiles for half a minute; a stop is over, or another service answers, soon, and
calls in progress end in fractions of a second; jobs take as long as they do."""

_HEADERS: dict[int, dict[str, str]] = {
    # What is left of the body would be taken for the next request.
    408: {"connection": "close"},
    # RFC 9110, 15.5.16: what could have been sent.
    415: {"accept-encoding": ", ".join(coding.decode() for coding in CODINGS)},
}

_LONGEST_TEXT = 1000
"""Characters of a client's own text that are sent back; a JSON key may have millions."""


def status_of(error: type[BaseException]) -> int:
    """Return the HTTP status for an error class; 500 for one that no table row covers."""
    return next((STATUSES[cls] for cls in error.__mro__ if cls in STATUSES), 500)


def problem_of(error: library.SoftxentError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document that tells `error`."""
    own = error.headers if isinstance(error, http.HttpError) else {}
    return problem(
        status_of(type(error)),
        error.slug,
        error.message,
        details=error.details(),
        headers={**own, **(headers or {})},
    )


def whole_answer(error: library.SoftxentError) -> bytes:
    """Return head and body of the refusal that ends a connection, where no application runs."""
    response = problem_of(error, {"connection": "close"})
    lines = [b"HTTP/1.1 %d " % response.status_code]
    lines += [b"%s: %s" % header for header in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def problem(
    status: int,
    slug: str,
    detail: str,
    *,
    details: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document; `details` are the error's own members."""
    members = {
        "type": f"urn:softxent:problem:{slug}",
        "title": _title(slug),
        "status": status,
        "detail": _short(detail),
        "error": _short(detail),
    }
    own = {name: _short(value) for name, value in (details or {}).items()}
    # The standard library escapes lone surrogates, which a client's tensor name may hold.
    body = json.dumps({**own, **members}, default=str).encode()
    merged = {**_HEADERS.get(status, {}), **(headers or {})}
    if slug in RETRY_AFTER_SECONDS:
        merged["retry-after"] = str(RETRY_AFTER_SECONDS[slug])
    response = _Problem(body, status, headers=merged, media_type=MEDIA_TYPE)
    response.slug = slug
    return response


class _Problem(Response):
    """Tells its word to the record of the request that it answers."""

    slug: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record_of(scope).problem = self.slug
        await super().__call__(scope, receive, send)


def add_problem_handler(app: FastAPI) -> None:
    """Make a fault of `app`, wherever it happens, a problem document."""
    app.add_exception_handler(Exception, _failed)


def refusal(error: library.SoftxentError) -> Response:
    """Return the answer to a call that has raised `error`."""
    # The frames of its traceback hold the call's body, until the refusal is sent.
    error.__traceback__ = error.__context__ = None
    return problem_of(error)


async def _failed(request: Request, _error: Exception) -> Response:
    # Answered outside of every middleware, the one that adds this header among them.
    headers = {HEADER.decode(): record_of(request.scope).request_id}
    detail = "the service failed; its log says why"
    return problem(500, INTERNAL_ERROR, detail, headers=headers)


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "..."
    return value
