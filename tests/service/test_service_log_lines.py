"""Lines of the log are JSON in visible ASCII, whatever they tell of and whoever writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from service_support import connect

from service_process import Service

VISIBLE = re.compile(r"[ -~]*\n?")

BEYOND = [chr(code) for code in (*range(0x80, 0x100), 0x7F)]
OTHERS = ["\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\U000e0001", "\U0001f4a9", "\ud800"]


def logged(code: str, *lines: str) -> list[str]:
    """Return the lines that a process writes that logs as JSON."""
    program = (
        "import logging, warnings, threading\n"
        "from softxent_service.settings import Settings\n"
        "from softxent_service.telemetry.logs import configure_logging\n"
        "render = configure_logging(Settings(log_format='json'))\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *lines], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines(keepends=True)


def test_every_character_is_told_in_visible_ascii() -> None:
    texts = [*BEYOND, *OTHERS, "".join(BEYOND), "a\x00b\x1b[2J\r\nc"]
    code = "".join(f"logging.getLogger('x').error('%s', {text!a})\n" for text in texts)
    lines = logged(code)
    assert len(lines) == len(texts)
    for line, text in zip(lines, texts, strict=True):
        assert VISIBLE.fullmatch(line), line
        told = json.loads(line)["event"]
        assert told == (r"\ud800" if text == "\ud800" else text)


def test_warnings_and_faults_of_threads_are_lines_too() -> None:
    lines = logged(
        "warnings.warn('old\\nname \\x9b')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    told = [json.loads(line) for line in lines]
    assert "old\nname \x9b" in told[0]["event"]
    assert told[0]["level"] == "warning"
    assert (told[1]["event"], told[1]["level"]) == ("a thread failed", "error")
    assert "ZeroDivisionError" in told[1]["exception"]


@pytest.mark.parametrize("flags", [("--base-path=/softxent",), ("--cors-origins=*",), ()])
def test_every_line_of_a_service_is_json(start: Callable[..., Service], flags: tuple[str]) -> None:
    service = start("--log-format=json", *flags)
    url = service.ready_url()
    for number, text in enumerate(BEYOND[:-1]):
        with connect(url) as client:
            agent = text.encode("latin-1")
            client.sendall(
                b"GET /%%c2%%9b HTTP/1.1\r\nhost: x\r\nx-request-id: b"
                b"%d\r\nuser-agent: %s\r\n\r\n" % (number, agent)
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 404 ")
    service.wait_for(f'"id":"b{len(BEYOND) - 2}"')
    assert service.end() == 0
    lines = service.log().splitlines(keepends=True)
    assert all(VISIBLE.fullmatch(line) for line in lines)
    told = {line.get("id"): line.get("agent") for line in map(json.loads, lines)}
    assert all(told[f"b{number}"] == text for number, text in enumerate(BEYOND[:-1]))
