"""The servers that are measured: ours and bare ones beside it, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
BARE = str(Path(__file__).with_name("bare.py"))
SERVE = ("-m", "softxent_service.cli", "serve")
READY_SECONDS = 240
"""The first start on a machine compiles every kernel."""


@dataclass(frozen=True)
class Running:
    """A server: where it listens, and which process it is."""

    port: int
    process: int


@contextmanager
def service(*flags: str) -> Iterator[int]:
    """Start `softxent serve`; yield its port once every kernel is loaded; end it."""
    with _process([*SERVE, "--log-level", "warning", *flags], is_ready) as running:
        yield running.port


@contextmanager
def service_process(
    *flags: str, log: Path = Path(os.devnull), command: Sequence[str] = SERVE
) -> Iterator[Running]:
    """Do the same with its log in a file, and yield its process too."""
    with log.open("wb") as output, _process([*command, *flags], is_ready, output) as running:
        yield running


@contextmanager
def bare(name: str) -> Iterator[int]:
    """Start one of the servers of bare.py; yield its port once it listens; end it."""
    with _process([BARE, name], listens) as running:
        yield running.port


def listens(port: int) -> bool:
    """Tell whether something listens on the port."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5):
        return True
    return False


def is_ready(port: int) -> bool:
    """Tell whether the service on the port answers evaluations."""
    from softxent_client import Client, ServiceUnavailableError

    with suppress(ServiceUnavailableError), Client(f"http://{HOST}:{port}") as client:
        return client.health()
    return False


@contextmanager
def _process(
    command: list[str], ready: Callable[[int], bool], output: IO[bytes] | None = None
) -> Iterator[Running]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    whole = [sys.executable, *command, "--port", str(port)]
    process = subprocess.Popen(whole, start_new_session=True, stderr=output)
    try:
        _wait(process, ready, port)
        yield Running(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[int], bool], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(0.05)
