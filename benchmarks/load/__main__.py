"""Put load on a service, check every answer, write a report; status 1 where objectives are missed.

Closed loop: `python -m load URL --connections 8`. Open loop: `python -m load URL --rate 200`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
from pathlib import Path

import httpx

from load.cases import MIXED, make_cases
from load.figures import figures, read_objective
from load.live import shown
from load.loops import Load, Run
from load.report import limits_of_the_client, page, verdicts, write
from load.senders import CLIENTS, trusted


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    made.add_argument("url", help="the service, such as http://127.0.0.1:8000")
    made.add_argument("--key", default=os.environ.get("SOFTXENT_KEY"), help="or SOFTXENT_KEY")
    made.add_argument("--ca", type=Path, help="PEM file with whom an https service is believed")
    made.add_argument("--mix", type=make_cases, default=MIXED, help="default: %(default)s")
    made.add_argument("--seconds", type=float, default=10.0, help="default: %(default)s")
    made.add_argument("--rate", type=float, help="requests a second: an open loop")
    made.add_argument("--poisson", action="store_true", help="an open loop of independent callers")
    made.add_argument("--connections", type=int, default=8, help="default: %(default)s")
    made.add_argument("--client", choices=CLIENTS, default="httpx", help="default: %(default)s")
    made.add_argument("--report", type=Path, help="an HTML file to write")
    made.add_argument(
        "--objective",
        dest="objectives",
        type=read_objective,
        action="append",
        default=[],
        help="such as p99<=50ms, errors<=0.1%%, rate>=100; again for more",
    )
    return made


async def measure(given: argparse.Namespace, trust: ssl.SSLContext) -> Load:
    """Put the load on."""
    sender = CLIENTS[given.client](given.url, given.key, given.connections, trust)
    try:
        with shown(given.seconds) as watch:
            run = Run(sender, given.mix, watch)
            if given.rate is None:
                return await run.closed(given.connections, given.seconds)
            return await run.open(given.rate, given.seconds, poisson=given.poisson)
    finally:
        await sender.close()


def read_authorities(file: Path | None) -> ssl.SSLContext:
    """Return whom an https service is believed; end where the file does not tell."""
    try:
        return trusted(file)
    except OSError as error:
        sys.exit(f"load: {file}: {error}")


def check_reachable(url: str, trust: ssl.SSLContext) -> None:
    """End where nobody is ready at the URL."""
    try:
        httpx.get(f"{url}/v2/health/ready", timeout=10, verify=trust).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"load: {url} is not ready: {error}")


def main() -> None:
    """Measure, print, write, judge."""
    given = parser().parse_args()
    trust = read_authorities(given.ca)
    check_reachable(given.url, trust)
    load = asyncio.run(measure(given, trust))
    found = figures(load.samples, load.seconds)
    told = ", ".join(f"{name} {value * 1e3:.2f} ms" for name, value in found.latency.items())
    print(f"{found.requests} requests, {found.rate:.1f} right answers/s, {told}")
    print(f"failed: {found.failures or 'none'}")
    print(limits_of_the_client(load, found))
    judged = verdicts(given.objectives, found)
    for verdict in judged:
        print(f"{'holds ' if verdict.holds else 'MISSED'} {verdict.asked} ({verdict.found})")
    if given.report:
        way = "closed" if given.rate is None else f"open loop, {given.rate:g}/s"
        write(given.report, page(f"Load on softxent: {way}", load, judged))
    sys.exit(0 if all(verdict.holds for verdict in judged) else 1)


if __name__ == "__main__":
    main()
