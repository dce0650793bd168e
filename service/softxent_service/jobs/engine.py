"""Execution of a job on a cluster: committed blocks are kept, the rest is computed and merged.

Only so many blocks are in flight at a time as keep the workers busy, so memory and messages are
bounded by the cluster and not by the job.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any

import distributed
from distributed import KilledWorker
from distributed.comm.core import CommClosedError

import softxent
from softxent.errors import SoftxentError
from softxent.reduction import mean_divisor
from softxent_service.jobs.block_result import Tally
from softxent_service.jobs.blocks import Fault, Outcome, evaluate_blocks
from softxent_service.jobs.cluster import Cluster, ClusterLostError, reached
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.graph import block_graph
from softxent_service.jobs.grouping import Grouping
from softxent_service.jobs.job import Job
from softxent_service.jobs.mean_denominator import check_weights, find_divisor, why_mean_is_lost
from softxent_service.jobs.progress import Progress, RateHistory
from softxent_service.jobs.result import Result

logger = logging.getLogger("softxent.jobs")

TICK_SECONDS = 0.25
"""How often the engine looks whether it should stop, and tells how far it is."""

IN_FLIGHT = 2
"""Tasks for each thread: one that is computed, and one that waits for its turn on the worker."""

ATTEMPTS = 5
"""How often a block is sent again that the scheduler has given up: it does so when as many workers
as its `allowed-failures` died under it."""

Future = distributed.Future[list[Outcome]]
Report = Callable[[Progress], None]
Stops = Callable[[], bool]


class StoppedError(Exception):
    """The job was told to stop; what was committed stays."""


def run_job(job: Job, cluster: Cluster, report: Report, stops: Stops) -> dict[str, Any]:
    """Return the attributes of the result, once every block is committed.

    Raises:
        JobFailedError: it cannot be done.
        StoppedError: `stops` said so.
    """
    try:
        result = Result(job)
        if attributes := result.done():
            # The process that finished it did not live to tell.
            result.clean()
            return attributes
        known, arrays = result.check(), job.open()
        if known is None:
            result.clear()
        divisor = _known_divisor(known) if known else find_divisor(job, arrays)
        if divisor is not None:
            check_weights(job, arrays, divisor)
        job = job.begun(divisor, known["result_id"] if known else None)
        result = Result(job)
        result.begin(arrays["logits"], divisor)
        tally = result.finished() if known else Tally()
        _Run(job, cluster, tally, report, stops).all_blocks()
        options, sums = job.specification.options, tally.sums
        whole = mean_divisor(options, sums.weight_sum, sums.count)
        check_weights(job, arrays, whole, sums.weight_sum)
        lost = why_mean_is_lost(job, arrays, tally.sums.weight_sum)
        job.check_versions({name: array.version() for name, array in arrays.items()})
        return result.finish(tally, lost)
    except SoftxentError as error:
        raise JobFailedError.of_error(error) from error


def _known_divisor(known: Mapping[str, Any]) -> float | None:
    divisor = known["divisor"]
    return None if divisor is None else float(divisor)


class _Run:
    """One run of a job: from what it finds committed to the last block."""

    def __init__(
        self, job: Job, cluster: Cluster, tally: Tally, report: Report, stops: Stops
    ) -> None:
        self._job = job
        self._cluster = cluster
        self._tally = tally
        self._report = report
        self._stops = stops
        self._began = time.monotonic()
        self._rows_before = self._rows = sum(map(self._rows_of, tally.done))
        self._history = RateHistory(self._rows, len(tally.done))
        self._told = 0.0
        self._killed: Counter[int] = Counter()

    def all_blocks(self) -> None:
        """Compute what is left, on as many clusters as it takes."""
        lost = False
        while len(self._tally.done) < self._job.plan.blocks:
            try:
                self._tick(force=True)
                _Flight(self._cluster, self).run()
                lost = False
            except ClusterLostError as error:
                if not lost:
                    logger.warning("%s waits: %s", self._job.output.url, error)
                lost = True
                time.sleep(TICK_SECONDS)
        self._tick(force=True)

    def left(self) -> Iterator[int]:
        """Yield the blocks that are not committed."""
        blocks = range(self._job.plan.blocks)
        return (block for block in blocks if block not in self._tally.done)

    def count_left(self) -> int:
        """Return how many those are."""
        return self._job.plan.blocks - len(self._tally.done)

    def grouping(self) -> Grouping:
        """Return how blocks are put together in tasks; one whose columns are cut is many."""
        return Grouping(1) if self._job.plan.is_sharded else Grouping()

    def send(self, client: distributed.Client, blocks: list[int]) -> Future:
        """Send blocks: one task where rows are whole, else the graph of the one block."""
        job, numerics = self._job, softxent.NUMERICS_VERSION
        future: Future
        with reached():
            if job.plan.is_sharded:
                future = client.compute(block_graph(job, *blocks), optimize_graph=False)
            else:
                future = client.submit(evaluate_blocks, job, blocks, numerics, pure=False)
        return future

    def take(self, outcomes: list[Outcome]) -> list[Fault]:
        """Add the blocks that are committed; return what is wrong with those that are not."""
        faults = []
        for outcome in outcomes:
            if isinstance(outcome, Fault):
                faults.append(outcome)
            elif outcome.block not in self._tally.done:
                self._tally.add(outcome)
                self._rows += self._rows_of(outcome.block)
        self.tick()
        return faults

    def killed(self, blocks: list[int], error: BaseException) -> None:
        """Note that workers died under blocks.

        Raises:
            JobFailedError: they did so every time.
        """
        self._killed.update(blocks)
        logger.warning("blocks from %d on are sent again: %s", blocks[0], error)
        for block in blocks:
            if self._killed[block] >= ATTEMPTS:
                raise JobFailedError.of_machine(block, error)

    def tick(self) -> None:
        """Tell how far the job is, at times, and end it where it should stop.

        Raises:
            StoppedError: it should.
        """
        self._tick(force=False)

    def _tick(self, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._told < TICK_SECONDS:
            return
        self._told = now
        plan, done = self._job.plan, len(self._tally.done)
        seconds, is_last = now - self._began, done == plan.blocks
        self._history.add(seconds, self._rows, done, is_last=is_last)
        start = Progress(plan.rows, plan.blocks, rates=self._history.rates())
        self._report(start.at(self._rows, done, self._rows_before, seconds))
        if self._stops():
            raise StoppedError

    def _rows_of(self, block: int) -> int:
        first, last = self._job.plan.rows_of(block)
        return last - first


class _Flight:
    """The blocks that are on their way, on one connection."""

    def __init__(self, cluster: Cluster, run: _Run) -> None:
        self._client = cluster.client()
        self._cluster = cluster
        self._run = run
        self._left, self._unsent = run.left(), run.count_left()
        self._grouping = run.grouping()
        self._flying: dict[Future, tuple[list[int], float]] = {}
        self._arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._faults: list[Fault] = []

    def run(self) -> None:
        """Send blocks as places come free, until all are committed.

        Raises:
            ClusterLostError, JobFailedError, StoppedError.
        """
        try:
            self._send()
            while self._flying:
                try:
                    self._land(self._arrived.get(timeout=TICK_SECONDS))
                except queue.Empty:
                    self._run.tick()
                    self._check_connection()
                self._send()
        except (JobFailedError, StoppedError):
            with contextlib.suppress(ClusterLostError), reached():
                self._client.cancel(list(self._flying), force=True)
            raise
        if self._faults:
            # Blocks are sent in order and those under way are waited for: the first one is told,
            # whichever came first.
            raise JobFailedError.of_fault(min(self._faults, key=lambda fault: fault.block))

    def _send(self) -> None:
        if self._faults:
            return
        places = self._cluster.width() * IN_FLIGHT
        while self._unsent and len(self._flying) < places:
            blocks = list(islice(self._left, self._grouping.next(self._unsent, places)))
            self._unsent -= len(blocks)
            future = self._run.send(self._client, blocks)
            self._flying[future] = blocks, time.monotonic()
            future.add_done_callback(self._arrived.put)

    def _land(self, future: Future) -> None:
        blocks, sent = self._flying.pop(future)
        if future.status == "finished":
            with reached():
                outcomes = future.result()
            self._grouping.took(len(blocks), time.monotonic() - sent)
            self._faults += self._run.take(outcomes)
            return
        if future.status != "error":
            raise ClusterLostError(f"blocks from {blocks[0]} on are {future.status}")
        with reached():
            error = future.exception()
        if isinstance(error, (CancelledError, CommClosedError)):
            raise ClusterLostError(f"blocks from {blocks[0]} on: {error}")
        if not isinstance(error, KilledWorker):
            raise JobFailedError.of_machine(blocks[0], error) from error
        self._run.killed(blocks, error)

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise ClusterLostError(f"the connection is {self._client.status}")
