"""`perf_analyzer` measures the real service: metadata, config, statistics and calls suit it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

DATA = {
    "data": [
        {
            "logits": {"content": np.linspace(-3, 3, 60).tolist(), "shape": [6, 10]},
            "labels": {"content": [0, 1, 2, 3, 4, 9], "shape": [6]},
        }
    ]
}


def test_a_short_run(shared_memory_url: str, tmp_path: Path) -> None:
    program = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent))
    assert program is not None
    given = tmp_path / "inputs.json"
    given.write_text(json.dumps(DATA))
    flags = [
        "-m",
        "cross_entropy",
        "-u",
        shared_memory_url.removeprefix("http://"),
        "--input-data",
        str(given),
    ]
    bounds = ["--measurement-mode", "count_windows", "--measurement-request-count", "50", "-r", "3"]
    ended = subprocess.run(
        [program, *flags, "--shape", "logits:6,10", "--shape", "labels:6", *bounds, "-s", "90"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Throughput: " in ended.stdout
    assert "Inference count: " in ended.stdout
