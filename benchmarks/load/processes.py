"""What a process and those it started use, from Linux's /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Of a family of processes: resident bytes, open descriptors, seconds of processors so far."""

    memory: int
    descriptors: int
    processor: float


def usage(process: int) -> Usage:
    """Return what a process and its descendants use."""
    memory = descriptors = 0
    processor = 0.0
    for member in family(process):
        # One may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            memory += int((PROC / member / "statm").read_text().split()[1])
            descriptors += len(list((PROC / member / "fd").iterdir()))
            fields = (PROC / member / "stat").read_text().rpartition(")")[2].split()
            processor += int(fields[11]) + int(fields[12])
    return Usage(
        memory * os.sysconf("SC_PAGE_SIZE"), descriptors, processor / os.sysconf("SC_CLK_TCK")
    )


def family(process: int | str) -> Iterator[str]:
    """Yield a process and all that descend from it."""
    yield str(process)
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in (PROC / str(process) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(child)
