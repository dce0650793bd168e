"""Records of blocks vouch for the arrays that they were written with, and for no others."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from job_support import accepted, batch, begun, read, run, save
from typer.testing import CliRunner

import softxent
from softxent_service.job_commands import app
from softxent_service.jobs import engine
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError
from softxent_service.jobs.errors import OutputInUseError
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.result import Result

ROWS, CLASSES, BLOCK = 120, 8, 4
OUTPUTS = ["loss", "log_normalizer", "rank"]


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    given = batch(ROWS, CLASSES)
    given["labels"] %= CLASSES
    save(tmp_path, given)
    return tmp_path


def job_over(folder: Path, **members: Any) -> Job:
    return accepted(folder, BLOCK * CLASSES * 4, **{"outputs": OUTPUTS, **members})


def stopped(job: Job, cluster: Cluster) -> None:
    """Run a job until some of its blocks are committed, and nothing is written any more."""
    told: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "TICK_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            engine.run_job(
                job, cluster, told.append, lambda: bool(told) and told[-1].blocks_done >= 5
            )
    # Tasks that had begun still write.
    count = -1
    while (now := len(list(job.output.folder.rglob("*")))) != count:
        count = now
        time.sleep(0.3)


def want(folder: Path, **options: Any) -> Any:
    tensors = {name: np.load(folder / f"{name}.npy") for name in ("logits", "labels")}
    return softxent.cross_entropy(**tensors, outputs=tuple(OUTPUTS), **options)


def expect_whole(folder: Path) -> None:
    whole = want(folder)
    for name in OUTPUTS:
        assert read(folder, name).tobytes() == np.asarray(getattr(whole, name)).tobytes(), name


def removed(out: Path) -> None:
    shutil.rmtree(out / "loss")


def emptied(out: Path) -> None:
    removed(out)
    (out / "loss").mkdir()


def without_metadata(out: Path) -> None:
    (out / "loss" / "zarr.json").unlink()


def another_of_the_same_form(out: Path) -> None:
    removed(out)
    zarr.create_array(str(out / "loss"), data=np.zeros(ROWS, np.float32), chunks=(BLOCK,))


def of_another_result(out: Path) -> None:
    """Put an array of the same name, shape and dtype, written by a job of its own."""
    path = out / "loss" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["softxent"]["result"] = "0" * 32
    path.write_text(json.dumps(metadata))


def under_another_name(out: Path) -> None:
    removed(out)
    shutil.copytree(out / "log_normalizer", out / "loss")


def longer(out: Path) -> None:
    zarr.open_array(str(out / "loss"), mode="r+").resize((ROWS + 1,))


def cut_off(out: Path) -> None:
    path = out / "loss" / "zarr.json"
    path.write_bytes(path.read_bytes()[:100])


def a_group(out: Path) -> None:
    removed(out)
    zarr.create_group(str(out / "loss"))


Change = Callable[[Path], None]

GONE: dict[str, Change] = {
    change.__name__: change for change in (removed, emptied, without_metadata)
}
REPLACED: dict[str, Change] = {
    change.__name__: change
    for change in (
        another_of_the_same_form,
        of_another_result,
        under_another_name,
        longer,
        cut_off,
        a_group,
    )
}


@pytest.mark.parametrize("kind", GONE)
def test_a_half_done_result_without_an_array_begins_anew(
    arrays: Path, cluster: Cluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(job_over(arrays), cluster)
    caplog.set_level(logging.WARNING, logger="softxent.jobs")
    GONE[kind](arrays / "out")
    told: list[Progress] = []
    run(job_over(arrays), cluster, told.append)
    assert told[0].blocks_done == 0
    expect_whole(arrays)
    assert "begins anew: there is no array of it at loss" in caplog.text


@pytest.mark.parametrize("kind", REPLACED)
def test_a_half_done_result_with_another_array_is_refused_by_name(
    arrays: Path, cluster: Cluster, kind: str
) -> None:
    stopped(job_over(arrays), cluster)
    REPLACED[kind](arrays / "out")
    before = (arrays / "out" / "loss" / "zarr.json").read_bytes()
    expected = rf"loss at file://{arrays}/out/loss is not the array that the job wrote there; move"
    with pytest.raises(OutputInUseError, match=expected):
        Result(job_over(arrays)).check()
    with pytest.raises(JobFailedError, match=expected) as failed:
        run(job_over(arrays), cluster)
    assert failed.value.problem["type"] == "urn:softxent:problem:output-in-use"
    assert (arrays / "out" / "loss" / "zarr.json").read_bytes() == before
    removed(arrays / "out")
    run(job_over(arrays), cluster)
    expect_whole(arrays)


@pytest.mark.parametrize("kind", [kind for kind in REPLACED if kind != "longer"])
def test_an_array_of_others_is_kept_where_an_input_changed_too(
    arrays: Path, cluster: Cluster, kind: str
) -> None:
    stopped(job_over(arrays), cluster)
    REPLACED[kind](arrays / "out")
    (arrays / "labels.npy").touch()
    with pytest.raises(OutputInUseError, match="is not the array that the job wrote there"):
        Result(job_over(arrays)).check()
    assert (arrays / "out" / "loss" / "zarr.json").exists()


@pytest.mark.parametrize("kind", GONE)
def test_a_finished_result_without_an_array_shows_no_totals(
    arrays: Path, cluster: Cluster, kind: str
) -> None:
    run(job_over(arrays), cluster)
    assert Result(job_over(arrays)).done()
    GONE[kind](arrays / "out")
    expected = rf"out is finished already, but its array loss is gone; remove file://{arrays}/out"
    with pytest.raises(OutputInUseError, match=expected):
        Result(job_over(arrays)).done()
    with pytest.raises(JobFailedError, match=expected):
        run(job_over(arrays), cluster)


@pytest.mark.parametrize("kind", REPLACED)
def test_a_finished_result_with_another_array_shows_no_totals(
    arrays: Path, cluster: Cluster, kind: str
) -> None:
    run(job_over(arrays), cluster)
    REPLACED[kind](arrays / "out")
    with pytest.raises(OutputInUseError, match="is not the array that the job wrote there"):
        Result(job_over(arrays)).done()


@pytest.mark.parametrize("name", ["loss", "skipped_rows"])
def test_arrays_that_are_written_at_the_end_are_looked_at_too(
    arrays: Path, cluster: Cluster, name: str
) -> None:
    labels = np.load(arrays / "labels.npy")
    labels[3] = CLASSES
    np.save(arrays / "labels.npy", labels)
    members = {"outputs": ["loss"], "reduction": "sum", "on_error": "skip"}
    done = run(job_over(arrays, **members), cluster)
    assert Result(job_over(arrays, **members)).done() == done
    shutil.rmtree(arrays / "out" / name)
    with pytest.raises(OutputInUseError, match=f"its array {name} is gone"):
        Result(job_over(arrays, **members)).done()


def test_a_finished_result_of_a_release_without_identities_shows_its_totals(
    arrays: Path, cluster: Cluster
) -> None:
    run(job_over(arrays), cluster)
    for path in (arrays / "out").glob("**/zarr.json"):
        metadata = json.loads(path.read_text())
        metadata["attributes"].pop("id", None)
        if path.parent.name != "out":
            metadata["attributes"].pop("softxent", None)
        path.write_text(json.dumps(metadata))
    assert Result(job_over(arrays)).done()
    removed(arrays / "out")
    with pytest.raises(OutputInUseError, match="its array loss is gone"):
        Result(job_over(arrays)).done()


@pytest.mark.parametrize("kind", [*GONE, *REPLACED])
def test_an_array_that_goes_while_the_job_runs_fails_it(
    arrays: Path, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    done: list[str] = []

    def report(progress: Progress) -> None:
        # All is written, and the result not yet made whole.
        if progress.blocks_done == progress.blocks and not done:
            {**GONE, **REPLACED}[kind](arrays / "out")
            done.append(kind)

    with pytest.raises(JobFailedError, match="out/loss"):
        run(job_over(arrays), cluster, report)
    assert done
    assert not (arrays / "out" / "zarr.json").exists()
    shutil.rmtree(arrays / "out" / "loss", ignore_errors=True)
    run(job_over(arrays), cluster)
    expect_whole(arrays)


@pytest.mark.parametrize("data", [b"", b'{"format": 2', b"{}", b"[]", b'{"format": 2}', b"\xff"])
def test_a_job_file_that_is_damaged_is_refused(arrays: Path, cluster: Cluster, data: bytes) -> None:
    stopped(job_over(arrays), cluster)
    (arrays / "out" / ".softxent" / "job.json").write_bytes(data)
    with pytest.raises(OutputInUseError, match="holds no half-done result; name another, or rem"):
        Result(job_over(arrays)).check()


def test_records_of_an_earlier_beginning_are_not_believed(arrays: Path, cluster: Cluster) -> None:
    """A worker that hung commits a block of arrays that have been removed since."""
    stopped(job_over(arrays), cluster)
    old = begun(job_over(arrays))
    block = next(iter(Result(old).finished().done))
    record = Result(old).is_committed(block)
    assert record is not None
    removed(arrays / "out")
    stopped(job_over(arrays), cluster)
    (arrays / "out" / ".softxent" / "blocks" / f"{block:08d}").unlink(missing_ok=True)
    Result(old).commit(record)
    assert Result(begun(job_over(arrays))).is_committed(block) is None
    run(job_over(arrays), cluster)
    expect_whole(arrays)


def test_a_chunk_file_that_is_removed_reads_as_nan(arrays: Path, cluster: Cluster) -> None:
    """What Zarr reads in its place is no number that could be taken for a loss."""
    run(job_over(arrays), cluster)
    (arrays / "out" / "loss" / "c" / "3").unlink()
    losses = read(arrays, "loss")
    assert np.isnan(losses).nonzero()[0].tolist() == list(range(3 * BLOCK, 4 * BLOCK))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_command_computes_again_what_was_removed(tmp_path: Path) -> None:
    """The process is stopped by a signal, its array removed, and the command given again."""
    given = batch(60_000, 40)
    given["labels"] %= 40
    save(tmp_path, given)
    flags = [str(tmp_path / "logits.npy"), str(tmp_path / "labels.npy")]
    flags += [f"--output={tmp_path}/out", "--block-bytes=16000"]
    command = [sys.executable, "-m", "softxent_service.cli", "evaluate", *flags, "--threads=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    blocks = tmp_path / "out" / ".softxent" / "blocks"
    wait_for(lambda: blocks.exists() and len(list(blocks.iterdir())) > 20, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    removed(tmp_path / "out")
    again = CliRunner().invoke(app, ["evaluate", *flags])
    assert again.exit_code == 0, again.output
    whole = softxent.cross_entropy(**given)
    assert read(tmp_path, "loss").tobytes() == np.asarray(whole.loss).tobytes()
    removed(tmp_path / "out")
    totals = CliRunner().invoke(app, ["evaluate", *flags])
    assert totals.exit_code != 0
    assert totals.stdout == ""
    assert "its array loss is gone" in " ".join(totals.stderr.split())
