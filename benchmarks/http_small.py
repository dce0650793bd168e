"""Small calls: how many a second a server answers, by one load generator for all of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import http_forms as forms
from http_bulk import check, threaded
from http_candidates import OURS, Servers
from http_goals import Goals
from raw import RawConnection
from repeater import Load, offer
from servers import HOST
from tables import print_table
from timing import progress

ANSWER_BYTES = 4 << 20
DICT, READY = "def, dict out", "async def, Response made beforehand"

Kind = Literal["binary", "JSON"]


@dataclass(frozen=True)
class Case:
    """One batch, in one form, on some connections, and how much faster than peers it should be."""

    shape: tuple[int, int]
    kind: Kind
    connections: int
    goal: float | None = None
    moonshot: float | None = None

    @property
    def title(self) -> str:
        """Return what tables call it."""
        rows, classes = self.shape
        clients = f"{self.connections} client{'s' * (self.connections > 1)}"
        return f"{rows:,} x {classes:,} {self.kind}, {clients}"


CASES = (
    Case((32, 1_000), "binary", 8, goal=2, moonshot=3),
    Case((1, 10), "binary", 8, goal=1.5),
    Case((1, 10), "JSON", 8, goal=1.5),
    Case((1, 10), "binary", 1),
    Case((1, 10), "JSON", 1),
)

DICT_GOAL, READY_GOAL = 0.8, 0.4
"""What ours is to reach of what the bare FastAPI routes answer to the same JSON."""

Requests = dict[str, tuple[int, bytes]]


def table(servers: Servers, case: Case, rounds: int, seconds: float, goals: Goals) -> None:
    """Measure every server in one case, print the table, and hold the figures against goals."""
    bare = _bare(servers, case)
    peers = _peers(servers, case)
    requests = {OURS: _ours(servers, case), **bare, **peers}
    progress(f"{case.title}: {len(requests)} servers, {rounds} rounds of {seconds} s")
    found = loads(requests, case.connections, rounds, seconds)
    _print(servers, case, found, f"medians of {rounds} rounds of {seconds} s")
    _judge(case, {name: load.a_second for name, load in found.items()}, list(peers), goals)


def _ours(servers: Servers, case: Case) -> tuple[int, bytes]:
    form = forms.OURS if case.kind == "binary" else forms.OURS_JSON
    return checked(OURS, servers.port(OURS), form, case.shape, 1)


def _bare(servers: Servers, case: Case) -> Requests:
    if case.kind == "binary" or case.shape != (1, 10):
        return {}
    request = b"".join(forms.OURS_JSON.request(forms.batch(*case.shape), path="/"))
    routes = {DICT: "dict-route", READY: "ready-route"}
    return {title: (servers.port(name), request) for title, name in routes.items()}


def _peers(servers: Servers, case: Case) -> Requests:
    """Return each peer's request; torch takes one thread for ten numbers whatever it is told."""
    threads = (1,) if case.shape == (1, 10) else (1, 2)
    return {
        threaded(peer.title, number): checked(
            peer.title,
            servers.port(name),
            peer.binary if case.kind == "binary" else peer.json,
            case.shape,
            number,
        )
        for name, peer in servers.peers().items()
        for number in threads
    }


def checked(
    name: str, port: int, form: forms.Form, shape: tuple[int, int], threads: int
) -> tuple[int, bytes]:
    """Return a port and a request, once the answer is seen to be right."""
    tensors = forms.batch(*shape)
    request = form.request(tensors, threads)
    with closing(RawConnection(port, memoryview(bytearray(ANSWER_BYTES)))) as connection:
        check(f"{name} on {HOST}:{port}", form.decode(connection.post(request), shape), tensors)
    return port, b"".join(request)


def loads(requests: Requests, connections: int, rounds: int, seconds: float) -> dict[str, Load]:
    """Return medians over the rounds, in each of which every server is asked."""
    found: dict[str, list[Load]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, (port, request) in requests.items():
            found[name].append(offer(port, request, connections, seconds))
    return {name: _middle(loads) for name, loads in found.items()}


def _middle(loads: list[Load]) -> Load:
    columns = zip(*((load.a_second, load.median, load.p99) for load in loads), strict=True)
    return Load(*map(statistics.median, columns))


def _print(servers: Servers, case: Case, loads: Mapping[str, Load], how: str) -> None:
    ours = loads[OURS].a_second
    print_table(
        f"{case.title}, {how}",
        ["server", "answers a second", f"{OURS} over it", "median, ms", "p99, ms"],
        [
            [
                name,
                f"{load.a_second:,.0f}",
                f"{ours / load.a_second:.2f}x",
                f"{load.median * 1e3:.2f}",
                f"{load.p99 * 1e3:.2f}",
            ]
            for name, load in loads.items()
        ]
        + servers.missing_rows(5),
    )


def _judge(case: Case, rates: Mapping[str, float], peers: list[str], goals: Goals) -> None:
    ours = rates[OURS]
    if case.goal is not None and peers:
        best = max(peers, key=lambda name: rates[name])
        what = f"{case.title}: {OURS}, over {best}"
        goals.at_least(what, ours / rates[best], case.goal, case.moonshot)
    for name, goal in ((DICT, DICT_GOAL), (READY, READY_GOAL)):
        if name in rates:
            goals.at_least(f"{case.title}: {OURS}, over {name}", ours / rates[name], goal)
