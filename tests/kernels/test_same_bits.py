"""The bits of a large fixed set, on this processor, however the rows are handed in.

Other processors and libraries take minutes: `make test-bits`, bits_on_every_target.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bit_cases import BATCHES, golden, hashes, option_sets, ways
from bit_targets import NAMES

import softxent
from softxent_service.runtime_tuning import tell_numba

PROGRAM = Path(__file__).with_name("bit_cases.py")
AGAIN = f"If they are meant to: raise NUMERICS_VERSION, then `python {PROGRAM.name} --write`."


def changed(found: dict[str, str]) -> list[str]:
    """Return the names of what differs from the golden hashes."""
    return [name for name, digest in found.items() if golden()[1].get(name) != digest]


def hashes_of_process(environment: dict[str, str], *flags: str) -> dict[str, str]:
    """Return the hashes that a process of its own finds."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *flags],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)["sha256"]
    return found


def test_golden_hashes_belong_to_this_numerics_version() -> None:
    version, stored = golden()
    assert version == softxent.NUMERICS_VERSION, f"make them again: {PROGRAM.name} --write"
    kinds = [*(name for name, _ in option_sets(1, 1)), *NAMES, "sums"]
    assert list(stored) == [f"{d} {c} {kind}" for d, c in BATCHES for kind in kinds]


@pytest.mark.parametrize("way", ways(1))
@pytest.mark.parametrize(("dtype", "classes"), BATCHES)
def test_same_bits(dtype: str, classes: int, way: str) -> None:
    assert changed(hashes(dtype, classes, way)) == [], f"Bits have changed. {AGAIN}"


def test_same_bits_in_the_service() -> None:
    """The service compiles for a level of processors, the library for this very processor."""
    environment: dict[str, str] = {}
    tell_numba(environment, threads=1)
    assert changed(hashes_of_process(environment)) == []
