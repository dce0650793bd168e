"""The real service, in a process of its own, and what it logs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

READY_SECONDS = 240
"""The first start on a machine compiles every kernel."""

SECRET = re.compile(r"softxent-[A-Za-z0-9_-]{43}|Bearer [^e]")
"""A key, or what a client sends with one."""

T = TypeVar("T")

COMMAND = (sys.executable, "-m", "softxent_service.cli", "serve")


class Service:
    """`softxent serve` on a free port; `environment` is added to that of this process.

    It has a data directory of its own: jobs that were left in another one would be gone on with.
    """

    def __init__(self, *flags: str, command: tuple[str, ...] = COMMAND, **environment: str) -> None:
        # A file and not a pipe: nobody need read it for the service to go on.
        with tempfile.NamedTemporaryFile(delete=False) as log:
            self._log = Path(log.name)
            self._data = tempfile.TemporaryDirectory()
            self.process = subprocess.Popen(
                [*command, "--port", "0", *flags],
                stderr=log,
                start_new_session=True,
                env={**os.environ, "SOFTXENT_DATA": self._data.name, **environment},
            )

    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match of `pattern` in the log."""
        return _until(lambda: re.search(pattern, self.log()), self)

    def url(self) -> str:
        return self.wait_for(r"softxent on (http://\S+),")[1]

    def ready_url(self) -> str:
        url = self.url()
        _until(lambda: httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200, self)
        return url

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.status()

    def status(self) -> int:
        """Return the exit status of a process that ends by itself."""
        # Less than a cold compilation takes.
        return self.process.wait(timeout=20)

    def clear(self) -> None:
        """Leave nothing behind, also where a test has failed; no log of any test shows a key."""
        self.process.kill()
        self.process.wait()
        log = self.log()
        self._log.unlink()
        self._data.cleanup()
        assert not SECRET.search(log)


def _until(ask: Callable[[], T | None], service: Service) -> T:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        assert service.process.poll() is None, f"the service ended: {service.log()}"
        time.sleep(0.05)
    raise AssertionError(f"still waiting after {READY_SECONDS} s: {service.log()}")
