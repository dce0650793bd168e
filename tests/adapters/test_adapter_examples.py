"""The examples that train inside a framework do learn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def numbers(pattern: str, name: str, *arguments: str) -> list[float]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    return [float(number) for number in re.findall(pattern, done.stdout)]


def test_a_transformer_is_distilled() -> None:
    losses = numbers(r"loss ([0-9.]+)", "torch_distillation.py", "--steps", "41")
    assert len(losses) == 3
    assert losses[0] > 3.5
    assert losses[-1] < 0.65 * losses[0]


def test_xgboost_learns_from_smoothed_labels() -> None:
    right = numbers(r"([0-9.]+)% right", "xgboost_smoothing.py")
    assert len(right) == 2
    assert min(right) > 90
