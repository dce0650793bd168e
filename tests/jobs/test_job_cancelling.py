"""A job that is cancelled while its last is written: either no result is there, or a whole one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from job_support import batch, read, save

import softxent
from service_process import Service

ROWS, CLASSES = 1200, 64
BLOCK_BYTES = 1024
BLOCKS = ROWS // (BLOCK_BYTES // (4 * CLASSES))
"""So many records that to remove them, the last that a job does, takes as long as a few calls."""

HTTP = httpx.Client(timeout=60)


@dataclass(frozen=True)
class Here:
    """A service, and the folder that its jobs read and write."""

    url: str
    folder: Path

    def submit(self, output: str) -> str:
        job = {name: f"file://{self.folder}/{name}.npy" for name in ("logits", "labels")}
        job |= {"output": f"file://{self.folder}/{output}", "reduction": "mean"}
        answer = HTTP.post(f"{self.url}/v1/jobs", json={**job, "outputs": ["loss", "gradient"]})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def show(self, job_id: str) -> dict[str, Any]:
        told: dict[str, Any] = HTTP.get(f"{self.url}/v1/jobs/{job_id}").json()
        return told

    def ended(self, job_id: str) -> str:
        self.wait(lambda: self.show(job_id)["state"] in ("succeeded", "failed", "cancelled"))
        return str(self.show(job_id)["state"])

    def wait(self, ask: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ask():
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("cancelling")
    save(folder, batch(ROWS, CLASSES))
    flags = (f"--data={folder}/data", f"--roots=file://{folder}", "--running-jobs=1")
    service = Service(*flags, f"--block-bytes={BLOCK_BYTES}")
    try:
        yield Here(service.ready_url(), folder)
        assert service.end() == 0
        assert "Traceback" not in service.log()
    finally:
        service.clear()


def blocks_of(output: Path) -> int:
    try:
        return sum(1 for _ in (output / ".softxent" / "blocks").iterdir())
    except FileNotFoundError:
        return 0


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "almost": lambda output: blocks_of(output) >= BLOCKS - 5,
    "all_blocks": lambda output: blocks_of(output) == BLOCKS or (output / "zarr.json").exists(),
    "finishing": lambda output: (output / "zarr.json").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_at_its_last_writes(here: Here, moment: str) -> None:
    output = here.folder / moment
    job_id = here.submit(moment)
    here.wait(lambda: MOMENTS[moment](output))
    answer = HTTP.post(f"{here.url}/v1/jobs/{job_id}/cancel")
    came_in_time = answer.status_code == 200
    assert answer.status_code == 200 or answer.json()["type"].endswith(":job-state"), answer.text
    # One job runs at a time: once the next has ended, nothing of this one is under way.
    assert here.ended(here.submit(f"after_{moment}")) == "succeeded"
    assert here.show(job_id)["state"] == ("cancelled" if came_in_time else "succeeded")
    if not (output / "zarr.json").exists():
        assert came_in_time
        assert here.ended(here.submit(moment)) == "succeeded"
    assert_whole(here.folder, moment)


def test_a_runner_that_stops_does_not_revive_a_job_that_was_cancelled(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    save(tmp_path, batch(ROWS, CLASSES))
    data, roots = f"--data={tmp_path}/data", f"--roots=file://{tmp_path}"
    service = start(data, roots, f"--block-bytes={BLOCK_BYTES}", "--job-runner=elsewhere")
    here = Here(service.ready_url(), tmp_path)
    job_id = here.submit("out")
    command = [sys.executable, "-m", "softxent_service.cli", "runner", data, roots]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as runner:
        try:
            here.wait(lambda: blocks_of(tmp_path / "out") > 0)
            cancelled = HTTP.post(f"{here.url}/v1/jobs/{job_id}/cancel")
            runner.terminate()
            assert cancelled.json()["state"] == "cancelled"
            assert runner.wait(timeout=60) == 0
        finally:
            runner.kill()
    assert here.show(job_id)["state"] == "cancelled"
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert service.end() == 0


def assert_whole(folder: Path, output: str) -> None:
    tensors: Any = {name: np.load(folder / f"{name}.npy") for name in ("logits", "labels")}
    want = softxent.cross_entropy(**tensors, reduction="mean")
    assert want.gradient is not None
    assert read(folder, "gradient", output).tobytes() == want.gradient.tobytes()
    assert read(folder, "loss", output) == want.loss
    assert not (folder / output / ".softxent").exists()
