"""A job that ended half way goes on: what is committed is kept, what is not is not believed."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import accepted, batch, begun, read, run, save

import softxent
from softxent_service.jobs import engine
from softxent_service.jobs.block_result import Finished, Tally
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError
from softxent_service.jobs.errors import NumericsError, OutputInUseError, StorageError
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.histogram import Histogram
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.result import Result

ROWS, CLASSES, BLOCK = 400, 20, 10


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    save(tmp_path, batch(ROWS, CLASSES))
    return tmp_path


def job_over(folder: Path, **members: Any) -> Job:
    members = {"outputs": ["loss", "gradient"], "reduction": "mean", **members}
    return accepted(folder, block_bytes=BLOCK * CLASSES * 4, **members)


def stop_after(job: Job, cluster: Cluster, blocks: int) -> set[str]:
    """Run a job until some blocks are committed; return the records there are then."""
    told: list[Progress] = []

    def stops() -> bool:
        return bool(told) and told[-1].blocks_done >= blocks

    with pytest.MonkeyPatch.context() as patch:
        # A report for every block.
        patch.setattr(engine, "TICK_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            engine.run_job(job, cluster, told.append, stops)
    return records(job)


def records(job: Job) -> set[str]:
    """Return what is committed; tasks that had begun may still write further records."""
    names = {path.name for path in (job.output.folder / ".softxent" / "blocks").iterdir()}
    return {name for name in names if name.isdigit()}


def whole(folder: Path) -> Any:
    tensors = {n: np.load(folder / f"{n}.npy") for n in ("logits", "labels")}
    return softxent.cross_entropy(**tensors, reduction="mean")


def began(caplog: pytest.LogCaptureFixture) -> Counter[int]:
    return Counter(int(found[1]) for found in re.finditer(r"block (\d+) begins", caplog.text))


def test_a_job_that_was_stopped_goes_on(
    arrays: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="softxent.jobs")
    done = stop_after(job_over(arrays), cluster, 10)
    assert 10 <= len(done) < ROWS // BLOCK
    assert not (arrays / "out" / "zarr.json").exists()
    before = {int(name) for name in records(job_over(arrays))}
    caplog.clear()
    told: list[Progress] = []
    run(job_over(arrays), cluster, told.append)
    assert told[0].blocks_done >= len(done)
    assert not before & set(began(caplog))
    want = whole(arrays)
    assert read(arrays, "gradient").tobytes() == want.gradient.tobytes()
    assert read(arrays, "loss") == want.loss


def test_progress_reaches_the_end(arrays: Path, cluster: Cluster) -> None:
    told: list[Progress] = []
    run(job_over(arrays), cluster, told.append)
    assert (told[0].rows_done, told[-1].rows_done) == (0, ROWS)
    assert told[-1].blocks_done == told[-1].blocks == ROWS // BLOCK
    assert all(a.rows_done <= b.rows_done for a, b in itertools.pairwise(told))


def test_a_block_without_a_record_is_computed_again(arrays: Path, cluster: Cluster) -> None:
    job = job_over(arrays)
    stop_after(job, cluster, 10)
    folder = arrays / "out" / ".softxent" / "blocks"
    for name, data in (("00000001", b""), ("00000002", b'{"block": 2}'), ("00000003", b"{")):
        (folder / name).write_bytes(data)
    first = np.load(arrays / "logits.npy")[:1]
    garbage = arrays / "out" / "gradient" / "c" / "1" / "0"
    garbage.parent.mkdir(parents=True, exist_ok=True)
    garbage.write_bytes(first.tobytes())
    run(job, cluster)
    assert read(arrays, "gradient").tobytes() == whole(arrays).gradient.tobytes()


def test_a_record_that_is_being_written_is_none_yet(arrays: Path, cluster: Cluster) -> None:
    """Workers of a runner that died may still commit, while the next one reads what there is."""
    job = job_over(arrays)
    stop_after(job, cluster, 5)
    result, ends = Result(begun(job)), threading.Event()
    block = next(iter(result.finished().done))
    record = result.is_committed(block)
    assert record is not None

    def commits() -> None:
        while not ends.is_set():
            result.commit(record)

    worker = threading.Thread(target=commits)
    worker.start()
    try:
        for _ in range(100):
            assert block in result.finished().done
    finally:
        ends.set()
        worker.join()


def test_what_a_late_worker_writes_stops_no_end(arrays: Path, cluster: Cluster) -> None:
    job = job_over(arrays)
    stop_after(job, cluster, 5)
    result = Result(begun(job))
    block = next(iter(result.finished().done))
    record = result.is_committed(block)
    assert record is not None
    begins = threading.Event()

    def commits() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with contextlib.suppress(StorageError):
                result.commit(record)
            begins.set()

    worker = threading.Thread(target=commits)
    worker.start()
    begins.wait()
    while worker.is_alive():
        result.clean()
    result.clean()
    assert not (arrays / "out" / ".softxent").exists()


def test_what_a_dead_writer_left_is_removed_at_the_end(arrays: Path, cluster: Cluster) -> None:
    job = job_over(arrays)
    stop_after(job, cluster, 5)
    half = arrays / "out" / "gradient" / "c" / "1" / "0.5bf1.partial"
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half")
    run(job, cluster)
    assert not list((arrays / "out").rglob("*.partial"))
    assert read(arrays, "gradient").tobytes() == whole(arrays).gradient.tobytes()


def test_the_last_words_may_be_missing(arrays: Path, cluster: Cluster) -> None:
    """A process that died between the group and the end of its own record finds the result."""
    job = job_over(arrays)
    attributes = run(job, cluster)
    Result(job).begin(job.open()["logits"], 320.0)
    assert run(job, cluster) == attributes
    assert not (arrays / "out" / ".softxent").exists()


def test_a_finished_result_is_not_overwritten(arrays: Path, cluster: Cluster) -> None:
    run(job_over(arrays), cluster)
    for members in ({}, {"temperature": 2.0}):
        with pytest.raises(OutputInUseError, match="finished already"):
            Result(job_over(arrays, **members)).check()


def test_the_half_done_result_of_another_job_is_not_gone_on_with(
    arrays: Path, cluster: Cluster
) -> None:
    stop_after(job_over(arrays), cluster, 5)
    with pytest.raises(OutputInUseError, match="another job, with another temperature"):
        Result(job_over(arrays, temperature=2.0)).check()
    with pytest.raises(JobFailedError, match="another job"):
        run(job_over(arrays, temperature=2.0), cluster)
    with pytest.raises(OutputInUseError, match="blocks of another size"):
        Result(accepted(arrays, 1 << 15, outputs=["loss", "gradient"], reduction="mean")).check()


def test_other_files_are_not_written_between(arrays: Path) -> None:
    (arrays / "out").mkdir()
    (arrays / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputInUseError, match="is not empty"):
        Result(job_over(arrays)).check()


def test_other_numerics_refuse_a_half_done_job(
    arrays: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_over(arrays)
    stop_after(job, cluster, 5)
    monkeypatch.setattr(softxent, "NUMERICS_VERSION", softxent.NUMERICS_VERSION + 1)
    with pytest.raises(NumericsError, match="begun with numerics"):
        Result(job).check()
    with pytest.raises(JobFailedError) as failed:
        run(job, cluster)
    assert failed.value.problem["type"] == "urn:softxent:problem:numerics-changed"


def test_a_worker_with_other_numerics_computes_nothing(arrays: Path) -> None:
    from softxent_service.jobs.blocks import Fault, evaluate_block

    outcome = evaluate_block(job_over(arrays), 0, softxent.NUMERICS_VERSION + 1)
    assert isinstance(outcome, Fault)
    assert outcome.slug == "numerics-changed"
    assert not (arrays / "out").exists()


def test_a_block_that_is_committed_is_not_computed_twice(arrays: Path, cluster: Cluster) -> None:
    from softxent_service.jobs.blocks import evaluate_block

    job = job_over(arrays)
    stop_after(job, cluster, 10)
    (arrays / "logits.npy").unlink()
    committed = evaluate_block(begun(job), 0, softxent.NUMERICS_VERSION)
    assert isinstance(committed, Finished)
    assert committed.block == 0


def test_records_hold_exact_sums() -> None:
    from softxent.blockwise.rows import evaluate_part

    given = batch(7, 5)
    sums = evaluate_part(given, softxent.Options(outputs=("loss",))).sums
    histogram = Histogram.of(np.array([0.5, 1.0, 1.0]))
    block = Finished(3, sums, histogram, 2, (1, 5))
    again = Finished.from_bytes(block.to_bytes("a job"), "a job")
    assert again.sums.loss_sum == sums.loss_sum
    assert (again.block, again.correct, again.skipped) == (3, 2, (1, 5))
    assert (again.histogram.counts == histogram.counts).all()
    with pytest.raises(ValueError, match="of another job"):
        Finished.from_bytes(block.to_bytes("another job"), "a job")
    assert len(json.loads(block.to_bytes("a job"))["losses"]) < 10
    tally = Tally()
    tally.add(block)
    tally.add(again)
    assert tally.sums.loss_sum == sums.loss_sum
    tally.add(Finished(4, sums, histogram))
    assert tally.sums.loss_sum == 2 * sums.loss_sum
    assert tally.histogram.rows == 6
    assert (tally.correct, tally.skipped) == (None, [1, 5])
