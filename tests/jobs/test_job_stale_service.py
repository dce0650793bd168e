"""Over HTTP: a key, an output or a queue never makes an old result stand for a new input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from job_support import batch, read, save

import softxent
from service_process import Service

ROWS, CLASSES = 600, 20

HTTP = httpx.Client(timeout=60, verify=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stale")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "slow.npy", np.zeros((20_000, 300), np.float32))
    np.save(folder / "arrays" / "slow_labels.npy", np.zeros(20_000, np.int64))
    return folder


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    service = Service(f"--data={data}", "--block-bytes=8000", "--running-jobs=1")
    try:
        yield service.ready_url()
        assert service.end() == 0
    finally:
        service.clear()


@pytest.fixture
def arrays(data: Path, request: pytest.FixtureRequest) -> Path:
    folder: Path = data / "arrays" / request.node.name
    folder.mkdir()
    save(folder, batch(ROWS, CLASSES))
    return folder


def submit(url: str, folder: Path, key: str = "", **members: str) -> httpx.Response:
    names = {n: f"file://{folder}/{n}.npy" for n in ("logits", "labels")}
    asked = {**names, "output": f"file://{folder}/out", **members}
    headers = {"idempotency-key": key} if key else {}
    return HTTP.post(f"{url}/v1/jobs", json=asked, headers=headers)


def ended(url: str, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told: dict[str, Any] = HTTP.get(f"{url}/v1/jobs/{job_id}").json()
        if told["state"] in ("succeeded", "failed", "cancelled"):
            return told
        time.sleep(0.05)
    raise AssertionError(f"still {told}")


def spoil(folder: Path) -> Any:
    """Put a NaN in the last row; return the logits without it."""
    logits = np.load(folder / "logits.npy")
    bad = logits * 2
    bad[-1] = np.nan
    np.save(folder / "logits.npy", bad)
    labels = np.load(folder / "labels.npy")
    labels[-1] = 0
    np.save(folder / "labels.npy", labels)
    return logits


def expect_whole(folder: Path) -> None:
    want = softxent.cross_entropy(np.load(folder / "logits.npy"), np.load(folder / "labels.npy"))
    assert read(folder, "loss").tobytes() == np.asarray(want.loss).tobytes()


def test_a_key_is_refused_once_an_input_has_changed(url: str, arrays: Path) -> None:
    good = spoil(arrays)
    first = submit(url, arrays, "exported").json()["id"]
    failed = ended(url, first)
    assert failed["error"]["type"] == "urn:softxent:problem:non-finite-result"
    assert submit(url, arrays, "exported").json()["id"] == first
    np.save(arrays / "logits.npy", good)
    answer = submit(url, arrays, "exported")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:softxent:problem:idempotency-key-reused"
    assert f"{first}, and logits changed since; send a new key" in answer.json()["detail"]
    assert ended(url, submit(url, arrays, "again").json()["id"])["state"] == "succeeded"
    expect_whole(arrays)


def test_the_output_of_a_failed_job_begins_anew(url: str, arrays: Path) -> None:
    good = spoil(arrays)
    assert ended(url, submit(url, arrays).json()["id"])["state"] == "failed"
    np.save(arrays / "logits.npy", good)
    done = ended(url, submit(url, arrays).json()["id"])
    assert done["state"] == "succeeded"
    expect_whole(arrays)
    np.save(arrays / "labels.npy", np.load(arrays / "labels.npy")[::-1])
    refused = submit(url, arrays)
    assert refused.status_code == 409
    assert "is finished already, of labels that changed since" in refused.json()["detail"]


def test_an_input_that_changes_while_its_job_waits_fails_it(
    url: str, arrays: Path, data: Path
) -> None:
    slow = {
        "logits": f"file://{data}/arrays/slow.npy",
        "labels": f"file://{data}/arrays/slow_labels.npy",
    }
    before = submit(url, arrays, output=f"file://{arrays}/slow", **slow).json()["id"]
    job_id = submit(url, arrays).json()["id"]
    np.save(arrays / "labels.npy", np.load(arrays / "labels.npy")[::-1])
    HTTP.post(f"{url}/v1/jobs/{before}/cancel")
    error = ended(url, job_id)["error"]
    assert error["type"] == "urn:softxent:problem:input-changed"
    assert error["field"] == "labels"
    assert f"labels at file://{arrays}/labels.npy changed after the job was" in error["detail"]
    assert not (arrays / "out").exists()
