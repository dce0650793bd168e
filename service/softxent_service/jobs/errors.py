"""Errors of jobs, beside those of batches.

SoftxentError
├── InputError
│   ├── SpecificationError   the members of a job are malformed, missing or unknown
│   ├── LocationError        a URL is malformed, of another scheme, or leads out of the roots
│   └── IdempotencyError     an Idempotency-Key came again with another job
├── StorageError             an array cannot be read or written, or is not what it says
│   └── MissingArrayError    there is no array at a URL
├── InputChangedError        an array was written or replaced after the job was accepted
├── OutputInUseError         the output holds another result, or a job is writing to it
├── NumericsError            a half-done job was begun with other numerics
├── QueueFullError           as many jobs wait as may
├── UnknownJobError          no job has this id
├── TransitionError          the job is in a state that does not allow it
└── JobsUnavailableError     the records of jobs cannot be reached
"""

from __future__ import annotations

from softxent.errors import InputError, SoftxentError


class SpecificationError(InputError):
    """The members of a job are malformed, missing or unknown."""

    slug = "invalid-job"


class LocationError(InputError):
    """A URL is malformed, of another scheme, or leads out of the roots."""

    slug = "location-refused"


class IdempotencyError(InputError):
    """An Idempotency-Key came again with another job."""

    slug = "idempotency-key-reused"


class StorageError(SoftxentError):
    """An array cannot be read or written, or is not what it says."""

    slug = "storage-failed"


class MissingArrayError(StorageError):
    """There is no array at a URL."""


class InputChangedError(SoftxentError):
    """An array was written or replaced after the job was accepted; its blocks would be of two."""

    slug = "input-changed"


class OutputInUseError(SoftxentError):
    """The output holds another result, or a job is writing to it."""

    slug = "output-in-use"


class NumericsError(SoftxentError):
    """A half-done job was begun with other numerics; its bits would be of two kinds."""

    slug = "numerics-changed"


class QueueFullError(SoftxentError):
    """As many jobs wait as may; a later try may succeed."""

    slug = "queue-full"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} jobs wait already, the most that may (queued_jobs); submit again when one has"
            " begun"
        )
        self.limit = limit

    def details(self) -> dict[str, object]:
        """Return limit_name and limit."""
        return {**super().details(), "limit_name": "queued_jobs", "limit": self.limit}


class UnknownJobError(SoftxentError):
    """No job has this id."""

    slug = "no-such-job"


class TransitionError(SoftxentError):
    """The job is in a state that does not allow what was asked."""

    slug = "job-state"


class JobsUnavailableError(SoftxentError):
    """The records of jobs cannot be reached; a later try may succeed."""

    slug = "jobs-unavailable"
