"""What an operator plans with: rates, latencies at a rate, and what keys and telemetry cost.

Client and server share the processors of one machine, so figures are of both; the client is bare
sockets, since httpx takes several times what the service takes for a small call.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from load.cases import PATH, Case, make_case
from load.figures import figures
from load.loops import MOST_WAITING, NOT_SENT, Load, Run
from load.processes import usage
from load.senders import RawSender
from raw import request_head
from repeater import offer
from servers import HOST, SERVE, Server, service
from tables import print_table, table

from softxent_service.keys import KeyRing, new_key

CASES = ("1x10:json", "1x10:binary", "32x1000:binary", "256x32000:binary")
SHARES = (0.5, 0.8, 0.95)
CONNECTIONS = 8
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "operations.md"
BEGIN, END = "<!-- sizing -->", "<!-- /sizing -->"
HEADER = ["batch", "load", "requests a second", "p50, ms", "p99, ms", "p99.9, ms", "client"]
GOAL = 0.05


def unseen(_load: Load) -> None:
    """Show nothing."""


async def closed(port: int, case: Case, seconds: float) -> Load:
    """Return what came of as many requests as are answered."""
    sender = RawSender(f"http://{HOST}:{port}", None, CONNECTIONS)
    try:
        return await Run(sender, [case], unseen).closed(CONNECTIONS, seconds)
    finally:
        await sender.close()


async def at_rate(port: int, case: Case, rate: float, seconds: float) -> Load:
    """Return what came of requests at a rate, as of independent callers."""
    sender = RawSender(f"http://{HOST}:{port}", None, 64)
    try:
        return await Run(sender, [case], unseen).open(rate, seconds, poisson=True)
    finally:
        await sender.close()


def sizing(seconds: float) -> list[list[str]]:
    """Return a row for each batch and load: its capacity, then shares of it in an open loop."""
    rows = []
    with service() as server:
        for text in CASES:
            case = make_case(text)
            asyncio.run(closed(server.port, case, seconds / 4))
            load = asyncio.run(closed(server.port, case, seconds))
            rows.append(_row(case, "all it takes", load))
            capacity = figures(load.samples, load.seconds).rate
            for share in SHARES:
                load = asyncio.run(at_rate(server.port, case, share * capacity, seconds))
                rows.append(_row(case, f"{share:.0%}", load))
    return rows


def _row(case: Case, what: str, load: Load) -> list[str]:
    found = figures(load.samples, load.seconds)
    if unsent := found.failures.pop(NOT_SENT, 0):
        what = f"{what}; {unsent:,} of {found.requests:,} not sent, {MOST_WAITING:,} waited"
    if found.failed:
        sys.exit(f"bench: {case.name} at {what}: {found.failures}")
    times = [f"{found.latency[name] * 1e3:.2f}" for name in ("p50", "p99", "p99.9")]
    return [case.name, what, f"{found.rate:,.0f}", *times, f"{load.client_share:.0%}"]


@dataclass(frozen=True)
class Cost:
    """Answers a second, and the seconds of a processor that the service takes for each."""

    rate: float
    used: float


@dataclass(frozen=True)
class Candidate:
    """A way to run the service whose cost is measured, and the key that it wants."""

    flags: Sequence[str] = ()
    key: str | None = None
    command: Sequence[str] = SERVE

    def run(self) -> AbstractContextManager[Server]:
        """Return the service, to be entered; its log is not kept."""
        return service(*self.flags, log=Path(os.devnull), command=self.command)

    def cost(self, server: Server, seconds: float) -> Cost:
        """Return what a small call costs there."""
        case = make_case("1x10:json")
        head = request_head(PATH, case.form, len(case.body))
        if self.key is not None:
            key = f"\r\nauthorization: Bearer {self.key}\r\n\r\n".encode()
            head = head.replace(b"\r\n\r\n", key)
        before = usage(server.pid).processor
        rate = offer(server.port, head + case.body, CONNECTIONS, seconds).a_second
        used = usage(server.pid).processor - before
        return Cost(rate, used / (rate * seconds))


def costs(rounds: int, turns: int, seconds: float) -> list[list[str]]:
    """Return a row for each thing that may be switched on: medians, and medians of ratios.

    Each round has processes of its own, since two that run the same code differ by up to a tenth;
    all of them stand ready and are called in turns, since the machine changes.
    """
    text, kept = new_key("bench", ["evaluate"])
    quiet = "--log-level=warning"
    untold = (str(Path(__file__).with_name("untold.py")), "serve")
    found: dict[str, list[Cost]] = {}
    with sink() as collector:
        traced = (quiet, f"--otlp-endpoint={collector}")
        candidates = {
            "nothing of it": Candidate((quiet,), command=untold),
            "metrics, Server-Timing, X-Request-ID": Candidate((quiet,)),
            "the same, and a line a request": Candidate(),
            "the same, and keys": Candidate((f"--keys={kept.line()}",), key=text),
            "metrics and traces of 10 %": Candidate(traced),
            "metrics and traces of all": Candidate((*traced, "--trace-share=1")),
        }
        for _ in range(rounds):
            with ExitStack() as stack:
                running = {name: stack.enter_context(one.run()) for name, one in candidates.items()}
                names = list(candidates)
                for turn in range(turns + 1):
                    for name in names:
                        cost = candidates[name].cost(running[name], seconds)
                        # The first calls of a process are slower.
                        if turn:
                            found.setdefault(name, []).append(cost)
                    names = [*names[1:], names[0]]
    first = found["nothing of it"]
    return [
        [
            name,
            f"{statistics.median(cost.rate for cost in each):,.0f}",
            f"{_median_ratio([(a.rate, b.rate) for a, b in zip(each, first, strict=True)]):+.1%}",
            f"{statistics.median(cost.used for cost in each) * 1e6:.0f}",
            f"{_median_ratio([(a.used, b.used) for a, b in zip(each, first, strict=True)]):+.1%}",
        ]
        for name, each in found.items()
    ]


def _median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(a / b for a, b in pairs) - 1


@contextmanager
def sink() -> Iterator[str]:
    """Take traces and forget them; yield where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def comparisons(rounds: int) -> list[list[str]]:
    """Return how long a wrong key takes, by how much of its digest is right."""
    _, kept = new_key("bench", ["evaluate"])
    right = kept.digest
    digests = {
        "the first byte differs": bytes([right[0] ^ 1]) + right[1:],
        "the last byte differs": right[:-1] + bytes([right[-1] ^ 1]),
        "none does": right,
    }
    times: dict[str, list[float]] = {name: [] for name in digests}
    for _ in range(rounds):
        for name, digest in digests.items():
            began = time.perf_counter()
            for _ in range(1000):
                hmac.compare_digest(right, digest)
            times[name].append((time.perf_counter() - began) / 1000)
    return [[name, f"{statistics.median(each) * 1e9:.1f}"] for name, each in times.items()]


