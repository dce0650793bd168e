"""Failure of a job, as the members of a problem document."""

from __future__ import annotations

from typing import Any

from softxent.errors import SoftxentError
from softxent_service.jobs.blocks import Fault


class JobFailedError(Exception):
    """The job cannot be done; `problem` tells why, and where in the arrays."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem

    @classmethod
    def of_error(cls, error: SoftxentError) -> JobFailedError:
        """Return the failure that an error of the whole job is."""
        return cls(_problem(error.slug, error.message, error.details()))

    @classmethod
    def of_fault(cls, fault: Fault) -> JobFailedError:
        """Return the failure that a block is."""
        first, last = fault.rows
        where = f" (block {fault.block}, rows {first} to {last - 1})"
        details = {**fault.details, "block": fault.block, "block_rows": [first, last]}
        return cls(_problem(fault.slug, fault.message + where, details))

    @classmethod
    def of_machine(cls, block: int, error: BaseException) -> JobFailedError:
        """Return the failure that nothing about the arrays explains."""
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        detail = f"block {block} could not be computed: {text}"
        return cls(_problem("internal-error", detail, {"block": block}))


def _problem(slug: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    return {**details, "type": f"urn:softxent:problem:{slug}", "detail": message}
