"""`softxent evaluate`: a job in one process, as a person at a terminal runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import attributes_of, batch, read, save
from typer.testing import CliRunner

import softxent
from softxent_service.job_commands import app

COMMAND = (sys.executable, "-m", "softxent_service.cli", "evaluate")


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    save(tmp_path, batch(500, 40, np.float16))
    return tmp_path


def test_it_writes_the_result_and_tells_the_sums(arrays: Path) -> None:
    done = evaluate(
        arrays / "logits.npy",
        arrays / "labels.npy",
        f"--output={arrays}/out",
        "--outputs=loss,correct",
        "--block-bytes=4000",
        "--temperature=2",
    )
    assert (done.returncode, done.stderr) == (0, "")
    tensors = {n: np.load(arrays / f"{n}.npy") for n in ("logits", "labels")}
    want = softxent.cross_entropy(**tensors, outputs=("loss", "correct"), temperature=2.0)
    assert want.loss is not None
    assert read(arrays, "loss").tobytes() == np.asarray(want.loss).tobytes()
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert float(shown["loss_sum"]) == want.loss_sum
    assert float(shown["accuracy"]) == want.correct.sum() / want.count  # type: ignore[union-attr]
    assert shown["result"] == f"file://{arrays}/out"
    assert attributes_of(arrays)["options"]["temperature"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--temperature=-1"], 2, "temperature must be finite and > 0"),
        (["--outputs=losses"], 2, "unknown output 'losses'"),
        (["--on-error=retry"], 2, "on_error must be one of fail, skip"),
        (["--labels=x"], 2, "No such option"),
        (["--block-bytes=1"], 2, "SOFTXENT_BLOCK_BYTES"),
        (["--tail=bucket"], 2, "tail applies only to top-k targets"),
    ],
)
def test_a_wrong_use_is_told(arrays: Path, arguments: list[str], status: int, text: str) -> None:
    given = [arrays / "logits.npy", arrays / "labels.npy", f"--output={arrays}/out"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, given), *arguments])
    assert (done.exit_code, done.stdout) == (status, "")
    assert text in " ".join(done.stderr.split())
    assert not (arrays / "out").exists()


@pytest.mark.parametrize(
    ("flags", "changed", "line"),
    [
        (["--row-weights=nothing.npy"], {}, "there is no array at file://{here}/nothing.npy"),
        ([], {"labels": np.full(500, 40)}, "labels must lie in [0, 40)"),
        ([], {"labels": np.zeros(499, np.int64)}, "labels has shape [499]; the logits ask for [5"),
        ([], {"logits": np.zeros(500)}, "logits must have at least 2 dimensions"),
        (["--output={arrays}/logits.npy/x"], {}, "output and logits lie in one another"),
    ],
)
def test_arrays_at_fault_are_told_in_one_line(
    arrays: Path, flags: list[str], changed: dict[str, Any], line: str
) -> None:
    for name, values in changed.items():
        np.save(arrays / f"{name}.npy", values)
    given = [arrays / "logits.npy", arrays / "labels.npy", f"--output={arrays}/out"]
    told = [flag.replace("{arrays}", str(arrays)) for flag in flags]
    done = CliRunner().invoke(app, ["evaluate", *map(str, given), *told])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"softxent: {line.replace('{here}', str(Path.cwd()))}")
    assert not (arrays / "out").exists()


def test_a_refused_label_is_named(arrays: Path) -> None:
    labels = np.load(arrays / "labels.npy")
    labels[7] = 40
    np.save(arrays / "labels.npy", labels)
    given = [arrays / "logits.npy", arrays / "labels.npy", f"--output={arrays}/out"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, given)])
    assert done.exit_code == 1
    assert done.stderr.endswith("; rows 7 (40)\n")
    assert done.stderr.count("\n") == 1


def test_a_failure_names_the_rows(arrays: Path) -> None:
    logits = np.load(arrays / "logits.npy")
    logits[313, 5] = np.nan
    np.save(arrays / "logits.npy", logits)
    labels = np.load(arrays / "labels.npy")
    labels[313] = 3
    np.save(arrays / "labels.npy", labels)
    done = evaluate(arrays / "logits.npy", arrays / "labels.npy", f"--output={arrays}/out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "rows 313 (NaN)" in done.stderr


def test_a_signal_stops_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    save(tmp_path, batch(60_000, 40))
    given: list[str | Path] = [
        tmp_path / "logits.npy",
        tmp_path / "labels.npy",
        f"--output={tmp_path}/out",
    ]
    command = [*COMMAND, *map(str, given), "--block-bytes=1600", "--threads=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    blocks = tmp_path / "out" / ".softxent" / "blocks"
    deadline = time.monotonic() + 120
    while not (blocks.exists() and any(blocks.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the same command goes on from here" in told
    done = len(list(blocks.iterdir()))
    assert 0 < done < 6000
    # Another size of blocks would be another plan.
    again = evaluate(*given, "--block-bytes=3200")
    assert (again.returncode, again.stdout) == (1, "")
    assert "a half-done result in blocks of another size" in " ".join(again.stderr.split())
