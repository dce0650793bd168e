"""One line for each request, valid JSON whatever clients send, readable where people read."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from service_support import BINARY, GOOD, PATH, batch, binary, connect, post

from conftest import free_port
from service_process import COMMAND, Service
from softxent_service.telemetry.record import Record
from softxent_service.telemetry.request_log import MOST_WAITING, Lines

Start = Callable[..., Service]

FIELDS = {"time", "level", "event", "id", "method", "route", "status", "ms"}
FIELDS |= {"received", "sent", "client", "agent"}
EVALUATED = {"rows", "dtype", "read_ms", "queue_ms", "decode_ms", "kernel_ms", "encode_ms"}


def requests_of(service: Service) -> list[dict[str, Any]]:
    """Return the lines of requests; every line has to be a JSON object."""
    lines = [json.loads(line) for line in service.log().splitlines()]
    assert all({"time", "level", "event"} <= set(line) for line in lines)
    return [line for line in lines if line["event"] == "request"]


def line_of(service: Service, request_id: str) -> dict[str, Any]:
    service.wait_for(rf'"id":"{re.escape(request_id)}"')
    (line,) = [line for line in requests_of(service) if line["id"] == request_id]
    return line


def test_a_line_tells_what_was_asked_and_where_time_went(start: Start) -> None:
    service = start()
    url = service.ready_url()
    body = binary(batch(300, 100))
    answer = post(url, body, BINARY, x_request_id="one", user_agent="tests/1")
    line = line_of(service, "one")
    assert set(line) == FIELDS | EVALUATED
    assert (line["method"], line["route"], line["status"]) == ("POST", PATH, 200)
    assert (line["rows"], line["dtype"], line["agent"]) == (300, "float32", "tests/1")
    assert (line["received"], line["sent"]) == (len(body), len(answer.content))
    assert 0 < line["kernel_ms"] < line["ms"]
    assert (line["level"], line["client"]) == ("info", "127.0.0.1")
    assert post(url, b"{", x_request_id="two").status_code == 400
    refused = line_of(service, "two")
    assert set(refused) == FIELDS | {"problem"}
    assert refused["problem"] == "malformed-body"
    assert service.end() == 0


def test_the_last_lines_are_written_before_the_end(start: Start) -> None:
    service = start()
    url = service.ready_url()
    ids = [post(url, GOOD).headers["x-request-id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert service.end() == 0
    assert [line["id"] for line in requests_of(service)][-20:] == ids


@pytest.mark.parametrize(
    "given",
    ["a b", 'a"b', "a\\b", "-a", "x" * 129, "\x9b31mred", "é", "", "a,b", "{}", "a\tb"],
)
def test_an_id_that_is_unfit_is_replaced(service_url: str, given: str) -> None:
    headers = {b"x-request-id": given.encode("latin-1")}
    answer = httpx.get(f"{service_url}/v2/health/live", headers=headers)
    assert re.fullmatch(r"[0-9a-f]{16}-\d+", answer.headers["x-request-id"])


@pytest.mark.parametrize("given", ["a", "4bf92f35-77b3-4da6", "2:a/b+c=@d._", "x" * 128])
def test_an_id_that_is_fit_comes_back(service_url: str, given: str) -> None:
    answer = httpx.get(f"{service_url}/v2/health/live", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given


HOSTILE = [
    b'"}\\n{"event": "forged"}',
    b"\xc2\x9b2J\xc2\x9d0;title\x9c",
    b"\x80\xff\xfe",
    "\u2028\u202e\U0001f4a9".encode(),
    b"\\u0000\\ud800",
    b"\t" * 50,
    b"a" * 5000,
]


def test_lines_are_json_under_hostile_headers_and_paths(start: Start) -> None:
    service = start()
    url = service.ready_url()
    for number, value in enumerate(HOSTILE):
        with connect(url) as connection:
            connection.sendall(
                b"GET /%0a%1b[31m%ff?" + b"%0a=%22" + b" HTTP/1.1\r\nhost: x\r\nx-request-id: h"
                b"%d\r\nuser-agent: %s\r\nreferer: %s\r\n\r\n" % (number, value, value)
            )
            assert connection.recv(4096)
        line = line_of(service, f"h{number}")
        assert line["route"] == "unmatched"
        assert len(line["agent"]) <= 100
    assert service.end() == 0
    assert all(ord(char) >= 32 or char == "\n" for char in service.log())


def test_control_characters_in_a_header_are_no_request(service_url: str) -> None:
    with connect(service_url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nuser-agent: \x1b[2J\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_refusal_of_the_protocol_has_a_line(start: Start) -> None:
    service = start()
    with connect(service.url()) as connection:
        connection.sendall(b"no request at all\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    service.wait_for('"problem":"malformed-request"')
    (line,) = requests_of(service)
    assert (line["status"], line["route"], line["method"]) == (400, "unmatched", "")


def test_text_on_a_terminal_cannot_be_forged() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--log-level", "debug"], stderr=theirs, env=os.environ
    )
    os.close(theirs)
    try:
        text = read_until(ours, r"softxent on (http://\S+),")
        found = re.search(r"softxent on (http://\S+),", text)
        assert found is not None
        agent = b"x\x9d0;title\x9c \xe9"
        httpx.get(f"{found[1]}/v2/health/live", headers={b"user-agent": agent})
        text = read_until(ours, r"agent.*\n")
        assert "\x9d" not in text
        assert "\\x9d0;title\\x9c" in text
        assert '"event"' not in text
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(ours)


def read_until(terminal: int, pattern: str) -> str:
    text = ""
    while not re.search(pattern, text):
        text += os.read(terminal, 4096).decode()
    return text


def test_what_is_not_taken_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads takes 64 KiB, and then its writer waits."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as stuck, os.fdopen(read) as taker:
        monkeypatch.setattr(sys, "stderr", stuck)
        lines = Lines(lambda _logger, _name, _event: "x" * 1000)
        for _ in range(200):
            lines.put(Record({}))
        time.sleep(0.3)
        for _ in range(MOST_WAITING + 200):
            lines.put(Record({}))
        assert lines.dropped == 200
        reading = threading.Thread(target=taker.read)
        reading.start()
        lines.close()
        stuck.close()
        reading.join()


def test_warnings_alone_are_logged_where_that_is_asked_for(start: Start) -> None:
    service = start("--log-level=warning", f"--port={(port := free_port())}")
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/v2/health/live")
            break
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert service.end() == 0
    assert service.log() == ""
