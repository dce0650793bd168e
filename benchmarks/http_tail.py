"""How long small calls take while large ones are under way.

Two clients send large batches to ours all the while. One more asks ours for one row, and in turn a
bare route that reads the body and answers at once, in a process of its own: that is what the
machine has left over, whatever a server does.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

import http_bulk
import http_forms as forms
from hammer import hammered
from http_candidates import OURS
from http_goals import Goals
from repeater import Load, offer
from servers import bare, service
from tables import print_table
from timing import progress

CLIENTS = 2
GOAL = 2.0
READY = "bare route"


def table(rounds: int, seconds: float, goals: Goals) -> None:
    """Print medians and 99th percentiles of small calls under large ones."""
    progress(f"1 x 10 while {CLIENTS} clients send large batches, {rounds} rounds")
    tensors = forms.batch(1, 10)
    request, to_ready = (
        b"".join(forms.OURS.request(tensors, path=path)) for path in (forms.OURS.path, "/")
    )
    found: dict[str, list[Load]] = {OURS: [], READY: []}
    with ExitStack() as stack:
        ours = stack.enter_context(service()).port
        ready = stack.enter_context(bare("ready-route")).port
        stack.enter_context(hammered(ours, CLIENTS, http_bulk.LARGE))
        for _ in range(rounds):
            found[OURS].append(offer(ours, request, 1, seconds))
            found[READY].append(offer(ready, to_ready, 1, seconds))
    _print(found, f"medians of {rounds} rounds of {seconds} s")
    goals.at_most(
        f"p99 of 1 x 10 under {CLIENTS} clients of large batches, over a {READY}",
        _p99(found[OURS]) / _p99(found[READY]),
        GOAL,
    )


def _p99(loads: list[Load]) -> float:
    return statistics.median(load.p99 for load in loads)


def _print(found: dict[str, list[Load]], how: str) -> None:
    rows, classes = http_bulk.LARGE
    print_table(
        f"1 x 10 binary, 1 client, while {CLIENTS} send {rows:,} x {classes:,} to {OURS}, {how}",
        ["server", "median, ms", "p99, ms"],
        [
            [
                name,
                f"{statistics.median(load.median for load in loads) * 1e3:.2f}",
                f"{_p99(loads) * 1e3:.2f}",
            ]
            for name, loads in found.items()
        ],
    )
