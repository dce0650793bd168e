"""The real service, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

READY_SECONDS = 240
"""The first start on a machine compiles every kernel."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_service(*flags: str, port: int | None = None) -> Iterator[str]:
    """Start `softxent serve`, on a free port; yield its URL once ready; expect a clean end."""
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "softxent_service.cli", "serve", "--port", str(port), *flags]
    process = subprocess.Popen(command, start_new_session=True, env=dict(os.environ))
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=60)
    assert status == 0


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service ended before it was ready"
        try:
            if httpx.get(f"{url}/v2/health/ready", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the service is not ready after {READY_SECONDS} s")


@pytest.fixture(scope="session")
def service_url() -> Iterator[str]:
    with running_service() as url:
        yield url


@pytest.fixture(scope="session")
def small_service_url() -> Iterator[str]:
    """A service whose limits are a few bytes, and which waits for a body for a moment only."""
    flags = ("--json-bytes=200", "--binary-bytes=400", "--header-bytes=250", "--tensors=2")
    with running_service(*flags, "--body-idle-seconds=0.3", "--request-head-bytes=2048") as url:
        yield url
