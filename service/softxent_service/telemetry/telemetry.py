"""Telemetry of requests, assembled from the settings."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol

from prometheus_client import ProcessCollector
from starlette.types import Scope
from structlog.typing import Processor

from softxent_service.settings import Settings
from softxent_service.telemetry.exposition import exposition
from softxent_service.telemetry.metrics import METRICS, Counts
from softxent_service.telemetry.record import Record, begin
from softxent_service.telemetry.request_ids import RequestIds
from softxent_service.telemetry.request_log import Lines
from softxent_service.telemetry.snapshots import Snapshots

logger = logging.getLogger("softxent")

GROUP, GROUP_SECONDS = 32, 0.05
"""So many requests, or those of so long, are told of one after the other: to count and log one took
8 us in a row, and 18 between two calls, whose work drives this code out of the caches."""

EXTRA = 'pip install "softxent[tracing]"'


class Tracing(Protocol):
    """Maker of spans, from the tracing extra."""

    def record(self, record: Record) -> None:
        """Trace a request that has ended, if it is one that is traced."""

    def close(self) -> None:
        """Send what waits."""


class Telemetry:
    """Counts, logs and traces of requests; only the thread of the event loop calls it.

    Attributes:
        counts: what this process has counted.
        readings: asked for what holds now, by the names of `METRICS`.
    """

    def __init__(self, settings: Settings, render: Processor | None = None) -> None:
        """Begin; `render` makes lines of events, None logs no requests."""
        self.counts = Counts()
        self.readings: Callable[[], Mapping[str, float]] = dict
        self._ids = RequestIds()
        self._inside = 0
        self._ended: list[Record] = []
        self._telling: asyncio.TimerHandle | None = None
        self._lines = None
        if render is not None and logger.isEnabledFor(logging.INFO):
            self._lines = Lines(render)
        self._traces = _tracing(settings)
        directory = settings.metrics_directory
        self._snapshots = None if directory is None else Snapshots(directory)

    def begin(self, scope: Scope) -> Record:
        """Return the record of a request whose head is there."""
        self._inside += 1
        return begin(scope, self._ids.of(scope["headers"]))

    def end(self, record: Record) -> None:
        """Tell of a request whose answer has ended."""
        self._inside -= 1
        self._tell(record)

    def refused(self, status: int, problem: str) -> None:
        """Tell of a request that was refused before it had a head to make a record of."""
        record = Record({}, self._ids.of(()))
        record.status, record.problem = status, problem
        self._tell(record)

    def _tell(self, record: Record) -> None:
        """Have a request told of soon."""
        record.whole = perf_counter() - record.began
        record.ended = time.time()
        self._ended.append(record)
        if len(self._ended) >= GROUP:
            self._tell_all()
        elif self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(GROUP_SECONDS, self._tell_all)

    def _tell_all(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        records, self._ended = self._ended, []
        for record in records:
            self.counts.count(record)
            if self._traces is not None:
                self._traces.record(record)
            if self._lines is not None:
                self._lines.put(record)

    def exposition(self, accept: str, jobs: Mapping[str, int]) -> tuple[bytes, str]:
        """Return the metrics of all processes in the form that `accept` asks for, and its type.

        `jobs` says how many there are by state; they are no process's own and not added up.
        """
        self._read()
        together = Counts()
        others = () if self._snapshots is None else self._snapshots.others()
        for counts in (self.counts, *others):
            together.add(counts)
        for state, number in jobs.items():
            together.gauges["softxent_jobs", state] = number
        if self._snapshots is None:
            # Memory and descriptors of one process say nothing where there are several.
            return exposition(together, accept, [ProcessCollector(registry=None)])
        return exposition(together, accept)

    def write(self) -> None:
        """Let other processes see what this one has counted, where there are any."""
        if self._snapshots is not None:
            self._read()
            try:
                self._snapshots.write(self.counts)
            except OSError as error:
                # A full disk is no reason to stop evaluating.
                logger.error("metrics: counts cannot be left for other processes: %s", error)

    def close(self) -> None:
        """Write and send what waits."""
        self._tell_all()
        self.write()
        if self._traces is not None:
            self._traces.close()
        if self._lines is not None:
            self._lines.close()

    def _read(self) -> None:
        self._tell_all()
        own = {"softxent_processes": 1.0, "softxent_requests_in_progress": self._inside}
        if self._lines is not None:
            own["softxent_log_lines_dropped"] = self._lines.dropped
        for name, value in {**own, **self.readings()}.items():
            is_counter = METRICS[name].kind == "counter"
            (self.counts.counters if is_counter else self.counts.gauges)[name,] = value


def _tracing(settings: Settings) -> Tracing | None:
    if settings.otlp_endpoint is None:
        return None
    try:
        from softxent_service.telemetry.traces import Traces
    except ModuleNotFoundError as missing:
        sys.exit(f"softxent: otlp_endpoint needs {missing.name}; run: {EXTRA}")
    return Traces(settings.otlp_endpoint, settings.trace_share)
