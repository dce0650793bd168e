"""Every error of jobs, provoked: its sentence is true of its case and says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import accepted, batch, save, specification

import softxent
from softxent.errors import SoftxentError
from softxent_service.jobs import blocks, errors
from softxent_service.jobs.arrays import open_array
from softxent_service.jobs.errors import (
    IdempotencyError,
    InputChangedError,
    JobsUnavailableError,
    LocationError,
    MissingArrayError,
    NumericsError,
    OutputInUseError,
    QueueFullError,
    SpecificationError,
    StorageError,
    TransitionError,
    UnknownJobError,
)
from softxent_service.jobs.records import Records, database_url
from softxent_service.jobs.result import Result
from softxent_service.jobs.roots import Place, Roots
from softxent_service.jobs.service import JobService
from softxent_service.jobs.specification import Specification
from softxent_service.jobs.states import after
from softxent_service.settings import Settings

ROWS, CLASSES = 24, 5
Case = Callable[[Path], object]


def records(folder: Path) -> Records:
    return Records(database_url(None, folder / "data"))


def unknown_member(_: Path) -> None:
    Specification.from_json({"logits": "file:///a", "output": "file:///b", "lables": "file:///c"})


def skip_without_denominator(folder: Path) -> None:
    specification(folder, on_error="skip", reduction="mean", outputs=["gradient"])


def other_scheme(_: Path) -> None:
    Roots(["file:///data"]).place("https://host/logits.npy", "logits")


def outside_the_roots(_: Path) -> None:
    Roots(["file:///data"]).place("file:///etc/passwd", "labels")


def link_out(folder: Path) -> None:
    (folder / "out.npy").symlink_to("/etc/passwd")
    Roots([f"file://{folder}"]).place(f"file://{folder}/out.npy", "labels")


def key_of_another_job(folder: Path) -> None:
    with_key = records(folder)
    try:
        with_key.submit(accepted(folder), 1000, "a key")
        with_key.submit(accepted(folder, temperature=2.0), 1000, "a key")
    finally:
        with_key.close()


def key_of_other_inputs(folder: Path) -> None:
    with_key = records(folder)
    try:
        with_key.submit(accepted(folder), 1000, "a key")
        np.save(folder / "labels.npy", np.zeros(ROWS, np.int64))
        with_key.submit(accepted(folder), 1000, "a key")
    finally:
        with_key.close()


def no_array(folder: Path) -> None:
    open_array(Place(f"file://{folder}", "absent.npy"), "labels")


def another_format(folder: Path) -> None:
    np.savez(folder / "logits.npz", np.zeros(3))
    open_array(Place(f"file://{folder}", "logits.npz"), "logits")


def cut_off(folder: Path) -> None:
    os.truncate(folder / "logits.npy", 200)
    accepted(folder)


def changed_input(folder: Path) -> None:
    job = accepted(folder)
    (folder / "labels.npy").touch()
    job.open()


def output_of_others(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("mine")
    Result(accepted(folder)).check()


def half_done(folder: Path) -> None:
    job = accepted(folder).begun(None)
    Result(job).begin(job.open()["logits"], None)


def output_of_another_job(folder: Path) -> None:
    half_done(folder)
    Result(accepted(folder, temperature=2.0)).check()


def output_in_other_blocks(folder: Path) -> None:
    half_done(folder)
    Result(accepted(folder, block_bytes=2 * CLASSES * 4)).check()


def output_of_a_queued_job(folder: Path) -> None:
    two = records(folder)
    try:
        two.submit(accepted(folder), 1000)
        two.submit(accepted(folder), 1000)
    finally:
        two.close()


def worker_of_other_numerics(folder: Path) -> None:
    fault = blocks.evaluate_block(accepted(folder), 0, softxent.NUMERICS_VERSION + 1)
    assert isinstance(fault, blocks.Fault)
    assert fault.slug == NumericsError.slug
    raise NumericsError(fault.message)


def result_of_other_numerics(folder: Path) -> None:
    half_done(folder)
    path = folder / "out" / ".softxent" / "job.json"
    begun, here = f'"numerics": {softxent.NUMERICS_VERSION}', '"numerics": 1'
    assert begun in path.read_text()
    path.write_text(path.read_text().replace(begun, here))
    Result(accepted(folder)).check()


def full_queue(folder: Path) -> None:
    settings = Settings(data=folder / "data", roots=f"file://{folder}", queued_jobs=1)
    full = records(folder)
    try:
        service = JobService(settings, full)
        service.submit(specification(folder).to_json())
        service.submit(specification(folder, output="other").to_json())
    finally:
        full.close()


def unknown_job(folder: Path) -> None:
    empty = records(folder)
    try:
        empty.show("nobody")
    finally:
        empty.close()


def cancelled_after_its_end(_: Path) -> None:
    after("succeeded", "cancel")


def database_that_cannot_be_opened(folder: Path) -> None:
    (folder / "data" / "jobs.sqlite").mkdir(parents=True)
    Records(database_url(None, folder / "data")).prepare()


def data_that_is_a_file(folder: Path) -> None:
    (folder / "data").write_text("no directory")
    database_url(None, folder / "data")


def database_that_is_not_there(_: Path) -> None:
    Records("postgresql://nobody:secret@127.0.0.1:1/none").prepare()


USER = rf"data/jobs.sqlite, by user {os.getuid()} of group {os.getgid()}\); let this user write"
HERE = softxent.NUMERICS_VERSION

CASES: list[tuple[Case, type[SoftxentError], str | None, str]] = [
    (unknown_member, SpecificationError, "lables", r"unknown member 'lables'; known are logits, "),
    (skip_without_denominator, SpecificationError, "denominator", "skip .* needs a denominator: "),
    (other_scheme, LocationError, "logits", r"must be a file:// or s3:// URL, not 'https://host/"),
    (outside_the_roots, LocationError, "labels", "below none of the roots; they are file:///data"),
    (link_out, LocationError, "labels", "labels leads out of its root by a symbolic link"),
    (key_of_another_job, IdempotencyError, "idempotency-key", "with another job, .*; send a new"),
    (key_of_other_inputs, IdempotencyError, "idempotency-key", "labels changed since; send a new"),
    (no_array, MissingArrayError, "labels", "there is no array at file:///.*absent.npy"),
    (another_format, StorageError, "logits", r"logits\.npz is .*\.npz"),
    (cut_off, StorageError, "logits", rf"has 200 bytes, which is not .*\[{ROWS}, {CLASSES}\]"),
    (changed_input, InputChangedError, "labels", "labels at .* changed .*; submit the job again"),
    (output_of_others, OutputInUseError, "output", "not empty and holds no half-done .*; name"),
    (output_of_another_job, OutputInUseError, "output", "with another temperature; name another"),
    (output_in_other_blocks, OutputInUseError, "output", "blocks of another size; give the block_"),
    (output_of_a_queued_job, OutputInUseError, "output", r"writes to file://.*/out is queued or"),
    (
        worker_of_other_numerics,
        NumericsError,
        None,
        rf"numerics {HERE}, the runner {HERE + 1}; run",
    ),
    (result_of_other_numerics, NumericsError, "output", rf"numerics 1, here are {HERE}; remove it"),
    (full_queue, QueueFullError, None, r"1 jobs wait already, .*queued_jobs\); submit again when"),
    (unknown_job, UnknownJobError, "id", "no job has this id"),
    (cancelled_after_its_end, TransitionError, "state", "a job that is succeeded cannot cancel"),
    (database_that_cannot_be_opened, JobsUnavailableError, None, rf"unable to open .*{USER}"),
    (data_that_is_a_file, JobsUnavailableError, None, rf"File exists.*{USER}"),
    (database_that_is_not_there, JobsUnavailableError, None, r"reached: .*127\.0\.0\.1.*refused"),
]


@pytest.mark.parametrize(
    ("case", "kind", "field", "text"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_an_error_says_what_is_so(
    tmp_path: Path, case: Case, kind: type[SoftxentError], field: str | None, text: str
) -> None:
    save(tmp_path, batch(ROWS, CLASSES))
    with pytest.raises(kind, match=text) as caught:
        case(tmp_path)
    assert type(caught.value) is kind
    details: dict[str, Any] = caught.value.details()
    assert details.get("field") == field
    assert str(caught.value) == caught.value.message
    # A sentence is one line, and no secret is in it.
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message


def test_no_error_is_left_out() -> None:
    declared = {
        one
        for one in vars(errors).values()
        if isinstance(one, type) and one.__module__ == errors.__name__
    }
    assert {kind for _, kind, _, _ in CASES} == declared
