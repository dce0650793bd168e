"""A load generator: sends one request over and over on some connections, prints answers a second.

The request comes on standard input, whole. All answers must be 200, with bodies as long as the
first; their heads may differ, as ids and timings in them do.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from contextlib import closing
from functools import partial
from typing import cast

from raw import RawConnection
from servers import HOST


class Repeater(asyncio.Protocol):
    """One connection; has one request on the way at any time."""

    def __init__(self, request: bytes, body_bytes: int) -> None:
        self.answers = 0
        self._request = request
        self._body_bytes = body_bytes
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._head.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"an answer was not 200: {self._head[:80]!r}")
            data, self._head = self._head[end + 4 :], b""
            self._missing = self._body_bytes
        self._missing -= len(data)
        if not self._missing:
            self.answers += 1
            self._transport.write(self._request)


def requests_a_second(port: int, request: bytes, connections: int, seconds: float) -> float:
    """Return how many requests a server answers in a second; measured in a process of its own."""
    numbers = [str(port), str(connections), str(seconds)]
    command = [sys.executable, __file__, *numbers]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


async def measure(port: int, request: bytes, connections: int, seconds: float) -> float:
    """Return answers a second over all connections."""
    loop = asyncio.get_running_loop()
    with closing(RawConnection(port)) as connection:
        connection.post([request])
        body_bytes = connection.body_bytes
    repeaters = [Repeater(request, body_bytes) for _ in range(connections)]
    for repeater in repeaters:
        await loop.create_connection(partial(_same, repeater), HOST, port)
    before, began = sum(made.answers for made in repeaters), loop.time()
    await asyncio.sleep(seconds)
    return (sum(made.answers for made in repeaters) - before) / (loop.time() - began)


def _same(repeater: Repeater) -> Repeater:
    return repeater


def main() -> None:
    """Measure once and print the figure."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    request = sys.stdin.buffer.read()
    print(uvloop.run(measure(given.port, request, given.connections, given.seconds)))


if __name__ == "__main__":
    main()
