"""Children forked after the kernels ran: the same bits, and no process that is aborted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fork_script import CASES
from threading_layers import layers

SCRIPT = Path(__file__).parents[1] / "fork_script.py"


FIRST, *MORE = layers()


@pytest.mark.parametrize(
    ("case", "layer"),
    [*((case, FIRST) for case in CASES), *(("after_a_parallel_call", layer) for layer in MORE)],
)
def test_forked_children_give_the_same_bits(case: str, layer: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), case],
        env={**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
