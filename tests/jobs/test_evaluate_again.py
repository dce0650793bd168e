"""The same `softxent evaluate` again: totals of what is finished, and never of another input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from job_support import batch, read, save
from typer.testing import CliRunner, Result

import softxent
from softxent_service.job_commands import app

ROWS, CLASSES = 4096, 10


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    given = batch(ROWS, CLASSES)
    given["labels"] %= CLASSES
    save(tmp_path, given)
    return tmp_path


def evaluate(folder: Path, *flags: str) -> Result:
    given = [str(folder / "logits.npy"), str(folder / "labels.npy"), f"--output={folder}/out"]
    return CliRunner().invoke(app, ["evaluate", *given, "--block-bytes=4000", *flags])


def test_a_finished_result_shows_its_totals_again(arrays: Path) -> None:
    first = evaluate(arrays)
    assert (first.exit_code, first.stderr) == (0, "")
    again = evaluate(arrays)
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
    # Blocks of another size make the same result.
    assert evaluate(arrays, "--block-bytes=5000").stdout == first.stdout
    other = evaluate(arrays, "--temperature=2", "--z-loss=0.1")
    assert other.exit_code == 1
    assert other.stderr == (
        f"softxent: file://{arrays}/out is finished already, with another temperature, z_loss;"
        " name another output, or remove it\n"
    )
    np.save(arrays / "other.npy", np.load(arrays / "labels.npy"))
    labels = str(arrays / "other.npy")
    given = ["evaluate", str(arrays / "logits.npy"), labels, f"--output={arrays}/out"]
    assert "already, with another labels; name" in CliRunner().invoke(app, given).stderr


def test_a_file_that_is_exported_again_after_a_failure_is_evaluated_whole(arrays: Path) -> None:
    good = np.load(arrays / "logits.npy")
    bad = good * 2
    bad[-1, 0] = np.nan
    np.save(arrays / "logits.npy", bad)
    failed = evaluate(arrays)
    assert failed.exit_code == 1
    assert f"rows {ROWS - 1} (NaN)" in failed.output
    np.save(arrays / "logits.npy", good)
    done = evaluate(arrays)
    assert done.exit_code == 0
    want = softxent.cross_entropy(good, np.load(arrays / "labels.npy"))
    assert read(arrays, "loss").tobytes() == np.asarray(want.loss).tobytes()
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert float(shown["loss_sum"]) == want.loss_sum


def test_a_finished_result_of_a_file_that_changed_is_refused(arrays: Path) -> None:
    assert evaluate(arrays).exit_code == 0
    np.save(arrays / "labels.npy", (np.load(arrays / "labels.npy") + 1) % CLASSES)
    again = evaluate(arrays)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is finished already, of labels that changed since" in again.stderr


def test_why_there_is_no_perplexity_is_shown(arrays: Path) -> None:
    shown = evaluate(arrays, "--z-loss=0.1").stdout
    assert "perplexity  None (z_loss is part of the loss)\n" in shown


def test_why_there_is_no_mean_is_shown(arrays: Path) -> None:
    shown = evaluate(arrays, "--scale=1e-44").stdout
    reason = (
        "weights times scale are below 7.9e-31 in every row, where float32 losses lose digits"
        " before the mean is divided; choose a larger scale"
    )
    assert f"mean        None ({reason})\nperplexity  None ({reason})\n" in shown
