"""Records of jobs in the tables of DBOS, whose states are ours by another name.

What asks here (the routes, the command line) computes nothing; what computes is `runner`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, EnqueueOptions, WorkflowStatus
from dbos._error import DBOSQueueDeduplicatedError
from dbos._serialization import PortableWorkflowError, WorkflowSerializationFormat

from softxent_service.jobs.errors import (
    IdempotencyError,
    JobsUnavailableError,
    OutputInUseError,
    UnknownJobError,
)
from softxent_service.jobs.job import FORMAT, Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.record import Cursor, Json, Page, Record, iso
from softxent_service.jobs.specification import Specification
from softxent_service.jobs.states import State, after

APPLICATION = "softxent"
QUEUE = "softxent-jobs"
WORKFLOW = "softxent.evaluate"

VERSION = f"jobs-{FORMAT}"
"""Runners take only jobs of their version: it is that of the record, so that an upgrade which
changes neither record nor bits goes on with what it finds."""

STATES: dict[str, State] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
"""A job's state by DBOS's word."""


MOST_COUNTED = 10_000
"""Jobs that are counted for who watches; beyond that it is enough to know that there are many."""


_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What every id is. Others are not asked for: PostgreSQL takes no NUL, SQLite no surrogate."""

_NOT_OURS = re.compile(r"unable to open|readonly|Permission denied|File exists|Not a directory")
"""What is said of a file that this process may not open, make or write to."""


