"""Runner: takes jobs from the queue and resumes those that its id left.

A job is one durable workflow of DBOS without steps of its own: what of it is done is known from
the records of its blocks, beside its result. So a run that begins again finds everything there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSConfig
from dbos._error import DBOSAwaitedWorkflowCancelledError
from dbos._serialization import PortableWorkflowError, WorkflowSerializationFormat

from softxent.errors import SoftxentError
from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError, run_job
from softxent_service.jobs.errors import JobsUnavailableError, UnknownJobError
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.lock import Lock
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.records import APPLICATION, QUEUE, VERSION, WORKFLOW, Records
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification

logger = logging.getLogger("softxent.jobs")

POLL_SECONDS = 0.25
"""How often the queue is looked at: 4 ms of the interpreter each time. DBOS's own second would
be most of the time of a small job."""

REPORT_SECONDS = 0.5
"""How often progress is written down, and looked whether the job was cancelled."""

RECOVERIES = 1000
"""How often a job may take its runner with it before it is given up."""

LEAVING_SECONDS = 30
"""How long a runner that stops waits for its blocks under way."""


_TOLD = (PortableWorkflowError, DBOSAwaitedWorkflowCancelledError)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether DBOS tells more than that a job failed or was cancelled, told here in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], _TOLD))


class Leaving(BaseException):
    """The runner stops. No `Exception`: DBOS would take it for the end of the job."""


class Runner:
    """Runner of jobs in this process; DBOS allows one."""

    def __init__(
        self,
        *,
        name: str,
        records: Records,
        roots: Roots,
        cluster: Cluster,
        jobs: int,
    ) -> None:
        self._name = name
        self._records = records
        self._roots = roots
        self._cluster = cluster
        self._jobs = jobs
        self._lock = Lock(records.url, name)
        self._leaving = threading.Event()
        self._launched = False
        self._running = 0

    def start(self) -> bool:
        """Begin to take jobs; return whether it does, which it does not beside one of its id."""
        self._records.prepare()
        if not self._lock.take():
            return False
        # The in-process cluster is made once, and before two jobs can ask for it.
        with contextlib.suppress(Exception):
            self._cluster.client()
        try:
            self._launch()
        except BaseException:
            # Half a launch counts as one, and the next try would do nothing.
            DBOS.destroy(destroy_registry=True)
            raise
        self._launched = True
        logger.info("runner %s takes jobs", self._name)
        return True

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._records.url,
            "application_version": VERSION,
            "executor_id": self._name,
            "log_level": "ERROR",
            "max_executor_threads": self._jobs + 4,
        }
        logging.getLogger("dbos").addFilter(_is_news)
        DBOS(config=config)
        DBOS.workflow(
            name=WORKFLOW,
            max_recovery_attempts=RECOVERIES,
            serialization_type=WorkflowSerializationFormat.PORTABLE,
        )(self._workflow())
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._jobs,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )

    def watch(self, seconds: float) -> bool:
        """Wait, and return whether the runner's id is still its own."""
        time.sleep(seconds)
        with contextlib.suppress(Exception):
            return self._lock.take()
        return True

    def stop(self) -> None:
        """Take no more jobs, and give those back that are running, once their blocks are done."""
        self._leaving.set()
        if self._launched:
            seconds = LEAVING_SECONDS if self._running else 0
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=seconds)
            self._launched = False
        self._lock.release()

    def _workflow(self) -> Callable[[dict[str, Any], int, dict[str, str]], dict[str, Any]]:
        def evaluate(
            asked: dict[str, Any], block_bytes: int, versions: dict[str, str]
        ) -> dict[str, Any]:
            job_id = DBOS.workflow_id
            assert job_id is not None
            self._running += 1
            try:
                return self._run(job_id, asked, block_bytes, versions)
            finally:
                self._running -= 1

        return evaluate

    def _run(
        self, job_id: str, asked: dict[str, Any], block_bytes: int, versions: dict[str, str]
    ) -> dict[str, Any]:
        logger.info("job %s begins", job_id)
        watched = _Watch(self._records, job_id, self._name, self._leaving)
        try:
            specification = Specification.from_json(asked)
            job = accept(specification, self._roots, block_bytes)
            job.check_versions(versions)
            result = run_job(job, self._cluster, watched.report, watched.stops)
            watched.end()
        except StoppedError:
            self._leave(job_id, watched)
            raise PortableWorkflowError("it was cancelled", "Cancelled") from None
        except SoftxentError as error:
            raise _workflow_error(job_id, JobFailedError.of_error(error)) from None
        except JobFailedError as failed:
            raise _workflow_error(job_id, failed) from None
        logger.info("job %s succeeded", job_id)
        return result

    def _leave(self, job_id: str, watched: _Watch) -> None:
        # Both may have come at once, and what was cancelled is not revived.
        if watched.is_lost() or not self._leaving.is_set():
            logger.info("job %s was cancelled", job_id)
            return
        with contextlib.suppress(JobsUnavailableError):
            self._records.give_back(job_id)
        logger.info("job %s goes back to the queue", job_id)
        raise Leaving


def _workflow_error(job_id: str, failed: JobFailedError) -> PortableWorkflowError:
    logger.info("job %s failed: %s", job_id, failed)
    return PortableWorkflowError(str(failed), "JobFailed", data=failed.problem)


class _Watch:
    """Watch of a running job: it records progress, and sees whether the job was cancelled."""

    def __init__(
        self, records: Records, job_id: str, runner: str, leaving: threading.Event
    ) -> None:
        self._records = records
        self._job_id = job_id
        self._runner = runner
        self._leaving = leaving
        self._next = 0.0
        self._progress: Progress | None = None
        self._lost = False

    def report(self, progress: Progress) -> None:
        """Take how far the job is; it is written down now and then, where that is possible."""
        self._progress = progress
        # Of a job that was cancelled by then, nothing is made a result.
        is_last = progress.blocks_done == progress.blocks
        if is_last or time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_SECONDS
            self._look()

    def stops(self) -> bool:
        """Whether the job is not to be done here any more."""
        return self._lost or self._leaving.is_set()

    def end(self) -> None:
        """Write down that the job is done.

        Raises:
            StoppedError: it was cancelled while its result was made whole.
        """
        if self.is_lost():
            raise StoppedError

    def is_lost(self) -> bool:
        """Look whether the job is not this runner's any more."""
        self._look()
        return self._lost

    def _look(self) -> None:
        with contextlib.suppress(JobsUnavailableError):
            self._lost = not self._is_ours()
            # The record of a job that has ended does not change: who watched it was told the end.
            if self._progress is not None and not self._lost:
                self._records.report(self._job_id, self._progress)

    def _is_ours(self) -> bool:
        try:
            record = self._records.show(self._job_id)
        except UnknownJobError:
            return False
        return record.state == "running" and record.runner == self._runner
