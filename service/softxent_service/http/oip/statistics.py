"""What each model has done so far, in the protocol's counts and nanoseconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from softxent_service.http.oip.models import VERSION

Json = dict[str, Any]

PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
"""Waiting for a thread, decoding, evaluating, encoding."""


@dataclass
class Duration:
    """How often something took place, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count once more."""
        self.count += 1
        self.ns += ns

    def told(self) -> Json:
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

    def told(self) -> Json:
        """Return them as the protocol writes them; nothing is cached here."""
        return {
            "name": self.name,
            "version": VERSION,
            "last_inference": self.last_inference,
            "inference_count": self.rows,
            "execution_count": self.evaluations,
            "inference_stats": {
                "success": self.success.told(),
                "fail": self.fail.told(),
                **{phase: duration.told() for phase, duration in self.phases.items()},
                "cache_hit": Duration().told(),
                "cache_miss": Duration().told(),
            },
            "batch_stats": [],
        }


class Timing:
    """One call's time, counted where it belongs once the call has ended.

    Attributes:
        rows: of its batch, once that is known.
    """

    def __init__(self, statistics: ModelStatistics) -> None:
        self._statistics = statistics
        self._ns = dict.fromkeys(PHASES, 0)
        self._began = self._last = time.perf_counter_ns()
        self.rows = 0

    def end_of(self, phase: str | None) -> None:
        """Add what has passed since the last call to a phase, None to none of them."""
        now = time.perf_counter_ns()
        if phase is not None:
            self._ns[phase] += now - self._last
        self._last = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        statistics = self._statistics
        ns = time.perf_counter_ns() - self._began
        if error is not None:
            statistics.fail.add(ns)
            return
        statistics.success.add(ns)
        statistics.rows += self.rows
        statistics.evaluations += 1
        statistics.last_inference = time.time_ns() // 1_000_000
        for phase, duration in statistics.phases.items():
            duration.add(self._ns[phase])
