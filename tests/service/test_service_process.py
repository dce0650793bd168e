"""How the service starts, says where it listens, and ends: real processes and real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load
from service_support import (
    BINARY,
    GOOD,
    PATH,
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
    assert "the kernels cannot be compiled or loaded: ValueError: " in failed
    assert json.loads(failed)["level"] == "error"
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


def test_unix_domain_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    transport = httpx.HTTPTransport(uds=str(path))
    for _ in range(2):
        service = start("--uds", str(path))
        service.wait_for("ready: ")
        with httpx.Client(transport=transport, base_url="http://local") as client:
            body = binary(batch(800, 1000))
            answer = client.post(PATH, content=body, headers={"content-type": BINARY})
            assert answer.status_code == 200
        second = start("--uds", str(path))
        assert second.status() == 1
        assert second.log().startswith(f"softxent: cannot listen on {path}: ")
        assert service.end() == 0
        assert not path.exists()
        transport = httpx.HTTPTransport(uds=str(path))
        # What a killed process leaves behind is in nobody's way.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))


def over_https(start: Start, folder: Path) -> tuple[Service, httpx.Client]:
    """Start a service with a certificate; return it with a client that believes that."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    service = start("--tls-certificate", str(certificate), "--tls-key", str(key))
    url = service.wait_for(r"softxent on (https://\S+),")[1]
    service.wait_for("ready: ")
    context = ssl.create_default_context(cafile=str(certificate))
    return service, httpx.Client(verify=context, base_url=url)


def test_https_by_certificate_files(start: Start, tmp_path: Path) -> None:
    service, client = over_https(start, tmp_path)
    tensors = batch(800, 1000)
    expected = softxent.cross_entropy(tensors["logits"], tensors["labels"])
    with client:
        for _ in range(3):
            content = binary(tensors)
            answer = client.post(PATH, content=content, headers={"content-type": BINARY})
            assert answer.status_code == 200
            assert np.array_equal(load(answer.content)["gradient"], np.asarray(expected.gradient))
    assert service.end() == 0


def test_a_large_answer_over_https_is_over_once_it_is_there(start: Start, tmp_path: Path) -> None:
    service, client = over_https(start, tmp_path)
    with client, httpx.Client(verify=False, base_url=client.base_url) as other:
        for rows in (260, 300, 400, 4_000):
            content = binary(batch(rows, 1000))
            answer = client.post(PATH, content=content, headers={"content-type": BINARY})
            assert answer.status_code == 200
            # The connection stays open and still, as that of a client that thinks.
            deadline = time.monotonic() + 10
            while "softxent_bytes_in_flight 0.0\n" not in other.get("/metrics").text:
                assert time.monotonic() < deadline, other.get("/metrics").text
    assert service.end() == 0


def test_a_certificate_without_its_key_is_refused(start: Start) -> None:
    service = start("--tls-certificate", "nowhere.pem")
    assert service.status() == 2
    assert "tls_certificate and tls_key are given together" in service.log()


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://me:hush@here/x", "postgresql://me:hush@here:port/x", ""]
)
def test_what_is_no_url_of_a_database_is_refused(start: Start, url: str) -> None:
    service = start(f"--database={url}")
    assert service.status() == 2
    assert "postgresql://user:password@host:port/name" in service.log()
    assert "hush" not in service.log()


def test_a_stop_is_told_before_it_refuses_anything(start: Start) -> None:
    service = start("--drain-seconds=1.5")
    url = service.ready_url()
    service.process.send_signal(signal.SIGTERM)
    refused = httpx.get(f"{url}/v2/health/ready")
    assert (refused.status_code, refused.json()["ready"]) == (503, False)
    assert_alive(url)
    assert service.status() == 0


def test_a_second_signal_ends_a_stop_that_waits(start: Start) -> None:
    service = start("--shutdown-seconds=60")
    url = service.ready_url()
    with connect(url) as slow:
        slow.sendall(head(1000) + b"{")
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert service.process.poll() is None
        assert service.end() == 0
