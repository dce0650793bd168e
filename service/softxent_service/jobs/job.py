"""Accepted job: everything that its tasks need."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.dtypes import dtype_name
from softxent.evaluations import INTEGERS, PER_LOGIT
from softxent_service.jobs.arrays import BFLOAT16, StoredArray, changed, open_array
from softxent_service.jobs.plan import Plan
from softxent_service.jobs.roots import Place
from softxent_service.jobs.specification import Specification

PER_CLASS = ("class_weights",)

FORMAT = 3
"""Changes whenever a half-done result of before could not be gone on with."""


@dataclass(frozen=True)
class Job:
    """A job that was accepted.

    Attributes:
        specification: as it was asked for.
        places: where its tensors lie, by name.
        output: where its result goes.
        plan: how it is cut.
        shape, dtype: of the logits.
        mask_rank: of the class mask, 0 without one.
        stamps: of the file that heads each of its arrays, by name; see `StoredArray.stamp`.
        versions: of each of its arrays, by name; see `StoredArray.version`.
        divisor: what a mean divides derivatives by; None until that is known.
        run: of one run of the engine its own; what a process keeps open is kept for one run.
        result_id: of the result that is written, random; its arrays and block records carry it.
    """

    specification: Specification
    places: tuple[tuple[str, Place], ...]
    output: Place
    plan: Plan
    shape: tuple[int, ...]
    dtype: str
    mask_rank: int
    stamps: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    divisor: float | None = None
    run: str = "accepted"
    result_id: str = ""

    def begun(self, divisor: float | None, result_id: str | None = None) -> Job:
        """Return the job as it is run.

        Args:
            divisor: what a mean divides by, None where it does not.
            result_id: of the half-done result that is gone on with; None for a new one.
        """
        made = result_id or uuid.uuid4().hex
        return replace(self, divisor=divisor, run=uuid.uuid4().hex, result_id=made)

    def open(self) -> dict[str, StoredArray]:
        """Open its arrays.

        Raises:
            InputChangedError: one was written or replaced after the job was accepted.
            StorageError, TensorError: one is not there any more, or cannot be read.
        """
        stamps, arrays = dict(self.stamps), {}
        for name, place in self.places:
            array = arrays[name] = open_array(place, name)
            if array.stamp != stamps[name]:
                raise changed(name, place.url)
        return arrays

    def check_versions(self, versions: Mapping[str, str]) -> None:
        """Look whether arrays have the versions that were accepted.

        Raises:
            InputChangedError: a file of one was written, replaced, added or removed since.
        """
        for name, place in self.places:
            if versions.get(name) != dict(self.versions)[name]:
                raise changed(name, place.url)

    @cached_property
    def asked(self) -> dict[str, Any]:
        """Return what was asked for, apart from where the result goes, as JSON members."""
        options = asdict(self.specification.options)
        return {
            "inputs": dict(self.specification.tensors),
            "options": {n: list(v) if isinstance(v, tuple) else v for n, v in options.items()},
            "on_error": self.specification.on_error,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of all that the record of a block depends on."""
        told = [FORMAT, self.asked, dict(self.versions), asdict(self.plan), self.result_id]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def output_form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype of an output of one value a row or a logit."""
        logits = BFLOAT16 if self.dtype == "bfloat16" else np.dtype(self.dtype)
        if name in PER_LOGIT:
            asked = self.specification.options.output_dtype
            stored = BFLOAT16 if asked == "bfloat16" else np.dtype(asked or logits)
            return self.shape, stored
        return self.shape[:-1], np.dtype(INTEGERS[name]) if name in INTEGERS else self.computed

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the dtype of computation, which outputs of one value a row have."""
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    @property
    def arrays_out(self) -> tuple[str, ...]:
        """Return the outputs that are written block by block; a reduced loss is one number."""
        options = self.specification.options
        reduced = options.reduction != "none"
        return tuple(n for n in options.outputs if not (n == "loss" and reduced))


def rows_of(arrays: Mapping[str, StoredArray], job: Job, entries: slice) -> dict[str, Any]:
    """Read the rows of a block: every tensor but the logits and targets of one value a logit."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        if name in ("logits", "target_probabilities"):
            continue
        whole = name in PER_CLASS or (name == "class_mask" and job.mask_rank == 1)
        found[name] = array.read() if whole else array.read(entries)
    return found


def logits_dtype_of(array: StoredArray) -> str:
    """Return the name of an array's dtype, whatever its byte order."""
    return dtype_name(array.dtype)
