"""How much memory a large call takes, each in a server that has just been started.

A server is idle once it has answered one row; its peak is what it reaches until it has answered
the large batch.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

import http_bulk
import http_forms as forms
import process_memory
from http_bulk import check
from http_candidates import OURS, PEERS, is_answering
from http_forms import Form
from http_goals import Goals
from raw import HEAD_BYTES, RawConnection
from servers import Server, is_installed, peer, service
from tables import print_table
from timing import progress

from softxent_client.wire import JSON

BINARY_GOAL = 1.15
"""Growth of ours over the size of the body, for a large binary batch."""
JSON_TIME_GOAL, JSON_MEMORY_GOAL = 4.0, 0.5
"""How many times as long as ours FastAPI with pydantic takes; our peak over its peak."""

JSON_FLAGS = ("--json-bytes", str(1 << 30), "--memory-bytes", str(8 << 30))
JSON_BYTES_A_NUMBER = 26
"""Room for an answer's number as the longest text of a double, a comma and a space."""


@dataclass(frozen=True)
class Taken:
    """What a large call took: seconds, and bytes of memory before and at most."""

    body: int
    seconds: float
    idle: int
    peak: int

    @property
    def growth(self) -> int:
        """Return the bytes by which the server grew."""
        return self.peak - self.idle

    def cells(self, name: str) -> list[str]:
        """Return a row of a table."""
        sizes = [self.body, self.idle, self.peak, self.growth]
        megabytes = [f"{size / 1e6:,.0f}" for size in sizes]
        return [name, *megabytes, f"{self.growth / self.body:.2f}x", f"{self.seconds * 1e3:,.0f}"]


HEADER = ["server", "body, MB", "idle, MB", "peak, MB", "growth, MB", "over body", "call, ms"]


def taken(
    starting: AbstractContextManager[Server], form: Form, shape: tuple[int, int], calls: int
) -> Taken:
    """Return what calls take of a server that is started for them: their median time."""
    tensors = forms.batch(*shape)
    request = form.request(tensors)
    a_number = JSON_BYTES_A_NUMBER if form.media_type == JSON else 4
    room = a_number * shape[0] * (shape[1] + 1) + HEAD_BYTES
    buffer, times = memoryview(bytearray(room)), []
    with starting as server, closing(RawConnection(server.port, buffer)) as connection:
        connection.post(form.request(forms.batch(1, 10)))
        idle = process_memory.now(server.pid)
        process_memory.forget_peak(server.pid)
        for _ in range(calls):
            began = time.perf_counter()
            answer = connection.post(request)
            times.append(time.perf_counter() - began)
        peak = process_memory.peak(server.pid)
        check(form.path, form.decode(answer, shape), tensors)
    size = sum(map(len, request[1:]))
    return Taken(size, statistics.median(times), idle, peak)


def binary(goals: Goals) -> None:
    """Print what one large binary batch takes of ours."""
    shape = http_bulk.LARGE
    progress("memory of a large binary batch")
    ours = taken(service(), forms.OURS, shape, 1)
    title = f"{shape[0]:,} x {shape[1]:,} float32 binary, memory of one call"
    print_table(title, HEADER, [ours.cells(OURS)])
    goals.at_most(f"{title}: growth over its body", ours.growth / ours.body, BINARY_GOAL)


def json(shape: tuple[int, int], calls: int, goals: Goals) -> None:
    """Print what a large JSON batch takes of ours and of FastAPI with pydantic."""
    progress(f"{shape[0]:,} x {shape[1]:,} in JSON")
    found = {OURS: taken(service(*JSON_FLAGS), forms.OURS_JSON, shape, calls)}
    title = f"{shape[0]:,} x {shape[1]:,} JSON"
    if is_installed("fastapi"):
        other = f"{PEERS['fastapi'].title}, pydantic"
        starting = peer("fastapi", is_answering(PEERS["fastapi"].json))
        found[other] = taken(starting, PEERS["fastapi"].json, shape, calls)
        ours, theirs = found[OURS], found[other]
        goals.at_least(
            f"{title}: {other}, over {OURS}", theirs.seconds / ours.seconds, JSON_TIME_GOAL
        )
        goals.at_most(f"{title}: our peak over its", ours.peak / theirs.peak, JSON_MEMORY_GOAL)
    rows = [took.cells(name) for name, took in found.items()]
    print_table(f"{title}, a server of its own, median of {calls} calls", HEADER, rows)
