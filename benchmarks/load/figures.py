"""Figures of a run, and whether they are those that were asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from load.loops import Load, Sample

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

BUSY_CLIENT = 0.9
"""Share of a processor from which on the client is what is measured, and not the service."""


@dataclass(frozen=True)
class Figures:
    """Of some requests: latencies in seconds of those answered right, rates, failures."""

    requests: int
    rate: float
    latency: dict[str, float]
    late: float
    failures: dict[str, int]

    @property
    def failed(self) -> int:
        """Return how many requests have no right answer."""
        return sum(self.failures.values())

    def value(self, name: str) -> float:
        """Return a figure by the name that objectives give it."""
        shares = {"rate": self.rate, "errors": self.failed / max(1, self.requests)}
        return {**shares, **self.latency}[name]


def figures(samples: Sequence[Sample], seconds: float) -> Figures:
    """Return the figures of samples that were taken in so many seconds."""
    right = [sample for sample in samples if not sample.failure]
    latencies = np.array([sample.latency for sample in right] or [np.nan])
    late = np.array([sample.sent - sample.intended for sample in samples] or [np.nan])
    return Figures(
        requests=len(samples),
        rate=len(right) / seconds if seconds else 0.0,
        latency={
            **{name: float(np.quantile(latencies, q)) for name, q in QUANTILES.items()},
            "max": float(latencies.max()),
        },
        late=float(np.quantile(late, 0.99)),
        failures=dict(Counter(sample.failure for sample in samples if sample.failure)),
    )


def by_case(load: Load) -> dict[str, Figures]:
    """Return the figures of each case that was sent."""
    return {
        case.name: figures([s for s in load.samples if s.case == number], load.seconds)
        for number, case in enumerate(load.cases)
    }


@dataclass(frozen=True)
class Objective:
    """What a figure has to be, such as p99<=50ms, errors<=0.1% or rate>=100."""

    text: str
    name: str
    at_most: bool
    bound: float

    def holds(self, found: Figures) -> bool:
        """Tell whether it is; a figure that there is none of is not."""
        value = found.value(self.name)
        return value <= self.bound if self.at_most else value >= self.bound


_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "%": 1e-2, "/s": 1.0}
_OBJECTIVE = re.compile(r"([a-z0-9.]+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*(|s|ms|us|%|/s)")


def read_objective(text: str) -> Objective:
    """Return the objective that a text states.

    Raises:
        ValueError: it states none.
    """
    found = _OBJECTIVE.fullmatch(text.strip())
    names = {*QUANTILES, "max", "rate", "errors"}
    if found is None or found[1] not in names:
        raise ValueError(f"{text!r} is not like p99<=50ms; there are {', '.join(sorted(names))}")
    return Objective(text, found[1], found[2] == "<=", float(found[3]) * _UNITS[found[4]])
