"""Clients that go away at every stage of a call, politely or not; nothing of them stays."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from bulk_client import BulkCall, BulkClient, bulk_call
from proof_support import MIB, descriptors, kept_alive, many, resident, settles, tell, warmed
from service_support import BINARY, GOOD, JSON, batch, binary, connect, head, read_answer

from service_process import Service

TIMES = many("GONE_TIMES", 5)
CEILING = 128 * MIB


@dataclass(frozen=True)
class Stage:
    """How far a client comes.

    Attributes:
        sent: this part of the head if below 0, else of the body; 1 is all of it.
        waits: seconds until it goes.
        read: bytes of the answer that it reads before.
    """

    sent: float
    waits: float = 0.0
    read: int = 0


STAGES = {
    "in the head": Stage(-0.5),
    "after the head": Stage(0.0),
    "after a first byte": Stage(1e-9),
    "in mid body": Stage(0.5),
    "before the last byte": Stage(1 - 1e-9),
    "with the body, at once": Stage(1.0),
    "while it waits or is evaluated": Stage(1.0, waits=0.02),
    "before it reads its answer": Stage(1.0, waits=0.3),
    "at the first byte of its answer": Stage(1.0, read=1),
    "in mid answer": Stage(1.0, read=100_000),
}


def requests() -> dict[str, tuple[bytes, bytes]]:
    """Return head and body of small and bulk calls in both forms."""
    wide = batch(100, 1_000)
    text = {name: array.tolist() for name, array in wide.items()}
    bodies = {
        "small JSON": (GOOD, JSON),
        "bulk JSON": (json.dumps(text).encode(), JSON),
        "small binary": (binary(batch(32, 1_000)), BINARY),
        "bulk binary": (binary(batch(4_000, 1_000)), BINARY),
    }
    return {name: (head(len(body), form), body) for name, (body, form) in bodies.items()}


def go(url: str, opening: bytes, body: bytes, stage: Stage, *, reset: bool) -> None:
    """Be a client until a stage, then close; or reset, so that nothing more is heard or sent."""
    with connect(url) as client:
        if stage.sent < 0:
            client.sendall(opening[: int(len(opening) * -stage.sent)])
        else:
            size = min(len(body), -int(-len(body) * stage.sent // 1))
            size = len(body) - 1 if stage.sent < 1 and size == len(body) else size
            client.sendall(opening + body[:size])
        if stage.read:
            client.recv(stage.read, socket.MSG_WAITALL if len(body) > MIB else 0)
        time.sleep(stage.waits)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_nothing_stays_of_clients_that_are_gone(
    start: Callable[..., Service], service_url: str, transport: str
) -> None:
    flags = (f"--transport={transport}", f"--memory-bytes={CEILING}", "--kept-bytes=0")
    service = start(*flags, "--max-concurrent-calls=1")
    url = warmed(service)
    small, bulk = (bulk_call(service_url, rows) for rows in (32, 4_000))
    nearly_all = bulk_call(service_url, CEILING * 15 // 16 // 4_100)
    assert_right(url, small, bulk, nearly_all)
    before, held = descriptors(service), resident(service)
    gone = Counter[str]()
    for reset in (False, True):
        for kind, (opening, body) in requests().items():
            for stage in STAGES.values():
                for _ in range(TIMES):
                    go(url, opening, body, stage, reset=reset)
                gone[kind] += TIMES
            assert_right(url, small, bulk)
        assert waiting_in_the_queue(url, reset=reset)
    assert settles(lambda: descriptors(service) <= before)
    assert_right(url, small, bulk, nearly_all)
    assert settles(lambda: resident(service) < held + 32 * MIB)
    grown = (resident(service) - held) / MIB
    tell(f"{transport}: {dict(gone)} gone, {len(STAGES)} stages, half of them by a reset;")
    tell(f"  {descriptors(service) - before:+d} descriptors, {grown:+.0f} MiB afterwards")
    assert "Traceback" not in service.log()
    assert service.end() == 0


def assert_right(url: str, *calls: BulkCall) -> None:
    client = BulkClient(url)
    for call in calls:
        assert client.call(call).status == 200
    client.close()


def waiting_in_the_queue(url: str, *, reset: bool) -> bool:
    """Let clients go whose calls wait for the only place; tell whether its holder is answered."""
    body = binary(batch(4_000, 1_000))
    with connect(url) as first, first.makefile("rb") as answers:
        first.sendall(kept_alive(len(body), BINARY) + body)
        for _ in range(4):
            go(url, head(len(body), BINARY), body, STAGES["with the body, at once"], reset=reset)
        return read_answer(answers)[0] == 200
