"""Connections that end on one side: answers that are still due, and answers that are cut."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from service_support import BINARY, GOOD, JSON, PATH, batch, binary, connect, head, post

from service_process import Service

LARGE = batch(600, 2_000)
BODIES = {
    "small": (JSON, GOOD),
    "binary": (BINARY, binary(LARGE)),
    "JSON": (JSON, json.dumps({name: array.tolist() for name, array in LARGE.items()}).encode()),
}
"""The last two are evaluated in a thread, and take longer than a client needs to end its side."""


@pytest.fixture(scope="module", params=["bulk", "plain"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    service = Service(f"--transport={request.param}", "--log-format=json")
    try:
        service.ready_url()
        yield service
        assert service.end() == 0
        assert "Traceback" not in service.log()
    finally:
        service.clear()


def answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Return head and body of the only answer of a connection, without interim ones."""
    text = b""
    while piece := client.recv(1 << 20):
        text += piece
    while text.startswith(b"HTTP/1.1 100 "):
        text = text.partition(b"\r\n\r\n")[2]
    start, _, body = text.partition(b"\r\n\r\n")
    return start, body


@pytest.mark.parametrize("case", BODIES)
def test_an_answer_comes_after_the_client_has_ended_its_side(service: Service, case: str) -> None:
    form, body = BODIES[case]
    wanted = post(service.url(), body, form).content
    for keeps in (False, True):
        with connect(service.url()) as client:
            start = head(len(body), form)
            client.sendall(start.replace(b"connection: close\r\n", b"") if keeps else start)
            client.sendall(body)
            client.shutdown(socket.SHUT_WR)
            told, got = answer(client)
        assert told.startswith(b"HTTP/1.1 200 ")
        assert got == wanted


def test_all_that_was_sent_ahead_is_answered_and_no_half_request(service: Service) -> None:
    form, body = BODIES["binary"]
    # Small answers: who sends on without reading large ones waits for the service, and it for them.
    start = head(len(body), form, f"{PATH}?outputs=loss")
    call = start.replace(b"connection: close\r\n", b"") + body
    with connect(service.url()) as client, client.makefile("rb") as stream:
        client.sendall(call * 2 + call[: len(call) // 2])
        client.shutdown(socket.SHUT_WR)
        text = stream.read()
    assert text.count(b"HTTP/1.1 200 ") == 2
    assert text.count(b"HTTP/1.1 ") - text.count(b"HTTP/1.1 100 ") == 2


def test_half_a_body_gets_no_answer(service: Service) -> None:
    form, body = BODIES["binary"]
    for part in (0, 100, len(body) - 1):
        with connect(service.url()) as client:
            client.sendall(head(len(body), form) + body[:part])
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""


def line_of(service: Service, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = [
            json.loads(line) for line in service.log().splitlines(keepends=True) if "\n" in line
        ]
        if found := [line for line in lines if wanted(line)]:
            last: dict[str, object] = found[-1]
            return last
        time.sleep(0.05)
    raise AssertionError(service.log())


def requests_of(url: str, status: int, path: str = PATH) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = [line for line in text.splitlines() if f'{{route="{path}",status="{status}"}}' in line]
    return float(found[0].split()[-1]) if found else 0.0


def refusals(url: str, reason: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = [line for line in text.splitlines() if f'refusals_total{{reason="{reason}"}}' in line]
    return float(found[0].split()[-1]) if found else 0.0


def test_an_answer_that_is_broken_off_is_told_from_a_whole_one(service: Service) -> None:
    url = service.url()
    body = binary(batch(8_000, 1_000))
    before = [requests_of(url, 200), requests_of(url, 499), refusals(url, "answer-cut")]
    with connect(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        start = head(len(body), BINARY).replace(b"host:", b"x-request-id: cut\r\nhost:")
        client.sendall(start + body)
        got = 0
        while got < 64 << 10:
            got += len(client.recv(1 << 14))
    line = line_of(service, lambda line: line.get("id") == "cut")
    assert (line["status"], line["problem"], line["route"]) == (499, "answer-cut", PATH)
    assert 0 < int(str(line["sent"])) < len(body)
    after = [requests_of(url, 200), requests_of(url, 499), refusals(url, "answer-cut")]
    assert after == [before[0], before[1] + 1, before[2] + 1]


def test_who_is_gone_before_the_answer_is_told_as_gone(service: Service) -> None:
    url = service.url()
    body = BODIES["JSON"][1]
    with connect(url) as client:
        start = head(len(body), JSON).replace(b"host:", b"x-request-id: half\r\nhost:")
        client.sendall(start + body[:-1])
    line = line_of(service, lambda line: line.get("id") == "half")
    assert (line["status"], line["problem"], line["sent"]) == (499, "client-gone", 0)
