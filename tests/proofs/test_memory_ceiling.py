"""Ten times as many bytes are offered as the service may hold."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bulk_client import BulkCall, BulkClient, Outcome, bulk_call
from proof_support import MIB, forget_peak, many, resident, settles, tell, warmed

from service_process import Service

CEILING = many("CEILING_MIB", 256) * MIB
TIMES = many("TIMES_OFFERED", 10)
SECONDS = many("CEILING_SECONDS", 30)

KEPT = CEILING // 4

SLACK = 64 * MIB
"""What is held beside bodies, batches and answers: 64 KiB to 256 KiB that each connection has read
before it is known whether there is memory for it, a piece of 1 MiB of each of eight answers on its
way, the stacks of eight threads, and what the allocator keeps for itself."""

ROWS = (31_000, 16_000, 8_000, 4_000, 2_000, 1_000)
"""Bodies of 124 MB down to 4 MB."""


def offered(calls: list[BulkCall]) -> list[BulkCall]:
    """Return one call a client: as many as want TIMES the ceiling at once, large and small."""
    chosen: list[BulkCall] = []
    while sum(len(call.request) for call in chosen) < TIMES * CEILING:
        chosen.append(calls[len(chosen) % len(calls)])
    return chosen


def keep_calling(url: str, call: BulkCall, stop: threading.Event) -> list[Outcome]:
    client, outcomes = BulkClient(url), list[Outcome]()
    while not stop.is_set():
        outcomes.append(outcome := client.call(call))
        if outcome.status != 200:
            stop.wait(float(outcome.headers["retry-after"]))
    client.close()
    return outcomes


def share(outcomes: list[Outcome], whole: int) -> str:
    sent = sum(outcome.sent for outcome in outcomes)
    return f"{len(outcomes)} calls, {sent / 1e9:.1f} GB, {sent / max(1, whole):.0%} of all bytes"


@pytest.mark.timeout(SECONDS + 300)
def test_memory_stays_under_its_ceiling(start: Callable[..., Service], service_url: str) -> None:
    service = start(f"--memory-bytes={CEILING}", f"--kept-bytes={KEPT}")
    url = warmed(service)
    calls = offered([bulk_call(service_url, rows) for rows in ROWS])
    idle = resident(service)
    forget_peak(service)
    stop = threading.Event()
    began = time.monotonic()
    with ThreadPoolExecutor(len(calls)) as clients:
        running = [clients.submit(keep_calling, url, call, stop) for call in calls]
        stop.wait(SECONDS)
        stop.set()
        outcomes = [outcome for client in running for outcome in client.result()]
    seconds = time.monotonic() - began
    peak = resident(service, "VmHWM") - idle
    answered = [outcome for outcome in outcomes if outcome.status == 200]
    refused = [outcome for outcome in outcomes if outcome.status == 429]
    sent = sum(outcome.sent for outcome in outcomes)
    waits = np.quantile([outcome.seconds for outcome in answered], (0.5, 0.99, 1))
    tell(f"{len(calls)} clients want {sum(len(c.request) for c in calls) / 1e9:.1f} GB at once,")
    tell(f"  ceiling {CEILING / MIB:.0f} MiB, {seconds:.0f} s")
    tell(f"answered: {share(answered, sent)}")
    tell(f"  {sum(outcome.sent for outcome in answered) / seconds / 1e6:.0f} MB/s")
    tell(f"  in {waits[0]:.2f} s (median), {waits[1]:.2f} s (99 %), {waits[2]:.2f} s (longest)")
    tell(f"refused: {share(refused, sent)}")
    for reason, times in Counter(outcome.refusal for outcome in refused).items():
        tell(f"  {times} times: {reason}")
    tell(f"most memory beside idle: {peak / MIB:.0f} MiB")
    assert len(answered) + len(refused) == len(outcomes)
    assert answered
    assert peak < CEILING + SLACK
    # Everything that was reserved is free again, and all but what is kept is the system's.
    assert settles(lambda: resident(service) - idle < KEPT + SLACK)
    tell(f"memory beside idle afterwards: {(resident(service) - idle) / MIB:.0f} MiB")
    nearly_all = bulk_call(service_url, min(CEILING * 24 // 25, 250 * MIB) // 4_100)
    client = BulkClient(url)
    assert client.call(nearly_all).status == 200
    client.close()
    assert "Traceback" not in service.log()
    assert service.end() == 0
