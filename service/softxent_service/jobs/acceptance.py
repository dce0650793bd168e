"""Validation of a job before it is accepted: shapes, dtypes, access, and a sample of labels.

What is refused here is refused to the one who asks; what only the values tell, every row of them,
shows while the job runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent import Options
from softxent.batch import check_batch
from softxent.combinations import check_compatible
from softxent.dtypes import dtype_name
from softxent.errors import RowsError, TensorError
from softxent.evaluations import DTYPES
from softxent_service.jobs.arrays import StoredArray, open_array
from softxent_service.jobs.errors import LocationError, MissingArrayError
from softxent_service.jobs.job import PER_CLASS, Job, logits_dtype_of
from softxent_service.jobs.plan import BLOCK_BYTES, make_plan, needs_whole_rows
from softxent_service.jobs.roots import Place, Roots
from softxent_service.jobs.specification import Specification

SAMPLE_ROWS = 1000
"""Labels and weights that are looked at before a job is accepted: the first and the last."""

Array = npt.NDArray[Any]


def accept(specification: Specification, roots: Roots, block_bytes: int = BLOCK_BYTES) -> Job:
    """Return a job whose arrays are there, can be read, and fit together.

    Whether its output is free is asked of its `Result`.

    Raises:
        LocationError, StorageError, TensorError, OptionError, RowsError, SpecificationError.
    """
    places = {name: roots.place(url, name) for name, url in specification.tensors}
    output = roots.place(specification.output, "output")
    _refuse_nested(places, output)
    arrays = {name: open_array(place, name) for name, place in places.items()}
    versions = {name: array.version() for name, array in arrays.items()}
    logits = arrays["logits"]
    if len(logits.shape) < 2:
        raise TensorError(
            f"logits must have at least 2 dimensions [..., C], not {len(logits.shape)}",
            field="logits",
        )
    if logits.shape[0] and not logits.shape[-1]:
        raise TensorError(
            f"logits of shape {list(logits.shape)} have rows but no classes", field="logits"
        )
    check_forms(arrays, specification.options)
    _check_sample(arrays, specification)
    mask = arrays.get("class_mask")
    mask_rank = len(mask.shape) if mask else 0
    plan = make_plan(
        logits.shape,
        logits.chunks,
        logits.dtype.itemsize,
        whole_rows=needs_whole_rows(specification, mask_rank),
        block_bytes=block_bytes,
    )
    return Job(
        specification,
        tuple(places.items()),
        output,
        plan,
        logits.shape,
        logits_dtype_of(logits),
        mask_rank,
        tuple((name, array.stamp) for name, array in arrays.items()),
        tuple(versions.items()),
    )


def versions_of(specification: Specification, roots: Roots) -> dict[str, str]:
    """Return the version of each array of a job that is there, as it is now.

    Raises:
        LocationError, StorageError, TensorError.
    """
    versions = {}
    for name, url in specification.tensors:
        with contextlib.suppress(MissingArrayError):
            versions[name] = open_array(roots.place(url, name), name).version()
    return versions


def check_forms(arrays: Mapping[str, StoredArray], options: Options) -> None:
    """Check shapes and dtypes as the library does, on arrays of the same form without rows."""
    logits = arrays["logits"]
    if dtype_name(logits.dtype) not in DTYPES:
        # The library takes integers; a terabyte of them would be held as float64.
        raise TensorError(
            f"logits must be one of {', '.join(DTYPES)}, not {logits.dtype}", field="logits"
        )
    leading = logits.shape[:-1]
    for name, array in arrays.items():
        # An array without rows fits any number of them.
        expected = logits.shape[-1:] if name in PER_CLASS else leading
        shared_mask = name == "class_mask" and array.shape == logits.shape[-1:]
        if not shared_mask and array.shape[: len(expected)] != expected:
            raise TensorError(
                f"{name} has shape {list(array.shape)}; the logits ask for {list(expected)}"
                f"{'' if name in (*PER_CLASS, 'labels', 'row_weights') else ' and one more'}",
                field=name,
            )
    batch = check_batch({name: _without_rows(name, array) for name, array in arrays.items()})
    check_compatible(batch.layout(), options)


def _without_rows(name: str, array: StoredArray) -> Array:
    if name in PER_CLASS or (name == "class_mask" and len(array.shape) == 1):
        return np.ones(array.shape, array.dtype)
    return np.empty((0, *array.shape[1:]), array.dtype)


def _check_sample(arrays: Mapping[str, StoredArray], specification: Specification) -> None:
    """Read some values of every array, so that it shows whether they can be; judge the labels."""
    logits = arrays["logits"]
    entries, classes = logits.shape[0], logits.shape[-1]
    if not entries:
        return
    logits.read(slice(0, 1))
    taken = max(1, SAMPLE_ROWS // max(1, int(np.prod(logits.shape[1:-1]))))
    for part in {(0, min(taken, entries)), (max(0, entries - taken), entries)}:
        for name, array in arrays.items():
            if name == "labels":
                if specification.on_error == "fail":
                    _check_labels(array.read(slice(*part)), part[0], classes, arrays, specification)
            elif name not in ("logits", *PER_CLASS):
                array.read(slice(part[0], part[0] + 1))
    if "class_weights" in arrays:
        weights = arrays["class_weights"].read()
        check_batch(
            {
                "logits": np.empty((0, classes), np.float32),
                "labels": np.empty(0, np.int64),
                "class_weights": weights,
            }
        )


def _check_labels(
    labels: Array,
    first: int,
    classes: int,
    arrays: Mapping[str, StoredArray],
    specification: Specification,
) -> None:
    from softxent.blockwise.rows import weigh_part

    given = {"labels": labels.reshape(-1)}
    weights = arrays.get("row_weights")
    if weights is not None:
        given["row_weights"] = weights.read(slice(first, first + len(labels))).reshape(-1)
    try:
        weigh_part(given, specification.options, classes=classes, num_threads=1)
    except RowsError as error:
        raise at_rows(error, first * max(1, labels[0].size)) from None


def at_rows(error: RowsError, first: int) -> RowsError:
    """Return an error about rows of a part as one about rows of the whole."""
    if error.field in PER_CLASS:
        return error
    return type(error)(
        error.message,
        field=error.field,
        rows=[row + first for row in error.rows],
        values=error.values,
        total=error.total,
    )


def _refuse_nested(places: Mapping[str, Place], output: Place) -> None:
    for name, place in places.items():
        if output.contains(place) or place.contains(output):
            raise LocationError(f"output and {name} lie in one another", field="output")
