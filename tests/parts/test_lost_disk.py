"""A disk that is full, or may not be written any more, in mid-job: told, and gone on with."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from parts_support import wait_for

import softxent

ROWS, CLASSES = 4000, 500


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB; mounting it needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, Any]:
    generator = np.random.default_rng(8)
    made: dict[str, Any] = {
        "logits": generator.normal(size=(ROWS, CLASSES)).astype(np.float32),
        "labels": generator.integers(0, CLASSES, ROWS),
    }
    for name, array in made.items():
        np.save(tmp_path / f"{name}.npy", array)
    return made


def evaluate(folder: Path, disk: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "softxent_service.cli", "evaluate"]
    command += [str(folder / "logits.npy"), str(folder / "labels.npy"), f"--output={disk}/out"]
    command += ["--outputs=loss,gradient", "--block-bytes=20000", "--threads=1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begun(disk: Path) -> bool:
    blocks = disk / "out" / ".softxent" / "blocks"
    return blocks.exists() and len(list(blocks.iterdir())) > 3


def check(tensors: dict[str, Any], disk: Path) -> None:
    whole = softxent.cross_entropy(**tensors)
    group: Any = zarr.open_group(str(disk / "out"), mode="r")
    assert whole.gradient is not None
    assert group["gradient"][:].tobytes() == whole.gradient.tobytes()
    assert group.attrs["loss_sum"] == whole.loss_sum


def test_a_full_disk(tmp_path: Path, disk: Path, tensors: dict[str, Any]) -> None:
    process = evaluate(tmp_path, disk)
    wait_for(lambda: begun(disk), "some blocks")
    with pytest.raises(OSError, match="No space left"):
        (disk / "other").write_bytes(b"\0" * (16 << 20))
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "cannot be written" in told
    assert "No space left on device" in told
    assert not (disk / "out" / "zarr.json").exists()
    (disk / "other").unlink()
    again = evaluate(tmp_path, disk)
    again.communicate(timeout=120)
    assert again.returncode == 0
    check(tensors, disk)


def test_a_disk_that_may_not_be_written(
    tmp_path: Path, disk: Path, tensors: dict[str, Any]
) -> None:
    process = evaluate(tmp_path, disk)
    wait_for(lambda: begun(disk), "some blocks")
    process.send_signal(signal.SIGSTOP)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    process.send_signal(signal.SIGCONT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "cannot be written: Read-only file system" in told
    assert not (disk / "out" / "zarr.json").exists()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    again = evaluate(tmp_path, disk)
    again.communicate(timeout=120)
    assert again.returncode == 0
    check(tensors, disk)
