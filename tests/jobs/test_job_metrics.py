"""What `/metrics` says of jobs."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np

from conftest import running_service


def scraped(url: str) -> dict[str, float]:
    """Return how many jobs there are by state."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    found = [line.split(" ") for line in lines if line.startswith("softxent_jobs{")]
    return {name.partition('"')[2].rstrip('"}'): float(value) for name, value in found}


def submit(url: str, folder: Path, output: str) -> None:
    names = {name: f"file://{folder}/{name}.npy" for name in ("logits", "labels")}
    asked = {**names, "output": f"file://{folder}/{output}"}
    # The first waits for the imports of all that jobs need.
    assert httpx.post(f"{url}/v1/jobs", json=asked, timeout=60).status_code == 202


def test_jobs_that_wait_are_counted_by_every_service_of_the_database(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "logits.npy", np.zeros((4, 3), np.float32))
    np.save(folder / "labels.npy", np.zeros(4, np.int64))
    flags = (f"--data={tmp_path}", "--job-runner=elsewhere")
    with running_service(*flags) as url, running_service(*flags) as other:
        assert scraped(url) == {}
        submit(url, folder, "first")
        submit(url, folder, "second")
        deadline = time.monotonic() + 30
        while scraped(other) != {"queued": 2, "running": 0}:
            assert time.monotonic() < deadline, scraped(other)
        assert scraped(url) == {"queued": 2, "running": 0}