def lookups(rounds: int) -> list[list[str]]:
    """Return how long a key takes to be looked up among so many, at first and from then on."""
    rows = []
    for count in (1, 10, 100):
        made = [new_key(f"key{number}", ["evaluate"]) for number in range(count)]
        lines, text = "\n".join(kept.line() for _, kept in made), made[0][0].encode()
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            ring = KeyRing(lines)
            for each in times:
                began = time.perf_counter()
                ring.find(text)
                each.append(time.perf_counter() - began)
        rows.append([str(count), *(f"{statistics.median(each) * 1e6:.2f}" for each in times)])
    return rows


def write(rows: Sequence[Sequence[str]]) -> None:
    """Put the table of sizes into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    told = f"Client and service on {os.cpu_count()} shared cores, {CONNECTIONS} connections."
    whole = f"{before}{BEGIN}\n\n{told}\n\n{table(HEADER, rows)}\n\n{END}{after}"
    DOCUMENT.write_text(whole, encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or so, for a first look")
    parser.add_argument("--write", action="store_true", help="put sizes into docs/operations.md")
    given = parser.parse_args()
    rounds, turns = (1, 2) if given.quick else (3, 6)
    print(f"{os.cpu_count()} processor cores, shared by client and server")
    print_table("A wrong digest, compared", ["", "ns"], comparisons(101 if given.quick else 1001))
    print_table("A key, looked up", ["keys", "us, at first", "us, later"], lookups(1001))
    cost = costs(rounds, turns, 1.0)
    print_table(
        f"1 x 10 JSON, {CONNECTIONS} connections, medians of {rounds} x {turns} turns; "
        f"the goal is {GOAL:.0%}",
        ["switched on", "requests a second", "change", "processor, us a request", "change"],
        cost,
    )
    rows = sizing(1.0 if given.quick else 10.0)
    print_table("Latency counts from when a request was to be sent", HEADER, rows)
    if given.write:
        write(rows)


if __name__ == "__main__":
    main()
