"""Compilation of every kernel before its first use, in processes that share the cache.

numba compiles one function at a time in a process; the six that evaluate rows take over a minute
so, and half of that on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from softxent._kernels.build.compilation import cache_directory, complete_stamp
from softxent._kernels.loop.loops import (
    FORMS,
    KINDS,
    row_loop,
    rows_function,
    weight_loop,
    whole_call,
)

HEAVY = tuple((kind, form) for form in FORMS for kind in ("float32", "float64"))
"""Type and form of the functions that take seconds to compile."""


def precompile(processes: int) -> None:
    """Compile or load every kernel; what is in no cache yet by so many processes at once."""
    stamp = cache_directory() / complete_stamp()
    children = [] if stamp.exists() else _start_children(min(processes, len(HEAVY)))
    _compile_share(0, len(children) + 1)
    for child in children:
        child.wait()
    for kind in KINDS:
        for form in FORMS:
            for parallel in (False, True):
                row_loop(kind, form, parallel=parallel)
        for form in ("plain", "transformed"):
            for lean in (False, True):
                whole_call(kind, form, lean=lean)
        for parallel in (False, True):
            weight_loop(kind, parallel=parallel)
    if not stamp.exists():
        stamp.touch()


def _start_children(processes: int) -> list[subprocess.Popen[bytes]]:
    """Start all but the first of `processes`; one that fails leaves its share to this process."""
    if not sys.executable:
        return []
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return [
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(number), str(processes)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )
        for number in range(1, processes)
    ]


def _compile_share(number: int, processes: int) -> None:
    for kind, form in HEAVY[number::processes]:
        rows_function(kind, form)


if __name__ == "__main__":
    _compile_share(int(sys.argv[1]), int(sys.argv[2]))
