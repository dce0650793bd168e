"""Inputs in an object store that change are noticed, as files are; a job outlives the store."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from job_support import Tensors, batch, run
from obstore.store import S3Store
from parts_support import BUCKET, SeaweedFS, wait_for

import softxent
from softxent_service.jobs import engine
from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError
from softxent_service.jobs.errors import OutputInUseError
from softxent_service.jobs.failure import JobFailedError
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.result import Result
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification
from softxent_service.jobs.stores import store_at

ROWS, CLASSES, BLOCK = 48, 8, 4
Change = Callable[["Objects"], None]


def tensors() -> Tensors:
    given = batch(ROWS, CLASSES)
    given["labels"] %= CLASSES - 1
    return {**given, "row_weights": np.ones(ROWS), "class_mask": np.ones(CLASSES, bool)}


class Objects:
    """The inputs of one test, below a prefix of their own; logits are `.npy` or Zarr."""

    def __init__(self, prefix: str, *, is_zarr: bool) -> None:
        self.prefix, self.is_zarr = prefix, is_zarr
        self.store = S3Store(BUCKET, prefix=prefix)
        self.given = tensors()
        for name in self.given:
            self.save(name)

    def save(self, name: str, values: Any = None) -> None:
        """Write a tensor, or other values of it, under its name."""
        if values is not None:
            self.given[name] = values
        if name == "logits" and self.is_zarr:
            self._save_zarr(self.given[name])
            return
        data = io.BytesIO()
        np.save(data, self.given[name])
        self.store.put(f"{name}.npy", data.getvalue())

    def _save_zarr(self, values: Any) -> None:
        store = zarr.storage.ObjectStore(S3Store(BUCKET, prefix=f"{self.prefix}/logits.zarr"))
        shape = (BLOCK, CLASSES)
        # Chunks as they are, so that a test can change a number in one.
        zarr.create_array(store, data=values, chunks=shape, compressors=None, overwrite=True)

    def job(self) -> Job:
        root = f"s3://{BUCKET}/{self.prefix}"
        members: dict[str, Any] = {name: f"{root}/{name}.npy" for name in self.given}
        if self.is_zarr:
            members["logits"] = f"{root}/logits.zarr"
        members |= {"output": f"{root}/out", "outputs": ["loss", "gradient"]}
        roots = Roots([f"s3://{BUCKET}"])
        return accept(Specification.from_json(members), roots, BLOCK * CLASSES * 4)

    def expect_whole(self) -> None:
        """Check that the result is, to the bit, that of the objects that lie there now."""
        out = zarr.storage.ObjectStore(S3Store(BUCKET, prefix=f"{self.prefix}/out"))
        group: Any = zarr.open_group(out, mode="r")
        want = softxent.cross_entropy(**self.given)
        for name in ("loss", "gradient"):
            assert group[name][:].tobytes() == getattr(want, name).tobytes()


@pytest.fixture(scope="module")
def weed() -> Iterator[SeaweedFS]:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        part = SeaweedFS(Path(name))
        for variable, value in part.environment_of_clients.items():
            patch.setenv(variable, value)
        store_at.cache_clear()
        try:
            part.start()
            yield part
        finally:
            part.end()
            store_at.cache_clear()


def exported_again(objects: Objects) -> None:
    objects.save("logits", objects.given["logits"] + np.float32(1))


def one_label(objects: Objects) -> None:
    labels = objects.given["labels"].copy()
    labels[-1] ^= 1
    objects.save("labels", labels)


def one_weight(objects: Objects) -> None:
    weights = objects.given["row_weights"].copy()
    weights[0] = 2
    objects.save("row_weights", weights)


def the_mask(objects: Objects) -> None:
    objects.save("class_mask", np.arange(CLASSES) != CLASSES - 1)


def one_chunk(objects: Objects) -> None:
    """Write the last chunk again, of the same length, with another last number."""
    logits = objects.given["logits"].copy()
    logits[-1, -1] = 3
    objects.given["logits"] = logits
    objects.store.put(f"logits.zarr/c/{ROWS // BLOCK - 1}/0", logits[-BLOCK:].tobytes())


def a_chunk_less(objects: Objects) -> None:
    logits = objects.given["logits"].copy()
    logits[-BLOCK:] = 0
    objects.given["logits"] = logits
    objects.store.delete(f"logits.zarr/c/{ROWS // BLOCK - 1}/0")


CHANGES: dict[str, Change] = {
    "re-export": exported_again,
    "one label": one_label,
    "one weight": one_weight,
    "the mask": the_mask,
}
ZARR_CHANGES: dict[str, Change] = {
    "re-export": exported_again,
    "a chunk": one_chunk,
    "a chunk less": a_chunk_less,
    "one label": one_label,
}
ALL = [(False, kind) for kind in CHANGES] + [(True, kind) for kind in ZARR_CHANGES]


def change(objects: Objects, kind: str) -> None:
    (ZARR_CHANGES if objects.is_zarr else CHANGES)[kind](objects)


@pytest.fixture
def objects(weed: SeaweedFS, request: pytest.FixtureRequest) -> Objects:
    """Inputs of the kind that the test's first parameter names, where nothing else lies."""
    prefix = "".join(c if c.isalnum() else "-" for c in request.node.name)
    assert weed.ready()
    return Objects(prefix, is_zarr=request.param)


