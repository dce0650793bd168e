"""Record of a job, and pages of records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from softxent_service.jobs.errors import IdempotencyError, SpecificationError
from softxent_service.jobs.states import State

Json = dict[str, Any]

LAST_TIME = 253_402_300_799_999
"""The end of the year 9999, in milliseconds since 1970: the last that ISO 8601 writes."""


@dataclass(frozen=True)
class Record:
    """Record of a job.

    Attributes:
        job: as it was asked for; see `Specification`.
        versions: of its arrays when it was accepted; see `StoredArray.version`.
        created, started, finished: milliseconds since 1970.
        progress: see `Progress`; None before its first block.
        result: the attributes of the result, once it has succeeded.
        error: the members of a problem document, once it has failed.
        runner: the id of what last took it.
    """

    id: str
    state: State
    job: Json
    versions: dict[str, str]
    created: int
    started: int | None = None
    finished: int | None = None
    progress: Json | None = None
    result: Json | None = None
    error: Json | None = None
    runner: str | None = None

    def same_inputs(self, versions: dict[str, str]) -> Record:
        """Return the record where arrays, those of `versions`, are as when it was made.

        Raises:
            IdempotencyError: one of them is another now, and so is what was asked for.
        """
        names = [name for name in versions if self.versions.get(name) != versions[name]]
        if names:
            raise IdempotencyError(
                f"this Idempotency-Key came with the job {self.id}, and {', '.join(names)} changed"
                " since; send a new key",
                field="idempotency-key",
            )
        return self

    def to_json(self) -> Json:
        """Return it as JSON members, times as RFC 3339."""
        return {
            "id": self.id,
            "state": self.state,
            "created": _time(self.created),
            "started": _time(self.started),
            "finished": _time(self.finished),
            "job": self.job,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
        }


@dataclass(frozen=True)
class Page:
    """Some records, the newest first, and the cursor of those that follow; None at the end."""

    records: list[Record]
    following: str | None


@dataclass(frozen=True)
class Cursor:
    """Cursor: the time of the last record of a page, and how many of that time there were.

    The time of a record may be whole seconds, as SQLite has it.
    """

    created: int
    passed: int

    def to_text(self) -> str:
        """Return it as one word."""
        return f"{self.created:x}-{self.passed:x}"

    @classmethod
    def from_text(cls, text: str) -> Cursor:
        """Read the word.

        Raises:
            SpecificationError: it is none of ours.
        """
        found = re.fullmatch(r"([0-9a-f]{1,12})-([0-9a-f]{1,8})", text)
        cursor = cls(int(found[1], 16), int(found[2], 16)) if found else None
        if cursor is None or cursor.created > LAST_TIME or cursor.to_text() != text:
            raise SpecificationError("cursor is not one of ours", field="cursor")
        return cursor


def iso(milliseconds: int) -> str:
    """Return a time in milliseconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return iso(milliseconds).replace("+00:00", "Z")
