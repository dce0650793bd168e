"""Any part is killed in the middle of a job: it completes once the part is back, bit for bit."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import zarr
from parts_support import (
    BUCKET,
    Api,
    Part,
    Postgres,
    SeaweedFS,
    computed_twice,
    runner,
    scheduler,
    wait_for,
    worker,
)

import softxent
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder

KILLS = int(os.environ.get("KILLS", "3"))
ROWS, CLASSES, CHUNK = 6000, 500, 20
JOB_SECONDS = 180

PARTS = ("api", "runner", "worker", "scheduler", "postgres", "seaweedfs")


@dataclass
class Site:
    """All parts, and what the job over their arrays must come to."""

    parts: dict[str, Part]
    api: Api
    folder: Path
    wanted: str
    sums: tuple[float, float, int]
    seconds: float = 0.0

    def submit(self, output: str) -> str:
        root = f"s3://{BUCKET}"
        asked = {
            "logits": f"{root}/in/logits",
            "labels": f"{root}/in/labels.npy",
            "output": f"{root}/out/{output}",
            "outputs": ["loss", "gradient"],
            "reduction": "mean",
        }
        answer = httpx.post(
            f"{self.api.url}/v1/jobs", json=asked, headers={"idempotency-key": output}, timeout=120
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def show(self, job_id: str) -> dict[str, Any]:
        try:
            answer = httpx.get(f"{self.api.url}/v1/jobs/{job_id}", timeout=30)
        except httpx.TransportError:
            return {"state": "unknown", "progress": None}
        return dict(answer.json()) if answer.status_code == 200 else {"state": "unknown"}

    def ended(self, job_id: str) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            told = self.show(job_id)
            return told if told["state"] in ("succeeded", "failed", "cancelled") else None

        return dict(wait_for(ask, f"job {job_id}: {self.show(job_id)}", JOB_SECONDS))

    def check(self, job_id: str, output: str) -> None:
        told = self.ended(job_id)
        assert told["state"] == "succeeded", told["error"]
        assert digest(output) == self.wanted
        result = told["result"]
        assert (result["loss_sum"], result["weight_sum"], result["count"]) == self.sums
        assert computed_twice(self.folder, f"/{output}") == []


def store(path: str) -> Any:
    from obstore.store import S3Store

    return zarr.storage.ObjectStore(S3Store(BUCKET, prefix=path))


def digest(output: str) -> str:
    group = zarr.open_group(store(f"out/{output}"), mode="r")
    gradient, loss = group["gradient"], group["loss"]
    assert isinstance(gradient, zarr.Array)
    assert isinstance(loss, zarr.Array)
    data = np.asarray(gradient[:]).tobytes() + np.asarray(loss[()]).tobytes()
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not below pytest's own, which another run of pytest closes to PostgreSQL's user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    weed, postgres = SeaweedFS(folder), Postgres(folder)
    environment = weed.environment_of_clients
    manager, address = scheduler(folder)
    roots = f"s3://{BUCKET}"
    api = Api(folder, postgres.url, roots, environment, CHUNK * CLASSES * 4)
    parts: dict[str, Part] = {
        "seaweedfs": weed,
        "postgres": postgres,
        "scheduler": manager,
        "worker": worker(folder, 1, address, environment),
        "worker2": worker(folder, 2, address, environment),
        "runner": runner(folder, postgres.url, roots, address, environment),
        "api": api,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            for part in parts.values():
                part.start()
            yield prepared(Site(parts, api, folder, "", (0.0, 0.0, 0)))
        finally:
            for part in reversed(parts.values()):
                part.end()


def prepared(site: Site) -> Site:
    """Write the arrays, and run the job once without disturbance."""
    generator = np.random.default_rng(6)
    logits = (generator.normal(size=(ROWS, CLASSES)) * 5).astype(np.float32)
    labels = generator.integers(0, CLASSES, ROWS)
    zarr.create_array(store("in/logits"), data=logits, chunks=(CHUNK, CLASSES))
    from obstore.store import S3Store

    with (site.folder / "labels.npy").open("wb") as file:
        np.save(file, labels)
    S3Store(BUCKET).put("in/labels.npy", (site.folder / "labels.npy").read_bytes())
    whole = softxent.cross_entropy(logits, labels, reduction="mean")
    assert whole.gradient is not None
    data = whole.gradient.tobytes() + np.float64(whole.loss).tobytes()
    site.wanted = hashlib.sha256(data).hexdigest()
    site.sums = (whole.loss_sum, whole.weight_sum, whole.count)
    for name in ("warm", "undisturbed"):
        began = time.monotonic()
        site.check(site.submit(name), name)
        site.seconds = time.monotonic() - began
    return site


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("name", PARTS)
def test_a_job_survives(site: Site, name: str, kill: int) -> None:
    output = f"{name}-{kill}"
    chance = random.Random(f"{name} {kill}")
    part = site.parts[name]
    job_id = site.submit(output)
    time.sleep(chance.uniform(0, 0.9) * site.seconds)
    part.kill()
    time.sleep(chance.uniform(0, 1))
    part.start()
    site.check(job_id, output)


def test_a_removal_outlives_the_store_that_is_killed_under_it(site: Site) -> None:
    files = 1500
    folder = Folder(Place(f"s3://{BUCKET}", "removed"))
    with ThreadPoolExecutor() as pool:

        def fill() -> None:
            list(pool.map(lambda number: folder.write(f"x/{number}", b"some bytes"), range(files)))

        def remove() -> float:
            began = time.monotonic()
            folder.remove("x")
            return time.monotonic() - began

        fill()
        seconds = remove()
        fill()
        removed = pool.submit(remove)
        time.sleep(seconds / 2)
        assert not removed.done()
        site.parts["seaweedfs"].kill()
        site.parts["seaweedfs"].start()
        removed.result(JOB_SECONDS)
    assert list(folder.names("x")) == []


def test_two_runners_of_one_id_are_one(site: Site) -> None:
    second = site.parts["runner"]
    import subprocess

    done = subprocess.run(
        second.command,
        env={**os.environ, **second.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "a runner with the id local is running already" in done.stderr
