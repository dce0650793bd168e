"""Errors of a client, beside those of the library.

SoftxentError
├── ForkError (RuntimeError)     a client of the parent process that a forked child cannot use
└── ServiceError                 an answer that is no result and none of the library's errors
    └── ServiceUnavailableError  no answer at all, or only part of one
"""

from __future__ import annotations

from collections.abc import Mapping

from softxent.errors import SoftxentError


class ForkError(SoftxentError, RuntimeError):
    """A client, or a stream of events, of the parent process that a forked child cannot use."""

    slug = "forked-client"


class ServiceError(SoftxentError):
    """An answer that is neither a result nor one of the library's errors.

    `status` is the HTTP status, `problem_slug` the last part of the problem's type, `members` the
    whole problem document; None, None and {} where there was none.
    """

    slug = "service-error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status: int | None = None,
        problem_slug: str | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.status = status
        self.problem_slug = problem_slug
        self.members = dict(members or {})

    def details(self) -> dict[str, object]:
        """Return field, status, problem_slug and members."""
        return {
            **super().details(),
            "status": self.status,
            "problem_slug": self.problem_slug,
            "members": self.members,
        }


class ServiceUnavailableError(ServiceError):
    """The service could not be reached, or the connection ended before the answer did."""

    slug = "service-unavailable"
