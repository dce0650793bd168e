"""The servers that are measured: ours, bare ones and peers, each in a process group of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
PEERS = HERE / "http_peers"
ENVIRONMENTS = HERE.parent / ".venv-http"
SERVE = ("-m", "softxent_service.cli", "serve")
READY_SECONDS = 240
"""The first start on a machine compiles every kernel."""

QUIET = {"BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1"}
"""Peers are told to tell nobody that they run."""


@dataclass(frozen=True)
class Server:
    """A server that runs: the port that it listens on, the process that was started."""

    port: int
    pid: int


Ready = Callable[[int], bool]


@contextmanager
def service(
    *flags: str, log: Path | None = None, command: Sequence[str] = SERVE
) -> Iterator[Server]:
    """Start `softxent serve`; yield it once every kernel is loaded; end it.

    Without a `log` it logs no requests, as the servers beside it. It has no jobs of before, whose
    runner would take a twentieth of a processor.
    """
    quiet = ("--log-level=warning",) if log is None else ()
    whole = [sys.executable, *command, *quiet, *flags]
    with tempfile.TemporaryDirectory() as data:
        env = {**os.environ, "SOFTXENT_DATA": data}
        with _running(whole, is_ready, env=env, log=log) as server:
            yield server


@contextmanager
def bare(name: str) -> Iterator[Server]:
    """Start one of the servers of bare.py; yield it once it listens; end it."""
    with _running([sys.executable, str(HERE / "bare.py"), name], listens) as server:
        yield server


@contextmanager
def peer(name: str, ready: Ready) -> Iterator[Server]:
    """Start one of the servers of http_peers; yield it once it is ready; end it."""
    command = [python_of(name), f"{name}_server.py"]
    if name == "bentoml":
        command[1:] = ["-m", "bentoml", "serve", "bentoml_server:CrossEntropy", "--host", HOST]
    with _running(command, ready, cwd=PEERS, env={**os.environ, **QUIET}) as server:
        yield server


def python_of(name: str) -> str:
    """Return the Python of a peer's environment."""
    return str(ENVIRONMENTS / name / "bin" / "python")


def is_installed(name: str) -> bool:
    """Tell whether a peer's environment has been made."""
    return Path(python_of(name)).exists()


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
def _running(
    command: list[str],
    ready: Ready,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Server]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() if log is None else log.open("w+b") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            start_new_session=True,
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=output,
        )
        try:
            _wait(process, ready, port, output)
            yield Server(port, process.pid)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server, and what is left of its group: some leave their workers behind."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Ready, port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{process.args!r} did not start:\n{said}")
        time.sleep(0.05)
