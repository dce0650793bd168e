"""A service under load for long: memory, descriptors and p99 have to stay where they were.

Starts a service, finds how many requests of mixed traffic it answers a second through this client,
then sends 80 % of that, evenly, for ten minutes, with samples of what the service uses.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import HOST, service

from load.cases import MIXED, Case, make_cases
from load.figures import figures
from load.live import shown
from load.loops import Load, Run
from load.plots import Points, plot
from load.processes import usage
from load.report import Verdict, page, verdicts, windows, write
from load.senders import HttpxSender

CONNECTIONS = 8
CAPACITY_SECONDS = 10.0
SETTLING = 0.25
"""Part of the run in which buffers and pools still fill; it is not compared."""

GROWTH = {"memory, MB": 0.10, "descriptors": 0.10, "p99, ms": 1.0}
"""By which share the last third of what is compared may be over the first; p99 is a rough figure
on a machine that the client shares."""


@dataclass
class Samples:
    """What the service used, over the seconds of a run."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    descriptors: list[tuple[float, float]] = field(default_factory=list)

    async def take(self, process: int, every: float) -> None:
        """Take samples until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            now, used = loop.time() - began, usage(process)
            self.memory.append((now, used.memory / 1e6))
            self.descriptors.append((now, used.descriptors))
            await asyncio.sleep(every)


async def capacity(url: str, cases: Sequence[Case], seconds: float) -> float:
    """Return how many requests a second are answered where each waits for the one before."""
    sender = HttpxSender(url, None, CONNECTIONS)
    try:
        load = await Run(sender, cases, _unseen).closed(CONNECTIONS, seconds)
    finally:
        await sender.close()
    return figures(load.samples, load.seconds).rate


async def soak(
    url: str, process: int, cases: Sequence[Case], rate: float, seconds: float
) -> tuple[Load, Samples]:
    """Send at a rate for so long, and return what came of it and what was used."""
    sender, samples = HttpxSender(url, None, CONNECTIONS), Samples()
    taking = asyncio.create_task(samples.take(process, max(0.2, seconds / 300)))
    try:
        with shown(seconds) as watch:
            load = await Run(sender, cases, watch).open(rate, seconds, poisson=True)
    finally:
        taking.cancel()
        await sender.close()
    return load, samples


def flat(name: str, points: Points) -> Verdict:
    """Judge whether a curve ends where it began, settling apart."""
    begin, end = points[0][0], points[-1][0]
    kept = [value for at, value in points if at >= begin + SETTLING * (end - begin)]
    third = max(1, len(kept) // 3)
    first, last = (statistics.median(part) for part in (kept[:third], kept[-third:]))
    holds = last <= first * (1 + GROWTH[name])
    allowed = f"{name}: the last third at most {GROWTH[name]:.0%} over the first"
    return Verdict(allowed, f"{first:.1f}, then {last:.1f}", holds)


def _unseen(_load: Load) -> None:
    """Show nothing."""


async def run(url: str, process: int, given: argparse.Namespace) -> bool:
    """Do everything; tell whether all is as it should be."""
    found = await capacity(url, given.mix, min(CAPACITY_SECONDS, given.seconds / 4))
    rate = given.share * found
    print(f"soak: capacity {found:.0f}/s through this client, {rate:.0f}/s for {given.seconds:g} s")
    load, samples = await soak(url, process, given.mix, rate, given.seconds)
    curves = {
        "memory, MB": samples.memory,
        "descriptors": samples.descriptors,
        "p99, ms": windows(load)["p99"],
    }
    whole = figures(load.samples, load.seconds)
    judged = [
        Verdict("every request is answered", f"{whole.failed} not", not whole.failed),
        *verdicts([], whole),
        *(flat(name, points) for name, points in curves.items()),
    ]
    for verdict in judged:
        print(f"{'holds ' if verdict.holds else 'MISSED'} {verdict.asked} ({verdict.found})")
    more = [
        plot("Resident memory of the service", "s", "MB", {"memory": samples.memory}),
        plot("Open descriptors of the service", "s", "", {"descriptors": samples.descriptors}),
    ]
    title = f"softxent for {given.seconds:g} s at {given.share:.0%} of {found:.0f}/s"
    write(given.report, page(title, load, judged, more))
    return all(verdict.holds for verdict in judged)


def main() -> None:
    """Start a service and soak it."""
    parser = argparse.ArgumentParser(prog="python -m load.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--share", type=float, default=0.8, help="of capacity; default: 0.8")
    parser.add_argument("--mix", type=make_cases, default=MIXED, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=Path("soak.html"))
    parser.add_argument("--log", type=Path, default=Path("soak.log"), help="of the service")
    given = parser.parse_args()
    with service(log=given.log) as server:
        holds = asyncio.run(run(f"http://{HOST}:{server.port}", server.pid, given))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
