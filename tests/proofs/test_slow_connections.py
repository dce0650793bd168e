"""A thousand connections announce 200 MB each and hardly send; others are served as ever."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from bulk_client import BulkClient, Outcome, bulk_call, small_call
from proof_support import MIB, descriptors, many, resident, settles, tell, warmed
from service_support import BINARY, GOOD, batch, binary, connect, head

from service_process import Service

SLOW = many("SLOW_CONNECTIONS", 1_000)
SECONDS = many("SLOW_SECONDS", 30)
ANNOUNCED = 200_000_000

PATIENCE = SECONDS // 3
"""Seconds of silence, and of being behind the least rate, that the service grants."""

READ_AHEAD = 256 << 10
"""Bytes of each connection that may have been read and not been counted yet."""


@contextlib.contextmanager
def slow_connections(url: str) -> Iterator[list[socket.socket]]:
    """Yield connections that have sent a head and from one byte to 300 KB of a body."""
    amounts = random.Random(1)
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(connect(url)) for _ in range(SLOW)]
        for connection in connections:
            sent = amounts.choice((1, 1_000, 70_000, 300_000))
            connection.sendall(head(ANNOUNCED, BINARY) + bytes(sent))
        yield connections


def trickle(connections: list[socket.socket], stop: threading.Event) -> Counter[str]:
    """Send a byte on every other one, again and again; return how each of them ended."""
    while not stop.wait(1):
        for connection in connections[::2]:
            with contextlib.suppress(OSError):
                connection.send(b"0")
    return Counter(ending(connection) for connection in connections)


def ending(connection: socket.socket) -> str:
    """Return the status that a connection was answered with."""
    connection.settimeout(60)
    try:
        return connection.recv(4096)[9:12].decode() or "closed without an answer"
    except OSError as error:
        return type(error).__name__


def traffic(url: str, service_url: str, stop: threading.Event) -> dict[str, Future[list[Outcome]]]:
    """Start normal clients of four kinds."""
    calls = {
        "small JSON": (small_call(service_url, GOOD), 0.0),
        "32 x 1000 binary": (small_call(service_url, binary(batch(32, 1_000)), BINARY), 0.0),
        "20 MB": (bulk_call(service_url, 5_000), 0.5),
        "100 MB": (bulk_call(service_url, 25_000), 2.0),
    }
    pool = ThreadPoolExecutor(len(calls))

    def keep_calling(kind: str) -> list[Outcome]:
        call, pause = calls[kind]
        client, outcomes = BulkClient(url), list[Outcome]()
        while not stop.is_set():
            outcomes.append(client.call(call))
            stop.wait(pause)
        client.close()
        return outcomes

    return {kind: pool.submit(keep_calling, kind) for kind in calls}


@pytest.mark.timeout(SECONDS + 300)
def test_slow_connections_harm_nobody_else(start: Callable[..., Service], service_url: str) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert most > 2 * SLOW, f"ulimit -n is {most}: a descriptor is needed at either end of each"
    service = start(f"--body-idle-seconds={PATIENCE}", f"--memory-bytes={512 * MIB}")
    url = warmed(service)
    # By then the connections of the calls that it was warmed with are closed, and not counted.
    time.sleep(1)
    idle, before = resident(service), descriptors(service)
    stop = threading.Event()
    with slow_connections(url) as connections, ThreadPoolExecutor(1) as trickler:
        assert settles(lambda: descriptors(service) - before >= SLOW)
        opened = descriptors(service) - before
        asleep = resident(service) - idle
        endings = trickler.submit(trickle, connections, stop)
        normal = traffic(url, service_url, stop)
        time.sleep(SECONDS)
        stop.set()
        outcomes = {kind: future.result() for kind, future in normal.items()}
        ended = endings.result()
    tell(f"{SLOW} slow connections, {opened} descriptors and {asleep / MIB:.0f} MiB for them")
    for kind, seen in outcomes.items():
        times = np.quantile([outcome.seconds for outcome in seen], (0.5, 1)) * 1e3
        tell(
            f"{kind}: {len(seen)} calls in {times[0]:.1f} ms (median), {times[1]:.0f} ms (longest)"
        )
        assert {outcome.status for outcome in seen} == {200}
    tell(f"slow connections ended with {dict(ended)}")
    assert asleep < SLOW * READ_AHEAD + 64 * MIB
    assert set(ended) == {"408"}
    assert settles(lambda: descriptors(service) <= before)
    assert "Traceback" not in service.log()
    assert service.end() == 0
