"""How the service starts, says where it listens, and ends: real processes and real signals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from service_support import (
    BINARY,
    GOOD,
    assert_alive,
    batch,
    binary,
    connect,
    head,
    post,
    read_answer,
    slug,
)

import softxent
import softxent_service
from service_process import COMMAND, Service

Start = Callable[..., Service]


def test_the_url_logged_is_where_it_listens(start: Start) -> None:
    service = start("--threads=3", NUMBA_NUM_THREADS="1")
    url = service.ready_url()
    assert not url.endswith(":0")
    assert_alive(url)
    assert httpx.get(f"{url}/v1/info").json()["threads"] == 3
    assert post(url, binary(batch(400, 1000)), BINARY).status_code == 200
    assert "ready: 3 kernel threads" in service.log()
    assert service.end() == 0


def test_host_of_colons_is_an_address_of_ipv6(start: Start) -> None:
    service = start("--host=::1")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        assert service.status() == 1
        assert service.log().startswith("softxent: cannot listen on ::1 port 0: ")
    else:
        assert service.url().startswith("http://[::1]:")
        assert httpx.get(service.url() + "/v2/health/live").status_code == 200
        assert service.end() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "256.0.0.1", "a..b"])
def test_what_cannot_be_bound_is_one_line(start: Start, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start("--host", host, "--port", str(port))
        assert service.status() == 1
    assert service.log().startswith(f"softxent: cannot listen on {host} port {port}: ")
    assert len(service.log().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_modules_are_imported(start: Start, number: signal.Signals) -> None:
    verbose = (COMMAND[0], "-X", "importtime", *COMMAND[1:])
    service = start(command=verbose)
    service.wait_for(r"\| +typing_extensions\n")
    assert service.end(number) == 0
    assert "Traceback" not in service.log()
    assert "softxent on" not in service.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_kernels_are_compiled(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    # Machine code is kept beside the sources: a copy of them has none.
    source = Path(softxent.__file__).parent
    shutil.copytree(source, tmp_path / "softxent", ignore=shutil.ignore_patterns("__pycache__"))
    service_root = Path(softxent_service.__file__).parents[1]
    service = start(PYTHONPATH=f"{tmp_path}{os.pathsep}{service_root}")
    url = service.url()
    time.sleep(1)
    unready = post(url, GOOD)
    assert (unready.status_code, unready.headers["retry-after"]) == (503, "5")
    assert slug(unready.content) == "not-ready"
    assert httpx.get(f"{url}/v2/health/ready").status_code == 503
    assert service.end(number) == 0
    assert "Traceback" not in service.log()


def test_kernels_that_fail_end_the_service(start: Start) -> None:
    service = start(NUMBA_THREADING_LAYER="nonexistent")
    assert service.process.wait(timeout=120) == 1
    started, failed = service.log().splitlines()
    assert "softxent on" in started
    assert "ERROR the kernels cannot be compiled or loaded: ValueError: " in failed
    assert "nonexistent" in failed


def test_traceback_of_kernels_that_fail_is_a_matter_of_debugging(start: Start) -> None:
    service = start("--log-level=debug", NUMBA_THREADING_LAYER="nonexistent")
    assert service.process.wait(timeout=120) == 1
    assert "Traceback" in service.log()


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_requests_cut_by_a_stop_are_told(start: Start, signals: list[signal.Signals]) -> None:
    wait = "--shutdown-seconds=1" if len(signals) == 1 else "--shutdown-seconds=15"
    service = start(wait, "--keep-alive-seconds=1")
    with connect(service.ready_url()) as connection, connection.makefile("rb") as answers:
        connection.sendall(head(len(GOOD)).replace(b"connection: close\r\n", b"") + GOOD[:5])
        time.sleep(1.5)  # A body may take longer than a head.
        for number in signals:
            service.process.send_signal(number)
            time.sleep(0.3)
        status, headers, body = read_answer(answers)
        assert (status, slug(body)) == (503, "draining")
        assert (headers["connection"], headers["retry-after"]) == ("close", "1")
        assert answers.read() == b""
    assert service.status() == 0
    assert "Traceback" not in service.log()


def test_answer_cut_by_a_stop_ends_quietly(start: Start) -> None:
    service = start("--shutdown-seconds=0")
    body = binary(batch(16_000, 1000))
    with connect(service.ready_url()) as connection:
        connection.sendall(head(len(body), BINARY) + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert service.end() == 0
    assert "Traceback" not in service.log()
    assert "internal" not in service.log().lower()
