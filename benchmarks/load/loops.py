"""Two ways to put load on: as fast as answers come, or at a rate whatever the answers do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from load.cases import Case, picks
from load.senders import FAILURES, Sender

MOST_WAITING = 5_000
"""Requests without an answer, of an open loop; further ones are failures that were not sent."""

NOT_SENT = "not sent"


@dataclass(frozen=True)
class Sample:
    """One request, in seconds since the load began.

    Attributes:
        case: which of the cases was sent.
        intended: when it was to be sent; latency counts from here, so that a server which stalls
            does not hide those that would have come meanwhile.
        sent: when it was.
        ended: when its answer was there.
        failure: what went wrong; empty where the answer was right.
    """

    case: int
    intended: float
    sent: float
    ended: float
    failure: str = ""

    @property
    def latency(self) -> float:
        """Return the seconds from when it was to be sent until its answer was there."""
        return self.ended - self.intended


@dataclass
class Load:
    """One run: what was sent, what of it failed, and how much of a processor the client took."""

    cases: Sequence[Case]
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    client_share: float = 0.0
    failed: int = 0


class Run:
    """Sends cases and notes what came of each; `watch` is called after each answer."""

    def __init__(
        self, sender: Sender, cases: Sequence[Case], watch: Callable[[Load], None]
    ) -> None:
        self._sender = sender
        self._watch = watch
        self._picks = picks(cases)
        self.load = Load(cases)
        self._began = 0.0
        self._waiting = 0

    async def closed(self, connections: int, seconds: float) -> Load:
        """Keep so many requests on the way for so long."""
        with self._clock():
            await asyncio.gather(*(self._repeat(seconds) for _ in range(connections)))
        return self.load

    async def open(self, rate: float, seconds: float, *, poisson: bool = False) -> Load:
        """Send so many requests a second for so long, evenly or as independent callers would."""
        with self._clock():
            async with asyncio.TaskGroup() as tasks:
                for at in arrivals(rate, seconds, poisson=poisson):
                    if (early := at - self._now()) > 0:
                        await asyncio.sleep(early)
                    if self._waiting < MOST_WAITING:
                        self._waiting += 1
                        tasks.create_task(self._one(at))
                    else:
                        self._note(next(self._picks), at, at, NOT_SENT)
        return self.load

    async def _repeat(self, seconds: float) -> None:
        while (now := self._now()) < seconds:
            self._waiting += 1
            await self._one(now)

    async def _one(self, intended: float) -> None:
        number = next(self._picks)
        case, sent = self.load.cases[number], self._now()
        try:
            status, body = await self._sender.send(case)
        except FAILURES as error:
            failure = type(error).__name__
        else:
            failure = "" if status == 200 else f"status {status}"
            if not failure and not case.is_right(body):
                failure = "wrong bits"
        self._waiting -= 1
        self._note(number, intended, sent, failure)

    def _note(self, number: int, intended: float, sent: float, failure: str) -> None:
        self.load.samples.append(Sample(number, intended, sent, self._now(), failure))
        self.load.failed += bool(failure)
        self.load.seconds = self._now()
        self._watch(self.load)

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _clock(self) -> _Clock:
        self._began = time.perf_counter()
        return _Clock(self.load, self._now)


class _Clock:
    """Notes how long a run took, and how much of a processor."""

    def __init__(self, load: Load, now: Callable[[], float]) -> None:
        self._load, self._now = load, now

    def __enter__(self) -> None:
        self._used = time.process_time()

    def __exit__(self, *_: object) -> None:
        self._load.seconds = self._now()
        self._load.client_share = (time.process_time() - self._used) / self._load.seconds


def arrivals(rate: float, seconds: float, *, poisson: bool = False) -> Iterator[float]:
    """Yield when requests are to be sent, in seconds."""
    chance, at = random.Random(1), 0.0
    for number in count():
        at = at + chance.expovariate(rate) if poisson else number / rate
        if at >= seconds:
            return
        yield at
