"""The Zarr group that a job makes, and what is known of it while it is half done.

    OUTPUT/zarr.json                 written last: without it nothing here is a result
    OUTPUT/loss/                     an array for each output, chunks written block by block
    OUTPUT/.softxent/job.json        whose half-done result this is, and the mean's divisor
    OUTPUT/.softxent/blocks/00000007 that block 7 is finished, and its exact sums

The record of a block is written after its values, whole or not at all. So a block with a record is
never computed again, and a block without one is computed from the start.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import zarr

import softxent
from softxent.errors import as_json
from softxent.evaluations import PER_LOGIT
from softxent.reduction import mean_divisor, reduced_loss
from softxent_service.jobs.arrays import StoredArray, create_array, open_to_write, write_rows
from softxent_service.jobs.errors import NumericsError, OutputInUseError
from softxent_service.jobs.job import Job
from softxent_service.jobs.plan import Plan
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder, refuse
from softxent_service.jobs.tally import Finished, Tally

STATE = ".softxent"
JOB_KEY = f"{STATE}/job.json"
BLOCKS = f"{STATE}/blocks/"
SKIPPED = "skipped_rows"

Json = dict[str, Any]


class Result:
    """The output of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = Folder(job.output)

    def check(self) -> Json | None:
        """Return what is known of a half-done result of this job, None where nothing is there.

        Raises:
            OutputInUseError: something else is there, or a finished result.
            NumericsError: the half-done result was begun with other numerics.
        """
        folder, url = self._folder, self._job.output.url
        if folder.exists("zarr.json"):
            raise OutputInUseError(f"{url} is finished already; name another", field="output")
        try:
            known = json.loads(folder.read(JOB_KEY).tobytes())
        except FileNotFoundError:
            if folder.is_empty():
                return None
            raise OutputInUseError(f"{url} is not empty; name another", field="output") from None
        if known["fingerprint"] != self._job.fingerprint:
            raise OutputInUseError(
                f"{url} holds the half-done result of another job; name another, or remove it",
                field="output",
            )
        if known["numerics"] != softxent.NUMERICS_VERSION:
            raise NumericsError(
                f"{url} was begun with numerics {known['numerics']}, here are"
                f" {softxent.NUMERICS_VERSION}; remove it to begin again",
                field="output",
            )
        return dict(known)

    def is_finished(self) -> bool:
        """Whether the group is there, of this very job."""
        if not self._folder.exists("zarr.json"):
            return False
        attributes = json.loads(self._folder.read("zarr.json").tobytes())["attributes"]
        return bool(attributes.get("fingerprint") == self._job.fingerprint)

    def begin(self, logits: StoredArray, divisor: float | None) -> None:
        """Write what a half-done result has before its first block.

        Raises:
            StorageError: it cannot be written.
        """
        known = {
            "fingerprint": self._job.fingerprint,
            "numerics": softxent.NUMERICS_VERSION,
            "divisor": None if divisor is None else as_json(divisor),
            "job": self._job.specification.to_json(),
        }
        self._folder.write(JOB_KEY, json.dumps(known).encode())
        for name in self._job.arrays_out:
            shape, dtype = self._job.output_form(name)
            chunks = _chunks_of(name, self._job.plan, shape, logits.chunks)
            like = logits if name in PER_LOGIT else None
            create_array(self._job.output.child(name), shape, dtype, chunks, like)

    def finished(self) -> Tally:
        """Return what the blocks come to whose records are there.

        Raises:
            StorageError: they cannot be read.
        """
        tally = Tally()
        for name in self._folder.names(BLOCKS):
            if not _is_key(name):
                continue
            with contextlib.suppress(ValueError):
                tally.add(Finished.from_bytes(self._folder.read(name).tobytes()))
        return tally

    def is_committed(self, block: int) -> Finished | None:
        """Return the record of a block, None where it has none."""
        try:
            return Finished.from_bytes(self._folder.read(_key(block)).tobytes())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, arrays: Json, block: int, first_column: int = 0) -> None:
        """Write values of a block.

        Raises:
            StorageError: they cannot be written.
        """
        first = self._job.plan.entries_of(block).start
        for name in self._job.arrays_out:
            if name in arrays:
                place = self._job.output.child(name)
                array = _opened(place, self._job.run)
                starts = (first,)
                if name in PER_LOGIT:
                    middle = (0,) * (len(self._job.shape) - 2)
                    starts = (first, *middle, first_column)
                write_rows(place, array, arrays[name], *starts)

    def commit(self, block: Finished) -> None:
        """Say that a block is finished; all its values must have been written.

        Raises:
            StorageError: it cannot be written.
        """
        self._folder.write(_key(block.block), block.to_bytes())

    def finish(self, tally: Tally) -> Json:
        """Make the group a result, and return its attributes.

        Raises:
            EmptyReductionError: the mean divides by 0 and `empty` is "error".
            StorageError: it cannot be written.
        """
        attributes = attributes_of(self._job, tally)
        options = self._job.specification.options
        if "loss" in options.outputs and options.reduction != "none":
            divisor = mean_divisor(options, tally.sums.weight_sum, tally.sums.count)
            self._write_whole("loss", reduced_loss(options, tally.sums.loss_sum, divisor))
        if tally.skipped:
            self._write_whole(SKIPPED, np.array(sorted(tally.skipped), np.int64))
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._folder.write("zarr.json", json.dumps(group, indent=2).encode())
        self.clean()
        return attributes

    def clean(self) -> None:
        """Remove what only a half-done result has."""
        self._folder.remove(STATE)
        self._folder.tidy()

    def attributes(self) -> Json:
        """Return the attributes of the finished group."""
        return dict(json.loads(self._folder.read("zarr.json").tobytes())["attributes"])

    def _write_whole(self, name: str, values: Any) -> None:
        array = np.asarray(values)
        place = self._job.output.child(name)
        try:
            zarr.create_array(Folder(place).writer, data=array, overwrite=True)
        except Exception as error:
            refuse(error, place.url, "written")


