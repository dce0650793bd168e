"""Memory after many calls is that after some."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bulk_client import BulkClient, bulk_call, small_call
from proof_support import MIB, descriptors, many, resident, tell, warmed
from service_support import BINARY, GOOD, batch, binary

from service_process import Service

SMALL_CALLS = many("SMALL_CALLS", 20_000)
BULK_CALLS = many("BULK_CALLS", 200)

LARGEST_GROWTH = 16 * MIB


@pytest.mark.timeout(SMALL_CALLS // 50 + BULK_CALLS * 5 + 120)
@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_memory_does_not_grow(
    start: Callable[..., Service], service_url: str, transport: str
) -> None:
    service = start(f"--transport={transport}")
    url = warmed(service)
    kinds = {
        "small": ([small_call(service_url, GOOD)], SMALL_CALLS),
        "32 x 1000": (
            [small_call(service_url, binary(batch(32, 1_000)), BINARY)],
            SMALL_CALLS // 4,
        ),
        "bulk": ([bulk_call(service_url, rows) for rows in (3_000, 5_000, 8_000)], BULK_CALLS),
    }
    client = BulkClient(url)
    for kind, (calls, times) in kinds.items():
        held = [resident(service)]
        for turn in range(4):
            for number in range(times // 4):
                assert client.call(calls[number % len(calls)]).status == 200
            held.append(resident(service))
            if turn == 0:
                opened = descriptors(service)
        shown = ", ".join(f"{size / MIB:.1f}" for size in held)
        tell(f"{transport}, {times} {kind} calls: {shown} MiB before, and after each quarter")
        assert held[-1] - held[1] < LARGEST_GROWTH
        assert descriptors(service) <= opened
    client.close()
    assert "Traceback" not in service.log()
    assert service.end() == 0