class Records:
    """The records in one database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._migrated = False

    def submit(self, job: Job, block_bytes: int, key: str | None = None) -> Record:
        """Record a job that was accepted, and return it; with a key that came before, that one.

        Raises:
            IdempotencyError: the key came with another job, or with inputs that changed since.
            OutputInUseError: a job is queued or running whose output is the same.
            JobsUnavailableError: the database cannot be reached.
        """
        asked = job.specification.to_json()
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": id_of(key),
            "deduplication_id": hashlib.sha256(job.output.url.encode()).hexdigest(),
            "app_version": VERSION,
            "application_name": APPLICATION,
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
        }
        try:
            with self._reached() as client:
                client.enqueue(options, asked, block_bytes, dict(job.versions))
        except DBOSQueueDeduplicatedError:
            if key is not None and (found := self.find(key, job.specification)):
                return found.same_inputs(dict(job.versions))
            raise OutputInUseError(
                f"a job that writes to {job.output.url} is queued or running", field="output"
            ) from None
        record = self._same(self.show(options["workflow_id"]), job.specification)
        return record.same_inputs(dict(job.versions))

    def find(self, key: str, specification: Specification) -> Record | None:
        """Return the job that a key came with, None where it is new.

        Raises:
            IdempotencyError: that was another job.
        """
        try:
            return self._same(self.show(id_of(key)), specification)
        except UnknownJobError:
            return None

    def _same(self, record: Record, specification: Specification) -> Record:
        if record.job != specification.to_json():
            raise IdempotencyError(
                f"this Idempotency-Key came with another job, {record.id}; send a new one",
                field="idempotency-key",
            )
        return record

    def holds(self, queued: int) -> bool:
        """Whether so many jobs, or more, wait to be run."""
        words = [word for word, state in STATES.items() if state == "queued"]
        with self._reached() as client:
            last = client.list_workflows(
                name=WORKFLOW,
                status=words,
                offset=queued - 1,
                limit=1,
                load_input=False,
                load_output=False,
            )
        return bool(last)

    def show(self, job_id: str) -> Record:
        """Return one record.

        Raises:
            UnknownJobError: there is none of this id.
        """
        found = []
        with self._reached() as client:
            if _ID.fullmatch(job_id):
                found = client.list_workflows(workflow_ids=[job_id], name=WORKFLOW)
        if not found:
            raise UnknownJobError("no job has this id", field="id")
        return _record(found[0])

    def page(
        self,
        states: Sequence[State] = (),
        limit: int = 50,
        cursor: Cursor | None = None,
    ) -> Page:
        """Return some records, the newest first."""
        words = [word for word, state in STATES.items() if state in states] if states else None
        with self._reached() as client:
            found = client.list_workflows(
                name=WORKFLOW,
                status=words,
                end_time=iso(cursor.created) if cursor else None,
                offset=cursor.passed if cursor else None,
                limit=limit + 1,
                sort_desc=True,
            )
        records = [_record(status) for status in found[:limit]]
        if len(found) <= limit:
            return Page(records, None)
        last = records[-1].created
        passed = sum(record.created == last for record in records)
        if cursor and cursor.created == last:
            passed += cursor.passed
        return Page(records, Cursor(last, passed).to_text())

    def active(self) -> dict[str, int]:
        """Return how many jobs are queued and how many run; together at most `MOST_COUNTED`."""
        words = [word for word, state in STATES.items() if state in ("queued", "running")]
        with self._reached() as client:
            found = client.list_workflows(
                name=WORKFLOW, status=words, limit=MOST_COUNTED, load_input=False, load_output=False
            )
        counted = Counter(STATES[status.status] for status in found)
        return {"queued": counted["queued"], "running": counted["running"]}

    def cancel(self, job_id: str) -> Record:
        """Cancel a job, and return it.

        Raises:
            UnknownJobError: there is none of this id.
            TransitionError: it has ended already.
        """
        after(self.show(job_id).state, "cancel")
        with self._reached() as client:
            client.cancel_workflow(job_id)
        record = self.show(job_id)
        if record.state != "cancelled":
            # It ended in the meantime.
            after(record.state, "cancel")
        return record

    def report(self, job_id: str, progress: Progress) -> None:
        """Write down how far a job is."""
        with self._reached() as client:
            client.update_workflow_attributes(job_id, {"progress": progress.to_json()})

    def give_back(self, job_id: str) -> None:
        """Put a job that is running here back in the queue."""
        with self._reached() as client:
            client.resume_workflow(job_id, queue_name=QUEUE)

    def prepare(self) -> None:
        """Make or migrate the tables.

        Raises:
            JobsUnavailableError: the database cannot be reached.
        """
        with self._reached():
            pass

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client.destroy()

    @cached_property
    def _client(self) -> DBOSClient:
        return DBOSClient(
            system_database_url=self.url,
            application_name=APPLICATION,
            retry_connection_errors=False,
        )

    @contextlib.contextmanager
    def _reached(self) -> Iterator[DBOSClient]:
        try:
            with self._lock:
                if not self._migrated:
                    logging.getLogger("dbos").setLevel(logging.ERROR)
                    DBOS.migrate(self.url)
                    self._migrated = True
                client = self._client
            yield client
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            raise _unavailable(error, self.url) from error


def _unavailable(error: Exception, url: str) -> JobsUnavailableError:
    """Return the error of records that cannot be reached; a file of them is named, and who asks."""
    reason = " ".join(str(getattr(error, "orig", error)).split())[:200]
    told = f"the records of jobs cannot be reached: {reason}"
    database = sa.make_url(url)
    if database.get_backend_name() == "sqlite" and _NOT_OURS.search(reason):
        told += (
            f" ({database.database}, by user {os.getuid()} of group {os.getgid()}); let this user"
            " write to the folder, or name another with --data, or a database with --database"
        )
    return JobsUnavailableError(told)


def database_url(database: str | None, data: Path) -> str:
    """Return the URL of the database: the one given, or SQLite in the data directory.

    Raises:
        JobsUnavailableError: the data directory cannot be made.
    """
    if database:
        # A database that does not know its encoding would give bytes in place of text.
        url = sa.make_url(database)
        url = url.update_query_dict({"client_encoding": "utf8", **url.query})
        return url.render_as_string(hide_password=False)
    file = f"sqlite:///{data.absolute()}/jobs.sqlite"
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unavailable(error, file) from error
    return file


def id_of(key: str | None) -> str:
    """Return the id of a job: the same for the same key, a new one without."""
    return str(uuid.uuid4() if key is None else uuid.uuid5(uuid.NAMESPACE_URL, f"softxent:{key}"))


def _record(status: WorkflowStatus) -> Record:
    arguments: Any = status.input
    given = (arguments["args"] if arguments else None) or [{}, 0, {}]
    return Record(
        id=status.workflow_id,
        state=STATES[status.status],
        job=given[0],
        versions=given[2] if len(given) > 2 else {},
        created=status.created_at or 0,
        started=status.dequeued_at,
        finished=status.completed_at,
        progress=(status.attributes or {}).get("progress"),
        result=status.output if STATES[status.status] == "succeeded" else None,
        error=_problem(status),
        runner=status.executor_id,
    )


def _problem(status: WorkflowStatus) -> Json | None:
    if STATES[status.status] != "failed":
        return None
    error = status.error
    if isinstance(error, PortableWorkflowError) and isinstance(error.data, dict):
        return dict(error.data)
    detail = str(error) if error else "it ended its runner too many times"
    return {"type": "urn:softxent:problem:internal-error", "detail": detail[:1000]}
