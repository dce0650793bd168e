"""What can be wrong with a request before its body has a meaning.

SoftxentError
├── HttpError
│   ├── NotAcceptableError         no form of the answer suits the Accept header
│   ├── UnsupportedMediaTypeError  the body's media type or coding is not one we read
│   ├── BodyTimeoutError           the body stopped arriving
│   ├── BodyLengthMismatchError    more or fewer bytes came than were announced
│   └── ClientGoneError            the connection ended while the body arrived
└── NotReadyError                  kernels are still being compiled or loaded
"""

from __future__ import annotations

from softxent.errors import SoftxentError


class HttpError(SoftxentError):
    """A request that cannot be read as one."""

    slug = "bad-request"


class NotAcceptableError(HttpError):
    """No form of the answer suits the Accept header."""

    slug = "not-acceptable"


class UnsupportedMediaTypeError(HttpError):
    """The body's media type or coding is not one that is read here."""

    slug = "unsupported-media-type"


class BodyTimeoutError(HttpError):
    """The body stopped arriving."""

    slug = "body-timeout"


class BodyLengthMismatchError(HttpError):
    """More or fewer bytes came than Content-Length announced."""

    slug = "body-length-mismatch"


class ClientGoneError(HttpError):
    """The connection ended while the body arrived; nobody reads the answer."""

    slug = "client-gone"


class NotReadyError(SoftxentError):
    """Kernels are still being compiled or loaded; a later try succeeds."""

    slug = "not-ready"