cases = pytest.mark.parametrize(("objects", "kind"), ALL, indirect=["objects"])


@cases
def test_a_half_done_result_begins_anew(objects: Objects, kind: str, cluster: Cluster) -> None:
    told: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "TICK_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            engine.run_job(objects.job(), cluster, told.append, lambda: told[-1].blocks_done >= 2)
    change(objects, kind)
    again: list[Progress] = []
    run(objects.job(), cluster, again.append)
    assert again[0].blocks_done == 0
    objects.expect_whole()


@cases
def test_a_finished_result_is_refused_by_name(
    objects: Objects, kind: str, cluster: Cluster
) -> None:
    run(objects.job(), cluster)
    assert Result(objects.job()).done()
    change(objects, kind)
    assert Result(objects.job()).done() is None
    with pytest.raises(OutputInUseError, match=r"of (logits|labels|row_weights|class_mask) that"):
        Result(objects.job()).check()


@cases
def test_an_input_that_changes_meanwhile_fails_the_job(
    objects: Objects, kind: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    done: list[None] = []

    def report(progress: Progress) -> None:
        if progress.blocks_done >= 2 and not done:
            done.append(change(objects, kind))  # type: ignore[func-returns-value]

    job = objects.job()
    with pytest.raises(JobFailedError) as failed:
        run(job, cluster, report)
    assert failed.value.problem["type"] == "urn:softxent:problem:input-changed"
    assert failed.value.problem["field"] in dict(job.places)
    run(objects.job(), cluster)
    objects.expect_whole()


@pytest.mark.parametrize("objects", [False, True], indirect=True)
def test_what_did_not_change_is_gone_on_with(objects: Objects, cluster: Cluster) -> None:
    told: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "TICK_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            engine.run_job(objects.job(), cluster, told.append, lambda: told[-1].blocks_done >= 2)
    again: list[Progress] = []
    run(objects.job(), cluster, again.append)
    assert again[0].blocks_done >= 2
    objects.expect_whole()


@pytest.mark.parametrize("objects", [False, True], indirect=True)
def test_a_job_outlives_a_store_that_is_killed_while_it_reads_and_writes(
    objects: Objects, cluster: Cluster, weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meets connections that are refused, then the 500s of a store that has just started."""
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    told: list[Progress] = []
    job = objects.job()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, job, cluster, told.append)
        wait_for(lambda: told and told[-1].blocks_done >= 2, "two blocks")
        weed.kill()
        before = told[-1].blocks_done
        weed.start()
        attributes = running.result(180)
    assert before < job.plan.blocks
    want = softxent.cross_entropy(**objects.given)
    assert (attributes["loss_sum"], attributes["count"]) == (want.loss_sum, want.count)
    objects.expect_whole()
