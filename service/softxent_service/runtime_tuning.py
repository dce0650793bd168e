"""Tuning of Numba, the allocator and the garbage collector to the machine and process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path

M_MMAP_THRESHOLD = -3
LEAST_OF_ITS_OWN = 1 << 20
"""Blocks from this size on are asked of the system one by one; more faults are all that costs."""

_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "fma", "bmi2"}),
)


def processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use: what it may run on, and has time of.

    Linux grants a container time by `cpu.max` of its cgroup (version 2) and those above it: more
    threads than that stand still in the midst of a kernel. `root` is where files are looked for.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    most = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min([most, *_granted(root)])))


def _granted(root: Path) -> Iterator[float]:
    """Yield the processors that each cgroup of this process has time of, where it is bounded."""
    own = root / "proc/self/cgroup"
    path = re.search("^0::/(.*)$", own.read_text(), re.MULTILINE) if own.exists() else None
    if path is None:
        return
    directory = root / "sys/fs/cgroup" / path[1]
    for place in (directory, *directory.parents):
        limit = place / "cpu.max"
        quota, period = limit.read_text().split() if limit.is_file() else ("max", "")
        if quota != "max":
            yield int(quota) / int(period)


def tell_numba(environment: MutableMapping[str, str], threads: int) -> None:
    """Set the threads, and name the processor's level, so that machines of one level share code.

    A level that the environment already names is left alone; the threads are those of the
    settings. Has an effect only before `import numba`.
    """
    environment["NUMBA_NUM_THREADS"] = str(threads)
    level = processor_level(platform.machine(), _processor_flags())
    if level is not None and "NUMBA_CPU_NAME" not in environment:
        environment["NUMBA_CPU_NAME"] = level
        # The level implies its features; those of this very machine would part the cache again.
        environment.setdefault("NUMBA_CPU_FEATURES", "")


def give_freed_memory_back() -> None:
    """Let the system have large blocks as soon as they are freed; glibc alone has this to be told.

    It would keep blocks of up to 32 MiB in its heap, in holes: a service that may hold 256 MiB
    held 600.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LEAST_OF_ITS_OWN)


def leave_out_of_collections() -> None:
    """Have the garbage collector pass over all that is there now, which stays until the end.

    To look through it took 0.1 s, in which no call was answered, once in 20,000 small calls.
    """
    gc.collect()
    gc.freeze()


def processor_level(machine: str, flags: set[str]) -> str | None:
    """Return the highest x86-64 level that these flags reach, None for other processors."""
    if machine.lower() not in ("x86_64", "amd64"):
        return None
    return next((name for name, needed in _LEVELS if needed <= flags), None)


def _processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
