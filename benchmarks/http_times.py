"""What a call costs over HTTP: ours beside bare servers and beside other serving stacks.

Every server runs in a process of its own, one worker each; all take turns in one run, and figures
are medians over the rounds. `make bench-http` sets the peers up; those that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import http_bulk
import http_memory
import http_small
import http_tail
from http_candidates import PEERS, started
from http_goals import Goals


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    bulk_rounds: int
    small_rounds: int
    seconds: float
    tail_rounds: int
    tail_seconds: float
    json_shape: tuple[int, int]
    json_calls: int


FULL = Effort(11, 7, 1.0, 7, 5.0, http_bulk.MEDIUM, 3)
QUICK = Effort(2, 1, 0.3, 1, 3.0, (32, 32_000), 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a first look")
    parser.add_argument("--only", default=",".join(PEERS), help="peers, separated by commas")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else FULL
    names = [name for name in given.only.split(",") if name]
    if unknown := set(names) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    # So that servers end with this process, however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"{os.cpu_count()} processor cores, shared by client and server")
    goals = Goals()
    with started(names) as servers:
        for shape in (http_bulk.LARGE, http_bulk.MEDIUM):
            http_bulk.table(servers, shape, effort.bulk_rounds, goals)
        for case in http_small.CASES:
            http_small.table(servers, case, effort.small_rounds, effort.seconds, goals)
    http_memory.json(effort.json_shape, effort.json_calls, goals)
    http_memory.binary(goals)
    http_tail.table(effort.tail_rounds, effort.tail_seconds, goals)
    goals.print()


if __name__ == "__main__":
    main()
