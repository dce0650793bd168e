"""What the proofs share: how long they run, what they print, what a process holds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from service_support import GOOD, PATH, head, post

from service_process import Service

MIB = 1 << 20

SETTLE_SECONDS = 20.0
"""How long a service may take to notice that clients are gone, on a machine that is busy."""


def many(name: str, default: int) -> int:
    """Return how many there are to be: `PROOF_<name>` of the environment, or the stated value."""
    return int(os.environ.get(f"PROOF_{name}", default))


def tell(text: str) -> None:
    """Print what was measured; `make test-proofs` shows it."""
    sys.stdout.write(f"\n    {text}")
    sys.stdout.flush()


def resident(service: Service, field: str = "VmRSS") -> int:
    """Return how many bytes of memory the process has, or had at most (`VmHWM`)."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def forget_peak(service: Service) -> None:
    """Let `VmHWM` begin again at what is held now."""
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")


def descriptors(service: Service) -> int:
    """Return how many files and sockets the process has open."""
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def settles(reached: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> bool:
    """Tell whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def kept_alive(length: int, media_type: str, path: str = PATH) -> bytes:
    """Return the head of a request whose connection goes on."""
    return head(length, media_type, path).replace(b"connection: close\r\n", b"")


def warmed(service: Service) -> str:
    """Return the service's URL once it is ready and has answered a call."""
    url = service.ready_url()
    assert post(url, GOOD).status_code == 200
    return url
