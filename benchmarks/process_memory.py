"""Memory of a server: its process and all that it started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")


def now(pid: int) -> int:
    """Return the bytes that a process and its descendants have in memory."""
    return sum(_field(one, "VmRSS") for one in _tree(pid))


def peak(pid: int) -> int:
    """Return the most bytes that they had since `forget_peak`, each at its own time."""
    return sum(_field(one, "VmHWM") for one in _tree(pid))


def forget_peak(pid: int) -> None:
    """Let the peaks begin again at what the processes have now."""
    for one in _tree(pid):
        (PROCESSES / str(one) / "clear_refs").write_text("5")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in (PROCESSES / str(pid) / "task").iterdir():
        with suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _field(pid: int, name: str) -> int:
    status = (PROCESSES / str(pid) / "status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
