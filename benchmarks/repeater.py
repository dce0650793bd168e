"""A load generator: sends one request over and over on some connections for some seconds.

The request comes on standard input, whole. All answers must be 200. Printed are answers a second,
the median of the seconds that an answer takes, and their 99th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
from raw import RawConnection, answer_bytes
from servers import HOST

LONGEST = 60.0
"""Seconds to wait for an answer where none came in time."""


@dataclass(frozen=True)
class Load:
    """What a server did: answers a second, and the seconds that one takes."""

    a_second: float
    median: float
    p99: float


class Repeater(asyncio.Protocol):
    """One connection at a time; has one request on the way at any time.

    Where a server closes the connection, as some do after so many requests, it takes another.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.seconds: list[float] = []
        self._port = port
        self._request = request
        self._stopped = False
        self._head = b""
        self._missing: int | None = None
        self._began = 0.0

    async def connect(self) -> None:
        """Connect and send the first request."""
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, self._port)

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._stopped:
            self._again = asyncio.ensure_future(self.connect())

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            data = self._head + data
            self._head = data
            self._missing = _answer_bytes(data)
        if self._missing is None:
            return
        self._missing -= len(data)
        if self._missing == 0:
            self.seconds.append(time.perf_counter() - self._began)
            self._send()

    def _send(self) -> None:
        self._head, self._missing = b"", None
        self._began = time.perf_counter()
        self._transport.write(self._request)


def _answer_bytes(head: bytes) -> int | None:
    try:
        return answer_bytes(head)
    except RuntimeError as error:
        # The loop takes any other error for the connection's own and goes on.
        sys.exit(str(error))


def offer(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Offer a server one request on some connections; measured in a process of its own."""
    numbers = [str(port), str(connections), str(seconds)]
    command = [sys.executable, __file__, *numbers]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True)
    return Load(*map(float, done.stdout.split()))


async def measure(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Return answers a second over all connections, and how long they take."""
    loop = asyncio.get_running_loop()
    with closing(RawConnection(port, memoryview(bytearray(1 << 20)))) as connection:
        connection.post([request])
    repeaters = [Repeater(port, request) for _ in range(connections)]
    began = loop.time()
    for repeater in repeaters:
        await repeater.connect()
    await asyncio.sleep(seconds)
    while not any(made.seconds for made in repeaters) and loop.time() - began < LONGEST:
        await asyncio.sleep(seconds)
    over = loop.time() - began
    for repeater in repeaters:
        repeater.stop()
    taken = np.concatenate([made.seconds for made in repeaters])
    if not len(taken):
        sys.exit(f"no answer within {LONGEST} s")
    return Load(len(taken) / over, *np.percentile(taken, [50, 99]))


def main() -> None:
    """Measure once and print the figures."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    request = sys.stdin.buffer.read()
    load = uvloop.run(measure(given.port, request, given.connections, given.seconds))
    print(load.a_second, load.median, load.p99)


if __name__ == "__main__":
    main()