@lru_cache(maxsize=32)
def _opened(place: Place, run: str) -> zarr.Array[Any]:
    """Return an output, opened once a run: to open it takes as long as to write a small block."""
    assert run
    return open_to_write(place)


def _key(block: int) -> str:
    return f"{BLOCKS}{block:08d}"


def _is_key(name: str) -> bool:
    """Whether a name is of a record, not of a file that becomes one when it is whole."""
    return name.removeprefix(BLOCKS).isdigit()


def _chunks_of(
    name: str, plan: Plan, shape: tuple[int, ...], chunks: tuple[int, ...]
) -> tuple[int, ...]:
    """Return chunks of an output, no one of which belongs to two blocks.

    Values a logit lie as the logits do where that is so, else a chunk is a block.
    """
    if name not in PER_LOGIT:
        return (plan.step, *shape[1:])
    aligned = plan.step % chunks[0] == 0 and (not plan.is_sharded or plan.columns % chunks[-1] == 0)
    one_row = chunks[0] == 1 and plan.step > 1
    return chunks if aligned and not one_row else (plan.step, *shape[1:-1], plan.columns)


def attributes_of(job: Job, tally: Tally) -> Json:
    """Return what a result says about itself; numbers that JSON lacks are words."""
    options, sums = job.specification.options, tally.sums
    as_mean = options if options.reduction == "mean" else softxent.Options(reduction="mean")
    loss_sum, weight_sum = sums.loss_sum, sums.weight_sum
    mean = reduced_loss(as_mean, loss_sum, mean_divisor(as_mean, weight_sum, sums.count))
    counted = tally.correct is not None and sums.count
    return {
        "softxent": softxent.__version__,
        "numerics": softxent.NUMERICS_VERSION,
        "fingerprint": job.fingerprint,
        "inputs": dict(job.specification.tensors),
        "options": {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(options).items()},
        "on_error": job.specification.on_error,
        "rows": job.plan.rows,
        "blocks": job.plan.blocks,
        "count": sums.count,
        "skipped": len(tally.skipped),
        "loss_sum": as_json(loss_sum),
        "weight_sum": as_json(weight_sum),
        "mean": as_json(mean),
        "perplexity": as_json(_exp(mean)),
        "accuracy": (tally.correct or 0) / sums.count if counted else None,
    }


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
