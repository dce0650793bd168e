"""Errors of messages whose tensors cannot be decoded.

SoftxentError
└── WireError                    a message that cannot be turned into tensors
    ├── MalformedBodyError       the bytes are not what the media type says
    ├── UnknownNameError         it names a parameter or output that there is not
    ├── NotSupportedError        it asks for a part of a protocol that is not served
    └── LimitExceededError       a size is over one of the limits
"""

from __future__ import annotations

from softxent.errors import SoftxentError


class WireError(SoftxentError):
    """A message that cannot be turned into tensors."""

    slug = "wire-error"


class MalformedBodyError(WireError):
    """The bytes are not what the media type says."""

    slug = "malformed-body"


class UnknownNameError(WireError):
    """A message names a parameter or output that there is not."""

    slug = "unknown-name"


class NotSupportedError(WireError):
    """A message asks for a part of a protocol that is not served."""

    slug = "not-supported"


class LimitExceededError(WireError):
    """A size is over a limit; `limit_name` is a field of `Limits`, `limit` its value."""

    slug = "limit-exceeded"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        limit_name: str = "",
        limit: int = 0,
    ) -> None:
        super().__init__(message, field=field)
        self.limit_name = limit_name
        self.limit = limit

    def details(self) -> dict[str, object]:
        """Return field, limit_name and limit."""
        return {**super().details(), "limit_name": self.limit_name, "limit": self.limit}


def check_size(size: int, name: str, limit: int, what: str) -> None:
    """Refuse `size` over the limit called `name`.

    Raises:
        LimitExceededError: `size` is larger than `limit`.
    """
    if size > limit:
        raise LimitExceededError(
            f"{what} is {size}, over the limit {name} of {limit}", limit_name=name, limit=limit
        )
