"""A stop in the midst of calls: each that was under way is answered."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from bulk_client import BulkCall, BulkClient, bulk_call, small_call
from proof_support import many, tell, warmed
from service_support import BINARY, GOOD, batch, binary

from service_process import Service

ROUNDS = many("STOPS", 8)
CLIENTS = many("STOP_CLIENTS", 8)


@pytest.fixture(scope="module")
def calls(service_url: str) -> list[BulkCall]:
    """Calls from a few bytes to 30 MB."""
    return [
        small_call(service_url, GOOD),
        small_call(service_url, binary(batch(32, 1_000)), BINARY),
        bulk_call(service_url, 500),
        bulk_call(service_url, 8_000),
    ]


def call_until_refused(url: str, calls: list[BulkCall], seed: int) -> Counter[str]:
    """Make calls on one connection until a new one is not taken; return what became of each."""
    choose = random.Random(seed)
    client, ends = BulkClient(url), Counter[str]()
    while True:
        try:
            client.connect()
        except ConnectionRefusedError:
            return ends
        call = choose.choice(calls)
        try:
            outcome = client.call(call)
        except (ConnectionError, AssertionError) as error:
            ends[f"failed: {type(error).__name__} {str(error)[:60]}"] += 1
        else:
            ends[f"{outcome.status} {outcome.refusal}".strip()] += 1


@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_a_stop_fails_no_call(
    start: Callable[..., Service], calls: list[BulkCall], transport: str
) -> None:
    ends, waits = Counter[str](), []
    for turn in range(ROUNDS):
        service = start(f"--transport={transport}")
        url = warmed(service)
        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [
                clients.submit(call_until_refused, url, calls, turn * CLIENTS + which)
                for which in range(CLIENTS)
            ]
            threading.Event().wait(1 + random.Random(turn).random())
            began = time.monotonic()
            assert service.end(signal.SIGTERM) == 0
            waits.append(time.monotonic() - began)
            for client in running:
                ends += client.result()
        assert "Traceback" not in service.log()
    tell(
        f"{transport}: {ROUNDS} stops under {CLIENTS} clients, the longest took {max(waits):.1f} s"
    )
    tell(f"calls ended with {dict(ends)}")
    assert set(ends) == {"200"}
