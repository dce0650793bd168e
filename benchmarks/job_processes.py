"""The processes that jobs are measured with: a service, or a scheduler and its workers."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import distributed
import httpx

CLI = (sys.executable, "-m", "softxent_service.cli")
SECONDS = 120


@contextmanager
def process(*command: str) -> Iterator[str]:
    """Run a command; yield the path of its log."""
    with tempfile.NamedTemporaryFile() as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield log.name
        finally:
            running.terminate()
            running.wait()


@contextmanager
def served(*flags: str) -> Iterator[str]:
    """Run a service on a free port; yield its URL once it is ready."""
    with process(*CLI, "serve", "--port=0", *flags) as log:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with open(log) as text:
                found = re.search(r"softxent on (http://\S+),", text.read())
            if found and httpx.get(f"{found[1]}/v2/health/ready", timeout=60).status_code == 200:
                yield found[1]
                return
            time.sleep(0.1)
        raise TimeoutError(f"the service is not ready after {SECONDS} s")


@contextmanager
def cluster_of(workers: int) -> Iterator[str]:
    """Run a scheduler and workers of one thread; yield its address once they are there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    scheduler = (sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1")
    work = (*CLI, "worker", f"--dask-scheduler={address}", "--threads=1")
    with ExitStack() as stack:
        stack.enter_context(
            process(*scheduler, "--port", port, "--no-dashboard", "--dashboard-address=127.0.0.1:0")
        )
        for _ in range(workers):
            stack.enter_context(process(*work))
        client = distributed.Client(address, set_as_default=False, timeout=SECONDS)
        client.wait_for_workers(workers, timeout=SECONDS)
        client.close()
        yield address
