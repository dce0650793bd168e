"""Arrays at rest, and jobs run over them in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import zarr

import softxent
from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import run_job
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification

Array = npt.NDArray[Any]
Tensors = dict[str, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

SMALL_BLOCK = 1 << 15


def save(folder: Path, tensors: Mapping[str, Array], chunks: tuple[int, ...] | None = None) -> None:
    """Write arrays: the logits as Zarr where `chunks` says how, all else as `.npy`."""
    for name, values in tensors.items():
        if chunks is not None and name == "logits":
            save_zarr(folder / f"{name}.zarr", values, chunks)
        else:
            np.save(folder / f"{name}.npy", values)


def save_zarr(
    path: Path, values: Array, chunks: tuple[int, ...], shards: tuple[int, ...] | None = None
) -> None:
    bfloat16 = values.dtype == BFLOAT16
    zarr.create_array(
        str(path),
        data=values.view(np.uint16) if bfloat16 else values,
        chunks=chunks,
        shards=shards,
        attributes={"dtype": "bfloat16"} if bfloat16 else {},
    )


def specification(folder: Path, output: str = "out", **members: Any) -> Specification:
    """Return a job over all the arrays that `save` has written to a folder."""
    found = {path.stem: f"file://{path}" for path in folder.iterdir() if path.stem != output}
    known = {name: url for name, url in found.items() if name in softxent.evaluations.TENSORS}
    return Specification.from_json({**known, "output": f"file://{folder}/{output}", **members})


def accepted(folder: Path, block_bytes: int = SMALL_BLOCK, **members: Any) -> Job:
    return accept(specification(folder, **members), Roots([f"file://{folder}"]), block_bytes)


def run(
    job: Job, cluster: Cluster, report: Callable[[Progress], None] | None = None
) -> dict[str, Any]:
    return run_job(job, cluster, report or (lambda _: None), lambda: False)


def begun(job: Job) -> Job:
    """Return a job as what goes on with its half-done result has it."""
    known = json.loads((job.output.folder / ".softxent" / "job.json").read_text())
    return job.begun(None, known["result_id"])


def read(folder: Path, name: str, output: str = "out") -> Array:
    """Return an array of a result, bfloat16 as it was meant."""
    array = zarr.open_group(str(folder / output), mode="r")[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[...])
    return values.view(BFLOAT16) if array.attrs.get("dtype") == "bfloat16" else values


def attributes_of(folder: Path, output: str = "out") -> dict[str, Any]:
    """Return what a result says about itself."""
    return dict(zarr.open_group(str(folder / output), mode="r").attrs)


def batch(rows: int, classes: int, dtype: Any = np.float32, seed: int = 3) -> Tensors:
    random = np.random.default_rng(seed)
    tensors: Tensors = {
        "logits": (random.normal(size=(rows, classes)) * 4).astype(dtype),
        "labels": random.integers(0, classes, rows),
    }
    tensors["labels"][::5] = -100
    return tensors
