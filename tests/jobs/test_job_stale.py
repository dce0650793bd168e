"""A result is of the inputs that its records name: changed ones begin anew, or are refused."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from job_support import Tensors, accepted, batch, begun, read, run, save

import softxent
from softxent_service.jobs import blocks, engine
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError
from softxent_service.jobs.errors import InputChangedError, OutputInUseError
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.result import Result

ROWS, CLASSES, BLOCK = 120, 8, 4
Change = Callable[[Path], None]


def tensors() -> Tensors:
    mask = np.ones(CLASSES, bool)
    given = batch(ROWS, CLASSES)
    given["labels"] %= CLASSES - 1
    return {**given, "row_weights": np.ones(ROWS), "class_mask": mask}


def top_k() -> Tensors:
    return {
        "logits": tensors()["logits"],
        "target_indices": np.tile(np.arange(3), (ROWS, 1)),
        "target_log_probabilities": np.tile(np.log([0.5, 0.25, 0.25]), (ROWS, 1)),
    }


def job_over(folder: Path, **members: Any) -> Job:
    return accepted(folder, BLOCK * CLASSES * 4, outputs=["loss", "gradient"], **members)


def stopped(job: Job, cluster: Cluster) -> None:
    """Run a job until some of its blocks are committed."""
    told: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "TICK_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            engine.run_job(
                job, cluster, told.append, lambda: bool(told) and told[-1].blocks_done >= 5
            )


def expect_whole(folder: Path, out: str = "out", **members: Any) -> None:
    """Check that a result is, to the bit, that of the files that lie there now."""
    given: Tensors = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    if (folder / "logits.zarr").exists():
        array = zarr.open_array(str(folder / "logits.zarr"), mode="r")
        given["logits"] = np.asarray(array[...])
    want = softxent.cross_entropy(**given, **members)
    for name in ("loss", "gradient"):
        assert read(folder, name, out).tobytes() == getattr(want, name).tobytes()


def values_changed(path: Path, *where: int) -> Any:
    values = np.load(path)
    values[where] = values[where] / 2 if values.dtype.kind == "f" else values[where] ^ 1
    return values


def edited(name: str) -> Change:
    """Change one value of an array where it lies."""

    def change(folder: Path) -> None:
        path = folder / f"{name}.npy"
        np.save(path, values_changed(path, *(0 for _ in np.load(path).shape)))

    return change


def edited_in_secret(folder: Path) -> None:
    """Change one number in place, and set the time of modification back."""
    path = folder / "logits.npy"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def renamed_over(folder: Path) -> None:
    """Put another file of the same size and time in the place of one."""
    path = folder / "logits.npy"
    before = path.stat()
    np.save(folder / "new.npy", values_changed(path, 0, 0))
    os.utime(folder / "new.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "new.npy").rename(path)


def exported_again(folder: Path) -> None:
    np.save(folder / "logits.npy", np.load(folder / "logits.npy") + np.float32(1))


def exported_wider(folder: Path) -> None:
    np.save(folder / "logits.npy", np.load(folder / "logits.npy").astype(np.float64))


def appended(folder: Path) -> None:
    for path in folder.glob("*.npy"):
        if path.stem != "class_mask":
            np.save(path, np.concatenate([np.load(path), np.load(path)[:BLOCK]]))


def touched(folder: Path) -> None:
    (folder / "labels.npy").touch()


CHANGES: dict[str, Change] = {
    "re-export": exported_again,
    "re-export wider": exported_wider,
    "replace": renamed_over,
    "append": appended,
    "touch": touched,
    "one label": edited("labels"),
    "one weight": edited("row_weights"),
    "the mask": lambda folder: np.save(
        folder / "class_mask.npy", np.arange(CLASSES) != CLASSES - 1
    ),
    "same size and time": edited_in_secret,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_half_done_result_begins_anew(
    tmp_path: Path, cluster: Cluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, tensors())
    stopped(job_over(tmp_path), cluster)
    # Dask's cluster, made by then, raises the level of handlers.
    caplog.set_level(logging.WARNING, logger="softxent.jobs")
    CHANGES[kind](tmp_path)
    run(job_over(tmp_path), cluster)
    expect_whole(tmp_path)
    assert "begins anew" in caplog.text


@pytest.mark.parametrize("name", ["target_indices", "target_log_probabilities", "logits"])
def test_so_it_is_with_targets_of_the_largest(tmp_path: Path, cluster: Cluster, name: str) -> None:
    given = top_k()
    save(tmp_path, given)
    members = {"tail": "renormalize"}
    stopped(job_over(tmp_path, **members), cluster)
    changed = {"target_indices": given[name] + 2, "logits": given[name] / 2}
    np.save(tmp_path / f"{name}.npy", changed.get(name, given[name][:, ::-1]))
    run(job_over(tmp_path, **members), cluster)
    expect_whole(tmp_path, **members)


def chunk_replaced(folder: Path) -> None:
    """Write the last chunk again, in secret: its length and time are those of before."""
    path = folder / "logits.zarr" / "c" / "29" / "0"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(3).tobytes()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def chunk_removed(folder: Path) -> None:
    (folder / "logits.zarr" / "c" / "29" / "0").unlink()


def array_replaced(folder: Path) -> None:
    shutil.rmtree(folder / "logits.zarr")
    save_plain_zarr(folder, tensors()["logits"] * 2)


def save_plain_zarr(folder: Path, values: Any) -> None:
    """Write chunks as they are, so that a test can change a number in one."""
    zarr.create_array(
        str(folder / "logits.zarr"), data=values, chunks=(BLOCK, CLASSES), compressors=None
    )


ZARR_CHANGES = {"a chunk": chunk_replaced, "a chunk less": chunk_removed, "all": array_replaced}


@pytest.mark.parametrize("kind", ZARR_CHANGES)
def test_chunks_of_zarr_are_looked_at(tmp_path: Path, cluster: Cluster, kind: str) -> None:
    given = tensors()
    save_plain_zarr(tmp_path, given.pop("logits"))
    save(tmp_path, given)
    stopped(job_over(tmp_path), cluster)
    ZARR_CHANGES[kind](tmp_path)
    run(job_over(tmp_path), cluster)
    expect_whole(tmp_path)


def test_inputs_that_are_as_they_were_go_on(tmp_path: Path, cluster: Cluster) -> None:
    given = tensors()
    save_plain_zarr(tmp_path, given.pop("logits"))
    save(tmp_path, given)
    stopped(job_over(tmp_path), cluster)
    told: list[Progress] = []
    run(job_over(tmp_path), cluster, told.append)
    assert told[0].blocks_done >= 5
    expect_whole(tmp_path)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_finished_result_is_refused_by_name(tmp_path: Path, cluster: Cluster, kind: str) -> None:
    save(tmp_path, tensors())
    run(job_over(tmp_path), cluster)
    before = read(tmp_path, "loss")
    CHANGES[kind](tmp_path)
    with pytest.raises(OutputInUseError, match=r"finished already, of .* that changed since"):
        Result(job_over(tmp_path)).check()
    with pytest.raises(JobFailedError, match="that changed since"):
        run(job_over(tmp_path), cluster)
    assert read(tmp_path, "loss").tobytes() == before.tobytes()


def after_blocks(count: int, change: Callable[[], object]) -> Callable[[Progress], None]:
    """Return a report that makes a change once some blocks are done."""
    done: list[object] = []

    def report(progress: Progress) -> None:
        if progress.blocks_done >= count and not done:
            done.append(change())

    return report


@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind != "append"])
def test_an_input_that_changes_meanwhile_fails_the_job_by_name(
    tmp_path: Path, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    save(tmp_path, tensors())
    job = job_over(tmp_path)
    with pytest.raises(JobFailedError) as failed:
        run(job, cluster, after_blocks(3, lambda: CHANGES[kind](tmp_path)))
    assert failed.value.problem["type"] == "urn:softxent:problem:input-changed"
    assert failed.value.problem["field"] in dict(job.places)
    assert not (tmp_path / "out" / "zarr.json").exists()
    run(job_over(tmp_path), cluster)
    expect_whole(tmp_path)


@pytest.mark.parametrize("kind", ZARR_CHANGES)
def test_a_chunk_that_changes_meanwhile_fails_the_job(
    tmp_path: Path, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    given = tensors()
    save_plain_zarr(tmp_path, given.pop("logits"))
    save(tmp_path, given)
    with pytest.raises(JobFailedError, match=r"changed after the job was|there is no array"):
        run(job_over(tmp_path), cluster, after_blocks(1, lambda: ZARR_CHANGES[kind](tmp_path)))
    run(job_over(tmp_path), cluster)
    expect_whole(tmp_path)


def test_a_change_before_the_first_block_fails_the_job(tmp_path: Path, cluster: Cluster) -> None:
    save(tmp_path, tensors())
    job = job_over(tmp_path)
    exported_again(tmp_path)
    with pytest.raises(JobFailedError, match=r"logits at file:///.* changed after the job was"):
        run(job, cluster)


def test_what_follows_from_a_change_is_told_as_the_change(tmp_path: Path) -> None:
    """The file is shorter now, and a block of it cannot be read: because it changed."""
    save(tmp_path, tensors())
    job = job_over(tmp_path).begun(None)
    Result(job).begin(job.open()["logits"], None)
    blocks.evaluate_block(job, 0, softxent.NUMERICS_VERSION)
    os.truncate(tmp_path / "logits.npy", 200)
    fault = blocks.evaluate_block(job, 20, softxent.NUMERICS_VERSION)
    assert isinstance(fault, blocks.Fault)
    assert (fault.slug, fault.details["field"]) == ("input-changed", "logits")


def test_what_a_late_worker_commits_of_old_inputs_is_not_believed(
    tmp_path: Path, cluster: Cluster
) -> None:
    save(tmp_path, tensors())
    old = job_over(tmp_path)
    stopped(old, cluster)
    old = begun(old)
    record = Result(old).is_committed(0)
    assert record is not None
    exported_again(tmp_path)
    new = job_over(tmp_path).begun(None)
    Result(new).clear()
    Result(new).begin(new.open()["logits"], None)
    Result(old).commit(record)
    assert Result(new).is_committed(0) is None
    assert Result(new).finished().done == set()
    late = blocks.evaluate_block(old, 7, softxent.NUMERICS_VERSION)
    assert isinstance(late, blocks.Fault)
    assert late.slug == "input-changed"
    run(job_over(tmp_path), cluster)
    expect_whole(tmp_path)


def test_rows_left_out_of_the_old_input_are_not_those_of_the_new(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that died after it had listed them leaves the list behind."""
    given = batch(ROWS, CLASSES)
    good = given["labels"].copy()
    given["labels"][3] = 99
    save(tmp_path, given)
    with monkeypatch.context() as patch:
        patch.setattr("softxent_service.jobs.result.GROUP", "never/zarr.json")
        patch.setattr(Result, "clean", lambda _: None)
        run(job_over(tmp_path, on_error="skip"), cluster)
    shutil.rmtree(tmp_path / "out" / "never")
    np.save(tmp_path / "labels.npy", good)
    run(job_over(tmp_path, on_error="skip"), cluster)
    assert "skipped_rows" not in zarr.open_group(str(tmp_path / "out"), mode="r")
    expect_whole(tmp_path)


def test_an_array_that_is_replaced_is_not_read_by_its_old_form(tmp_path: Path) -> None:
    save(tmp_path, tensors())
    job = job_over(tmp_path)
    exported_wider(tmp_path)
    with pytest.raises(InputChangedError) as refused:
        job.open()
    assert refused.value.field == "logits"
