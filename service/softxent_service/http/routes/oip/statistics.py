"""Statistics of each model, in the counts and nanoseconds of the protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from softxent_service.http.routes.oip.models import VERSION
from softxent_service.telemetry.record import DECODE, ENCODE, KERNEL, QUEUE, Record

Json = dict[str, Any]

PHASES = {
    "queue": QUEUE,
    "compute_input": DECODE,
    "compute_infer": KERNEL,
    "compute_output": ENCODE,
}
"""The protocol's words for the stages of a record."""


@dataclass
class Duration:
    """Count of an event, and its total duration."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count once more."""
        self.count += 1
        self.ns += ns

    def to_json(self) -> Json:
        """Return it as the protocol writes it."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class ModelStatistics:
    """One model's; written on the event loop alone."""

    name: str
    last_inference: int = 0
    rows: int = 0
    evaluations: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    phases: dict[str, Duration] = field(
        default_factory=lambda: {phase: Duration() for phase in PHASES}
    )

    @contextmanager
    def counting(self, record: Record) -> Iterator[None]:
        """Count a call, and where its record says that its time went."""
        began = time.perf_counter_ns()
        try:
            yield
        except BaseException:
            self.fail.add(time.perf_counter_ns() - began)
            raise
        self.success.add(time.perf_counter_ns() - began)
        self.rows += record.rows
        self.evaluations += 1
        self.last_inference = time.time_ns() // 1_000_000
        for phase, stage in PHASES.items():
            self.phases[phase].add(round(1e9 * record.seconds[stage]))

    def to_json(self) -> Json:
        """Return them as the protocol writes them; nothing is cached here."""
        return {
            "name": self.name,
            "version": VERSION,
            "last_inference": self.last_inference,
            "inference_count": self.rows,
            "execution_count": self.evaluations,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                **{phase: duration.to_json() for phase, duration in self.phases.items()},
                "cache_hit": Duration().to_json(),
                "cache_miss": Duration().to_json(),
            },
            "batch_stats": [],
        }
