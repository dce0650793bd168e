"""`perf_analyzer` measures the real service: metadata, config, statistics and calls suit it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCUMENT = (Path(__file__).parents[2] / "docs/open-inference.md").read_text(encoding="utf-8")
DATA = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)[-1]


def test_a_short_run(shared_memory_url: str, tmp_path: Path) -> None:
    program = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent))
    assert program is not None
    given = tmp_path / "inputs.json"
    given.write_text(DATA)
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
        [program, *flags, *bounds, "-s", "90"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Throughput: " in ended.stdout
    assert "Inference count: " in ended.stdout
