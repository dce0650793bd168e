"""Several processes on one address: they share the work, and one that dies is replaced."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load
from service_support import BINARY, GOOD, PATH, assert_alive, batch, binary, connect, head, post

from service_process import Service
from softxent import cross_entropy

Start = Callable[..., Service]


def workers_of(service: Service) -> list[int]:
    """Return the processes that serve: children of the supervisor that hold its socket."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return [pid for pid in map(int, children.read_text().split()) if is_worker(pid)]


def is_worker(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


def wait_for_workers(service: Service, number: int) -> list[int]:
    service.wait_for(rf"(?s)(ready: .*){{{number}}}")
    return workers_of(service)


@pytest.fixture
def pair(start: Start) -> Service:
    service = start("--workers=2", "--threads=2")
    wait_for_workers(service, 2)
    return service


def test_threads_are_divided_and_answers_are_the_same_bits(pair: Service) -> None:
    url = pair.url()
    info = httpx.get(f"{url}/v1/info").json()
    assert (info["workers"], info["threads"]) == (2, 1)
    tensors = batch(500, 1_000)
    expected = np.asarray(cross_entropy(tensors["logits"], tensors["labels"]).gradient)
    for _ in range(8):
        answer = post(url, binary(tensors), BINARY)
        assert load(answer.content)["gradient"].tobytes() == expected.tobytes()
    assert pair.end() == 0


def test_a_worker_killed_is_replaced_and_the_others_go_on(pair: Service) -> None:
    url = pair.url()
    for _ in range(2):
        before = workers_of(pair)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        time.sleep(0.1)
        for _ in range(40):
            assert_alive(url)
        pair.wait_for(rf"worker {before[0]} ended with SIGKILL; another takes its place")
        deadline = time.monotonic() + 60
        while len(workers_of(pair)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert before[1] in workers_of(pair)
    assert_alive(url)
    assert pair.end() == 0


def test_no_client_meets_an_unready_worker(pair: Service) -> None:
    url = pair.url()
    os.kill(workers_of(pair)[1], signal.SIGKILL)
    deadline = time.monotonic() + 120
    while pair.log().count("ready: ") < 3 and time.monotonic() < deadline:
        with suppress(httpx.TransportError):  # The connection was the killed one's.
            assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    assert pair.log().count("ready: ") == 3


def test_a_stop_finishes_what_every_worker_has_begun(pair: Service) -> None:
    url = pair.url()
    with ThreadPoolExecutor(8) as clients:
        opened = [connect(url) for _ in range(8)]
        for connection in opened:
            connection.sendall(head(len(GOOD)) + GOOD[:10])
        time.sleep(0.5)
        pair.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)

        def finish(connection: socket.socket) -> bytes:
            with connection:
                connection.sendall(GOOD[10:])
                return connection.recv(12)

        assert set(clients.map(finish, opened)) == {b"HTTP/1.1 200"}
    assert pair.status() == 0


def test_ctrl_c_of_a_terminal_reaches_the_supervisor_alone(pair: Service) -> None:
    os.killpg(pair.process.pid, signal.SIGINT)
    assert pair.status() == 0
    assert "Traceback" not in pair.log()


def test_a_second_signal_ends_all_at_once(pair: Service) -> None:
    with connect(pair.url()) as slow:
        slow.sendall(head(1_000) + b"{")
        time.sleep(0.3)
        pair.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert pair.process.poll() is None
        assert pair.end() == 0


def test_workers_do_not_outlive_their_supervisor(pair: Service) -> None:
    workers = workers_of(pair)
    pair.process.kill()
    pair.process.wait()
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_kernels_that_fail_end_all_workers(start: Start) -> None:
    service = start("--workers=2", NUMBA_THREADING_LAYER="nonexistent")
    assert service.process.wait(timeout=120) == 1
    assert service.log().count("the kernels cannot be compiled or loaded") == 1
    assert "Traceback" not in service.log()


def test_a_unix_socket_of_several_workers_is_removed_once(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    service = start("--workers=2", "--uds", str(path))
    wait_for_workers(service, 2)
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://local") as client:
        headers = {"content-type": "application/json"}
        assert client.post(PATH, content=GOOD, headers=headers).status_code == 200
        os.kill(workers_of(service)[0], signal.SIGTERM)
        service.wait_for("ended with status 0; another takes its place")
        assert client.post(PATH, content=GOOD, headers=headers).status_code == 200
    assert service.end() == 0
    assert not path.exists()


def test_metrics_of_all_workers_add_up(pair: Service) -> None:
    url = pair.url()
    for _ in range(20):
        assert_alive(url)
    answered = 'softxent_requests_total{route="/v1/cross_entropy",status="200"} 20.0'
    deadline = time.monotonic() + 30
    wanted = {answered, "softxent_processes 2.0"}
    while not wanted <= set((text := httpx.get(f"{url}/metrics").text).splitlines()):
        assert time.monotonic() < deadline, text
