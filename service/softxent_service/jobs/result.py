"""Zarr group that a job writes, and its state while it is incomplete.

    OUTPUT/zarr.json                 written last: without it nothing here is a result
    OUTPUT/loss/                     an array for each output, chunks written block by block
    OUTPUT/.softxent/job.json        whose half-done result this is, its id, the mean's divisor
    OUTPUT/.softxent/blocks/00000007 that block 7 is finished, and its exact sums

The record of a block is written after its values, whole or not at all. So a block with a record is
never computed again, and a block without one is computed from the start. Records vouch for the
arrays that carry the id of their result; without these arrays the result begins anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import zarr

import softxent
from softxent.errors import as_json
from softxent.evaluations import PER_LOGIT
from softxent.reduction import mean_divisor, reduced_loss, refuse_infinite_sums
from softxent_service.jobs.arrays import StoredArray, create_array, open_to_write, write_rows
from softxent_service.jobs.block_result import Finished, Tally
from softxent_service.jobs.errors import NumericsError, OutputInUseError
from softxent_service.jobs.job import FORMAT, Job
from softxent_service.jobs.outputs import (
    SKIPPED,
    identity,
    missing_outputs,
    refuse_another,
    replaced,
)
from softxent_service.jobs.plan import Plan
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder, refuse
from softxent_service.jobs.summary import attributes_of

GROUP = "zarr.json"
STATE = ".softxent"
JOB_KEY = f"{STATE}/job.json"
BLOCKS = f"{STATE}/blocks/"
MEMBERS = ("format", "numerics", "inputs", "options", "on_error", "versions", "plan", "divisor")
"""What `job.json` has in every release."""

Json = dict[str, Any]

logger = logging.getLogger("softxent.jobs")


class Result:
    """The output of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = Folder(job.output)

    def check(self) -> Json | None:
        """Return what is known of a half-done result of this job.

        None where nothing is there, where it was begun with inputs that have changed since, or
        where one of its arrays is gone.

        Raises:
            OutputInUseError: something else is there, or a finished result, or an array that does
                not belong to the half-done result.
            NumericsError: the half-done result was begun with other numerics.
        """
        folder, url = self._folder, self._job.output.url
        if folder.exists(GROUP):
            self._refuse_finished()
        known = self._read(JOB_KEY)
        if known is None or not known.keys() >= set(MEMBERS):
            if folder.is_empty():
                return None
            raise OutputInUseError(
                f"{url} is not empty and holds no half-done result; name another, or remove it",
                field="output",
            )
        if known.get("format") != FORMAT:
            raise OutputInUseError(
                f"{url} holds the half-done result of another release; name another, or remove it",
                field="output",
            )
        self._refuse_another(known)
        if self._begins_anew(known):
            return None
        self._refuse_other_cut(known)
        return known

    def _begins_anew(self, known: Json) -> str | None:
        """Return why nothing of a half-done result can be used; None where it can be."""
        result_id, now = known.get("result_id"), dict(self._job.versions)
        names = [name for name in now if known["versions"].get(name) != now[name]]
        missing = missing_outputs(self._job, result_id, any_form=bool(names))
        if names:
            return f"{', '.join(names)} changed since"
        if missing or not result_id:
            return f"there is no array of it at {', '.join(missing or self._job.arrays_out)}"
        return None

    def _refuse_another(self, known: Json) -> None:
        different = _different(known, self._job.asked)
        if different:
            raise OutputInUseError(
                f"{self._job.output.url} holds the half-done result of another job, with another"
                f" {', '.join(different)}; name another, or remove it",
                field="output",
            )

    def _refuse_other_cut(self, known: Json) -> None:
        url = self._job.output.url
        if known["numerics"] != softxent.NUMERICS_VERSION:
            raise NumericsError(
                f"{url} was begun with numerics {known['numerics']}, here are"
                f" {softxent.NUMERICS_VERSION}; remove it to begin again",
                field="output",
            )
        if known["plan"] != asdict(self._job.plan):
            raise OutputInUseError(
                f"{url} holds a half-done result in blocks of another size; give the block_bytes"
                " that it was begun with, name another output, or remove it",
                field="output",
            )

    def _refuse_finished(self) -> NoReturn:
        url, found = self._job.output.url, self._attributes() or {}
        if "versions" not in found:
            raise OutputInUseError(
                f"{url} holds Zarr data that is no result of this release; name another",
                field="output",
            )
        different = _different(found, self._job.asked)
        now, before = dict(self._job.versions), found["versions"]
        names = [n for n in now if n not in different and before.get(n) != now[n]]
        reasons = [f"with another {', '.join(different)}"] if different else []
        reasons += [f"of {', '.join(names)} that changed since"] if names else []
        if found.get("numerics") != softxent.NUMERICS_VERSION:
            reasons.append(f"with numerics {found.get('numerics')}")
        told = f", {' and '.join(reasons)}" if reasons else ""
        raise OutputInUseError(
            f"{url} is finished already{told}; name another output, or remove it", field="output"
        )

    def done(self) -> Json | None:
        """Return the attributes of the result, None where none of this very job is finished.

        Raises:
            OutputInUseError: it is finished, but one of its arrays is gone or another.
            StorageError: an array cannot be read.
        """
        found = self._attributes()
        mine = {"versions": dict(self._job.versions), "numerics": softxent.NUMERICS_VERSION}
        mine |= self._job.asked
        if not found or not mine.items() <= found.items():
            return None
        missing = missing_outputs(self._job, found.get("id"), found.get("skipped", 0))
        if missing:
            url = self._job.output.url
            raise OutputInUseError(
                f"{url} is finished already, but its array {missing[0]} is gone; remove {url} to"
                " evaluate it again, or name another output",
                field="output",
            )
        return found

    def begin(self, logits: StoredArray, divisor: float | None) -> None:
        """Write what a half-done result has before its first block.

        Raises:
            StorageError: it cannot be written.
        """
        known = {
            "format": FORMAT,
            "numerics": softxent.NUMERICS_VERSION,
            **self._job.asked,
            "versions": dict(self._job.versions),
            "plan": asdict(self._job.plan),
            "divisor": None if divisor is None else as_json(divisor),
            "result_id": self._job.result_id,
        }
        self._folder.write(JOB_KEY, json.dumps(known).encode())
        for name in self._job.arrays_out:
            shape, dtype = self._job.output_form(name)
            chunks = _chunks_of(name, self._job.plan, shape, logits.chunks)
            like = logits if name in PER_LOGIT else None
            own = identity(self._job.result_id, name)
            create_array(self._job.output.child(name), shape, dtype, chunks, like, own)

    def clear(self) -> None:
        """Remove what is there of a half-done result that cannot be gone on with, if anything is.

        `job.json` stays until it is written anew: who dies here finds the same again.

        Raises:
            StorageError: it cannot be removed.
        """
        known = self._read(JOB_KEY)
        if known is None:
            return
        logger.warning("%s begins anew: %s", self._job.output.url, self._begins_anew(known))
        for name in (BLOCKS.rstrip("/"), *self._job.specification.options.outputs, SKIPPED):
            self._folder.remove(name)

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
                tally.add(self._record(name))
        return tally

    def is_committed(self, block: int) -> Finished | None:
        """Return the record of a block, None where it has none."""
        try:
            return self._record(_key(block))
        except (FileNotFoundError, ValueError):
            return None

    def _record(self, key: str) -> Finished:
        return Finished.from_bytes(self._folder.read(key).tobytes(), self._job.fingerprint)

    def write(self, arrays: Json, block: int, first_column: int = 0) -> None:
        """Write values of a block.

        Raises:
            StorageError: they cannot be written.
        """
        first = self._job.plan.entries_of(block).start
        for name in self._job.arrays_out:
            if name in arrays:
                place = self._job.output.child(name)
                array = _opened(place, self._job.run, self._job.result_id, name)
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
        self._folder.write(_key(block.block), block.to_bytes(self._job.fingerprint))

    def finish(self, tally: Tally, lost: str | None = None) -> Json:
        """Make the group a result, and return its attributes.

        Args:
            lost: see `summary.attributes_of`.

        Raises:
            EmptyReductionError: the mean divides by 0 and `empty` is "error".
            NonFiniteError: a sum or the mean is beyond float64, and `non_finite` is "error".
            OutputInUseError, StorageError: an array was replaced or removed while the job ran, or
                the result cannot be written.
        """
        for name in missing_outputs(self._job, self._job.result_id):
            raise replaced(self._job.output.child(name))
        options, sums = self._job.specification.options, tally.sums
        totals = {"loss_sum": sums.loss_sum, "weight_sum": sums.weight_sum}
        if "loss" in options.outputs and options.reduction != "none":
            divisor = mean_divisor(options, sums.weight_sum, sums.count)
            totals["loss"] = reduced_loss(options, sums.loss_sum, divisor)
        refuse_infinite_sums(options, totals)
        attributes = attributes_of(self._job, tally, lost)
        if "loss" in totals:
            self._write_whole("loss", totals["loss"])
        if tally.skipped:
            self._write_whole(SKIPPED, np.array(sorted(tally.skipped), np.int64))
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._folder.write(GROUP, json.dumps(group, indent=2).encode())
        self.clean()
        return attributes

    def clean(self) -> None:
        """Remove what only a half-done result has."""
        self._folder.remove(STATE)
        self._folder.tidy()

    def _attributes(self) -> Json | None:
        return (self._read(GROUP) or {}).get("attributes")

    def _read(self, key: str) -> Json | None:
        """Return the members of a file, None where it is not there or no object of JSON."""
        try:
            members = json.loads(self._folder.read(key).tobytes())
        except (FileNotFoundError, ValueError):
            return None
        return members if isinstance(members, dict) else None

    def _write_whole(self, name: str, values: Any) -> None:
        array = np.asarray(values)
        place = self._job.output.child(name)
        try:
            own = identity(self._job.result_id, name)
            zarr.create_array(Folder(place).writer, data=array, attributes=own, overwrite=True)
        except Exception as error:
            refuse(error, place.url, "written")


def _different(known: Json, asked: Json) -> list[str]:
    """Return the names of inputs and options that are not as they are asked for."""
    found = []
    for name, value in asked.items():
        before = known.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            found += [n for n in value.keys() | before.keys() if value.get(n) != before.get(n)]
        elif value != before:
            found.append(name)
    return sorted(found)


@lru_cache(maxsize=32)
def _opened(place: Place, run: str, result_id: str, name: str) -> zarr.Array[Any]:
    """Return an output, opened once a run: to open it takes as long as to write a small block."""
    assert run
    array = open_to_write(place)
    refuse_another(array, place, identity(result_id, name))
    return array


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
