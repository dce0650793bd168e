"""Metrics and their values in this process.

prometheus_client's own counters took 0.7 us an addition, in its mode for several processes 2 to
5 us, of the 200 us that a small call has for everything. So what is counted are numbers in
dictionaries, and prometheus_client writes them out when it is asked to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

from softxent_service.telemetry.record import KERNEL, QUEUE, STAGES, Record

BOUNDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the histograms' buckets in seconds; one more takes what is above them."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """One metric: what kind it is, what it says and by which labels."""

    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()


METRICS = {
    "softxent_requests": Metric("counter", "Requests answered.", ("route", "status")),
    "softxent_request_seconds": Metric(
        "histogram", "From a request's head to the end of its answer.", ("route",)
    ),
    "softxent_refusals": Metric("counter", "Requests refused.", ("reason",)),
    "softxent_rows": Metric("counter", "Rows evaluated.", ("route",)),
    "softxent_received_bytes": Metric("counter", "Bytes of bodies read whole.", ("route",)),
    "softxent_sent_bytes": Metric("counter", "Bytes of answers' bodies.", ("route",)),
    "softxent_kernel_seconds": Metric(
        "counter", "Time inside kernels, without waits for turns.", ("dtype",)
    ),
    "softxent_stage_seconds": Metric(
        "counter", "Time that evaluations spent in each stage.", ("stage",)
    ),
    "softxent_queue_seconds": Metric("histogram", "Waits of large calls for places and turns."),
    "softxent_compilations": Metric(
        "counter", "Kernels compiled because no machine code was kept; none once ready."
    ),
    "softxent_log_lines_dropped": Metric(
        "counter", "Lines of requests that were not written because the log was not taken."
    ),
    "softxent_requests_in_progress": Metric("gauge", "Requests that have no whole answer yet."),
    "softxent_calls_in_progress": Metric("gauge", "Large calls that have a place."),
    "softxent_queue_depth": Metric("gauge", "Large calls that wait for a place."),
    "softxent_bytes_in_flight": Metric("gauge", "Bytes that calls hold of memory_bytes."),
    "softxent_bytes_kept": Metric("gauge", "Bytes of buffers kept for later calls."),
    "softxent_ready": Metric("gauge", "Processes that are ready for evaluations."),
    "softxent_processes": Metric("gauge", "Processes that serve."),
    "softxent_jobs": Metric(
        "gauge",
        "Jobs that are queued or running in the database, whichever service took them.",
        ("state",),
    ),
}
"""Counters have `_total` behind their names when they are shown, histograms `_bucket` and so on."""


@dataclass
class Counts:
    """Numbers of one process or of several: a metric's name and its labels' values, and how much.

    Attributes:
        counters: what has been added up.
        histograms: seconds added up, then how many lay in each bucket.
        gauges: what holds now.
    """

    counters: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))
    histograms: defaultdict[Key, list[float]] = field(
        default_factory=lambda: defaultdict(lambda: [0.0] * (len(BOUNDS) + 2))
    )
    gauges: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))

    def observe(self, key: Key, seconds: float) -> None:
        """Put `seconds` into a histogram."""
        row = self.histograms[key]
        row[0] += seconds
        row[1 + bisect_left(BOUNDS, seconds)] += 1

    def count(self, record: Record) -> None:
        """Count a request that has ended."""
        counters, route = self.counters, record.route
        counters["softxent_requests", route, str(record.status)] += 1
        self.observe(("softxent_request_seconds", route), record.whole)
        counters["softxent_sent_bytes", route] += record.sent
        if record.status >= 400:
            counters["softxent_refusals", record.problem or f"status-{record.status}"] += 1
        if record.received:
            counters["softxent_received_bytes", route] += record.received
        if record.dtype is not None:
            counters["softxent_rows", route] += record.rows
            counters["softxent_kernel_seconds", record.dtype] += record.seconds[KERNEL]
            for stage, seconds in zip(STAGES, record.seconds, strict=True):
                counters["softxent_stage_seconds", stage] += seconds
        if record.seconds[QUEUE]:
            self.observe(("softxent_queue_seconds",), record.seconds[QUEUE])

    def add(self, other: Counts) -> None:
        """Add the numbers of another process."""
        for key, value in other.counters.items():
            self.counters[key] += value
        for key, row in other.histograms.items():
            self.histograms[key] = [a + b for a, b in zip(self.histograms[key], row, strict=True)]
        for key, value in other.gauges.items():
            self.gauges[key] += value
