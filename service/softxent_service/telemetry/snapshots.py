"""Metrics of several processes that share a port: one file each, summed by any of them.

prometheus_client's mode for several processes keeps its numbers in mapped files, which cost 2 us an
addition and 5 us an observation; here a process writes some kilobytes once a second, however many
requests it answers. So what others have counted is up to a second old.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from softxent_service.telemetry.metrics import Counts


class Snapshots:
    """The files of one service in a directory; the one who starts its processes empties it.

    A process that has ended keeps its file, since counters may not fall; its gauges no longer hold.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A number is given to another process some day.
        self._own = directory / f"{os.getpid()}-{time.time_ns()}.json"

    def write(self, counts: Counts) -> None:
        """Put this process's counts where others find them."""
        parts = {name: list(part.items()) for name, part in vars(counts).items()}
        new = self._own.with_suffix(".new")
        new.write_bytes(orjson.dumps(parts))
        new.replace(self._own)

    def others(self) -> Iterator[Counts]:
        """Yield what every other process has counted."""
        for path in sorted(self._directory.glob("*.json")):
            if path != self._own:
                yield _read(path)


def _read(path: Path) -> Counts:
    counts = Counts()
    for name, part in orjson.loads(path.read_bytes()).items():
        getattr(counts, name).update((tuple(key), value) for key, value in part)
    if not _lives(int(path.name.partition("-")[0])):
        counts.gauges.clear()
    return counts


def _lives(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False
