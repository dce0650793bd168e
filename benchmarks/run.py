"""Prints every table: first the kernels beside their peers, then what HTTP adds.

Nothing else should run meanwhile. torch is a peer, not a dependency: `make bench` keeps it in an
environment of its own; without it the tables say so. So they do without the serving stacks that
`make bench-http` sets up.
"""

from __future__ import annotations

import os
import platform

import http_times
import kernel_times
import numba
import numpy as np
from tables import print_table

import softxent


def machine() -> None:
    """Print what was measured, and where."""
    rows = [
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("softxent", f"{softxent.__version__}, numerics {softxent.NUMERICS_VERSION}"),
        ("Python", platform.python_version()),
        ("numpy, numba", f"{np.__version__}, {numba.__version__}"),
    ]
    print_table("Measured on", ("what", "which"), rows)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    machine()
    kernel_times.main([])
    http_times.main([])
