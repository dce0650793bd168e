"""Any bytes on a connection: what comes back is HTTP, or the connection is closed."""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof_support import kept_alive, many, resident, settles, tell, warmed
from service_support import BINARY, GOOD, JSON, assert_alive, batch, binary, connect

from service_process import Service

EXAMPLES = many("STREAMS", 2_000)
QUIET_SECONDS = 0.02
"""Silence after which no further answer is waited for."""

SMALL, BULK = binary(batch()), binary(batch(80, 1_000))
CHUNKS = b"7\r\n%s\r\n%x\r\n%s\r\n0\r\nx: y\r\n\r\n" % (GOOD[:7], len(GOOD) - 7, GOOD[7:])
JSON_CALL = kept_alive(len(GOOD), JSON) + GOOD
VALID = [
    JSON_CALL,
    kept_alive(len(SMALL), BINARY) + SMALL,
    kept_alive(len(BULK), BINARY) + BULK,
    kept_alive(0, JSON).replace(b"content-length: 0", b"transfer-encoding: chunked") + CHUNKS,
    JSON_CALL.replace(b"host: test", b"host: test\r\nexpect: 100-continue"),
    JSON_CALL.replace(b"host: test", b"host: test\r\nupgrade: h2c"),
    b"GET /v1/info HTTP/1.1\r\nhost: test\r\n\r\n",
    b"GET http://test/v2/health/ready HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
]

WORDS = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b":", b" ", b"%", b"content-length: 5\r\n", b"\xff"]
WORDS += [
    b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n",
    b"HTTP/9.9",
    b"-1",
    b"9" * 30,
]

EDITS = st.tuples(
    st.sampled_from(["flip", "insert", "drop"]),
    st.integers(0, 400),
    st.sampled_from(WORDS) | st.binary(min_size=1, max_size=4),
)


def edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Return `data` with some places of it changed, most of them in its first head."""
    for kind, at, word in edits:
        at %= len(data) + 1
        kept = at if kind == "insert" else at + len(word)
        data = data[:at] + (b"" if kind == "drop" else word) + data[kept:]
    return data


STREAMS = st.tuples(
    st.lists(st.tuples(st.sampled_from(VALID), st.lists(EDITS, max_size=3)), max_size=4),
    st.lists(st.integers(0, 1 << 20), max_size=3),
    st.none() | st.integers(0, 1_000),
)


def talk(url: str, data: bytes, cuts: list[int]) -> bytes:
    """Send `data` in pieces, close the sending side when it is quiet; return all that comes."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    text = b""
    # A connection that stays open is a time-out, which is not suppressed.
    with connect(url) as client, contextlib.suppress(ConnectionError):
        for start, end in itertools.pairwise(edges):
            client.sendall(data[start:end])
            text += heard(client, 0.001)
        text += heard(client, QUIET_SECONDS)
        half_close(client)
        while piece := client.recv(1 << 20):
            text += piece
    return text


def half_close(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Where the service has reset the connection, it is closed already.
        client.shutdown(socket.SHUT_WR)


def heard(client: socket.socket, seconds: float) -> bytes:
    text = b""
    while select.select([client], [], [], seconds)[0] and (piece := client.recv(1 << 20)):
        text += piece
    return text


def statuses(text: bytes) -> Iterator[int]:
    """Return the status of each answer in a stream; every byte must belong to one."""
    while text:
        head, blank, rest = text.partition(b"\r\n\r\n")
        assert blank, f"a head that does not end: {head[:200]!r}"
        first, *lines = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [ -~]*", first)
        assert found, first
        assert all(re.fullmatch(rb"[!-9;-~]+: [\t -~]*", line) for line in lines), lines
        status = int(found[1])
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        size = 0 if status < 200 else int(fields[b"content-length"])
        assert len(rest) >= size, f"{len(rest)} of {size} bytes of an answer of status {status}"
        text = rest[size:]
        yield status


@pytest.mark.timeout(EXAMPLES + 300)
@pytest.mark.parametrize("transport", ["bulk", "plain"])
def test_any_stream_is_answered_in_http(start: Any, transport: str) -> None:
    service: Service = start(f"--transport={transport}", "--keep-alive-seconds=5")
    url = warmed(service)
    seen, streams = Counter[int](), 0
    held = resident(service)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STREAMS)
    def one(stream: tuple[list[tuple[bytes, list[Any]]], list[int], int | None]) -> None:
        nonlocal streams
        requests, cuts, ends = stream
        data = b"".join(edited(request, edits) for request, edits in requests)
        answered = list(statuses(talk(url, data[:ends], cuts)))
        assert 500 not in answered
        seen.update(answered)
        streams += 1

    began = time.monotonic()
    one()
    tell(f"{transport}: {streams} streams in {time.monotonic() - began:.0f} s,")
    tell(f"  answers by status {dict(sorted(seen.items()))}")
    assert_alive(url)
    assert settles(lambda: resident(service) < held + (64 << 20))
    assert "Traceback" not in service.log()
    assert service.end() == 0
