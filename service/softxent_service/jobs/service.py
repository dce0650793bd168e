"""Jobs inside the service: their submission, and a runner beside it."""

from __future__ import annotations

import logging
import threading

from softxent_service.jobs.acceptance import accept, versions_of
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.errors import QueueFullError
from softxent_service.jobs.record import Record
from softxent_service.jobs.records import Records, database_url
from softxent_service.jobs.result import Result
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.runner import Runner
from softxent_service.jobs.specification import Specification
from softxent_service.settings import Settings

logger = logging.getLogger("softxent.jobs")

WATCH_SECONDS = 1.0


class JobService:
    """Submission of jobs into the records."""

    def __init__(self, settings: Settings, records: Records) -> None:
        self._records = records
        self._roots = Roots(settings.root_urls)
        self._block_bytes = settings.block_bytes
        self._queued_jobs = settings.queued_jobs
        self._submitting = threading.Lock()

    def submit(self, members: object, key: str | None = None) -> Record:
        """Check a job and record it; with a key that came before, return that job.

        Where an array has changed since the key came, it is another job, and refused. One that was
        removed since makes no other job.

        Raises:
            SoftxentError: the job is refused, or the records cannot be reached.
        """
        specification = Specification.from_json(members)
        if found := self._found(key, specification):
            return found.same_inputs(versions_of(specification, self._roots))
        job = accept(specification, self._roots, self._block_bytes)
        Result(job).check()
        with self._submitting:
            if self._records.holds(self._queued_jobs):
                if found := self._found(key, specification):
                    return found.same_inputs(dict(job.versions))
                raise QueueFullError(self._queued_jobs)
            return self._records.submit(job, self._block_bytes, key)

    def _found(self, key: str | None, specification: Specification) -> Record | None:
        return None if key is None else self._records.find(key, specification)


def make_runner(settings: Settings) -> Runner:
    """Return the runner that settings describe."""
    return Runner(
        name=settings.runner_id,
        records=Records(database_url(settings.database, settings.data)),
        roots=Roots(settings.root_urls),
        cluster=Cluster(settings.dask_scheduler, settings.threads),
        jobs=settings.running_jobs,
    )


class Host:
    """Host of a runner beside other work; while its id is taken, it waits."""

    def __init__(self, settings: Settings) -> None:
        self._runner = make_runner(settings)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-runner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the runner; what it runs goes back to the queue."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        started = False
        while not self._closing.wait(0 if not started else WATCH_SECONDS):
            try:
                started = started or self._runner.start()
            except Exception as error:
                logger.warning("the runner cannot start: %s", error)
            if not started:
                self._closing.wait(WATCH_SECONDS)
        self._runner.stop()
