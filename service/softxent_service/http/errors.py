"""Errors of requests that are refused before their bodies are decoded.

SoftxentError
├── HttpError
│   ├── MalformedRequestError      what came is not HTTP
│   ├── HeadTooLargeError          request line and headers are over their limit
│   ├── HeadTimeoutError           the head stopped arriving
│   ├── NotAcceptableError         no form of the answer suits the Accept header
│   ├── UnsupportedMediaTypeError  the body's media type or coding is not one we read
│   ├── UnauthorizedError          no key, or none that is known
│   ├── ForbiddenError             a key that is for something else
│   ├── BodyTimeoutError           the body stopped arriving
│   ├── BodyLengthMismatchError    more or fewer bytes came than were announced
│   ├── NotFoundError              no such route, or no such fixture
│   ├── MethodNotAllowedError      a route, but not with this method
│   ├── UnknownModelError          no model has this name or version
│   ├── UnknownRegionError         no region of shared memory is registered under this name
│   ├── RegionTakenError           one is registered under this name already
│   ├── RegionError                a region is not there, not the caller's, or too small
│   └── ClientGoneError            the connection ended while the body arrived
├── OverloadedError                others use up what there is of memory or places
├── DeadlineError                  the call's time was over
├── NotReadyError                  kernels are still being compiled or loaded
└── DrainingError                  the service stopped before the answer was done
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from softxent.errors import SoftxentError
from softxent_service.telemetry.record import GONE


class HttpError(SoftxentError):
    """A request that cannot be read as one."""

    slug = "bad-request"
    headers: Mapping[str, str] = {}
    """Headers that the answer has besides."""


class MalformedRequestError(HttpError):
    """Bytes that are not HTTP, or a request for a tunnel."""

    slug = "malformed-request"


class HeadTooLargeError(HttpError):
    """Request line and headers together are over their limit."""

    slug = "head-too-large"


class HeadTimeoutError(HttpError):
    """The head stopped arriving, or arrives too slowly."""

    slug = "head-timeout"


class NotAcceptableError(HttpError):
    """No form of the answer suits the Accept header."""

    slug = "not-acceptable"


class UnsupportedMediaTypeError(HttpError):
    """The body's media type or coding is not one that is read here."""

    slug = "unsupported-media-type"


class UnauthorizedError(HttpError):
    """There is no key, or none that is known here."""

    slug = "unauthorized"


class ForbiddenError(HttpError):
    """The key is good for something else."""

    slug = "forbidden"


class BodyTimeoutError(HttpError):
    """The body stopped arriving."""

    slug = "body-timeout"


class BodyLengthMismatchError(HttpError):
    """More or fewer bytes came than Content-Length announced."""

    slug = "body-length-mismatch"


class NotFoundError(HttpError):
    """There is no such route, or no such fixture."""

    slug = "not-found"


class MethodNotAllowedError(HttpError):
    """There is a route, but not with this method."""

    slug = "method-not-allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        known = ", ".join(allowed)
        super().__init__(f"this route does not answer to {method}; it answers to {known}")
        self.headers = {"allow": known}


class UnknownModelError(HttpError):
    """No model has this name, or it has no such version."""

    slug = "unknown-model"


class UnknownRegionError(HttpError):
    """No region of shared memory is registered under this name."""

    slug = "unknown-region"


class RegionTakenError(HttpError):
    """A region of shared memory is registered under this name already."""

    slug = "region-taken"


class RegionError(HttpError):
    """A region of shared memory cannot be opened, was shrunk or removed, or is too small."""

    slug = "invalid-region"


class ClientGoneError(HttpError):
    """The connection ended before the answer began; nobody reads the refusal."""

    slug = GONE


class OverloadedError(SoftxentError):
    """Others use up what there is of memory or places; a later try succeeds."""

    slug = "overloaded"


class DeadlineError(SoftxentError):
    """The time that a call was granted, by itself or by the service, was over."""

    slug = "deadline-exceeded"


class NotReadyError(SoftxentError):
    """Kernels are still being compiled or loaded; a later try succeeds."""

    slug = "not-ready"


class DrainingError(SoftxentError):
    """The service was told to stop and could not wait for the answer; a later try succeeds."""

    slug = "draining"
