"""Arrays of a result: their shapes and dtypes, and the identity of the result.

Every array carries the id of its result and its own name in the attribute `softxent`, written when
the array is created. Records of blocks carry the same id: they vouch for these arrays alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from softxent_service.jobs.arrays import BFLOAT16, METADATA
from softxent_service.jobs.errors import OutputInUseError, StorageError
from softxent_service.jobs.job import Job
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder

ATTRIBUTE = "softxent"
SKIPPED = "skipped_rows"

Form = tuple[tuple[int, ...], np.dtype[Any]]


def identity(result_id: str, name: str) -> dict[str, Any]:
    """Return the attributes by which an output array is recognised."""
    return {ATTRIBUTE: {"result": result_id, "output": name}}


def forms_of(job: Job, skipped: int | None = None) -> dict[str, Form]:
    """Return shape and dtype of each output array by name.

    Args:
        skipped: the number of rows in the array `skipped_rows`; None for a half-done result, which
            has only the arrays that are written block by block.
    """
    forms = {name: job.output_form(name) for name in job.arrays_out}
    if skipped is not None:
        if "loss" in job.specification.options.outputs:
            forms.setdefault("loss", ((), np.dtype(np.float64)))
        if skipped:
            forms[SKIPPED] = ((skipped,), np.dtype(np.int64))
    return forms


def missing_outputs(
    job: Job, result_id: str | None, skipped: int | None = None, *, any_form: bool = False
) -> list[str]:
    """Return the output arrays of a result that are not there.

    Args:
        result_id: None for a result of a release that gave its arrays no identity; then only shape
            and dtype are compared.
        any_form: shape and dtype are not compared, since inputs may have had others.

    Raises:
        OutputInUseError: in the place of one lies an array that does not belong to the result.
        StorageError: an array cannot be read.
    """
    missing = []
    for name, form in forms_of(job, skipped).items():
        place = job.output.child(name)
        if not Folder(place).exists(METADATA):
            missing.append(name)
        elif not _is_same(
            place,
            None if any_form else form,
            None if result_id is None else identity(result_id, name),
        ):
            raise OutputInUseError(
                f"{name} at {place.url} is not the array that the job wrote there; move it away,"
                " then submit the job again, or name another output",
                field="output",
            )
    return missing


def _is_same(place: Place, form: Form | None, attributes: dict[str, Any] | None) -> bool:
    try:
        array = zarr.open_array(Folder(place).store, mode="r", zarr_format=3)
        dtype = np.dtype(array.dtype)
        told = dict(array.attrs)
    except StorageError:
        raise
    except Exception:
        # A group, or metadata that is cut off.
        return False
    if dtype == np.uint16 and told.get("dtype") == "bfloat16":
        dtype = BFLOAT16
    known = attributes is None or told.get(ATTRIBUTE) == attributes[ATTRIBUTE]
    return known and form in (None, (array.shape, dtype))


def refuse_another(array: zarr.Array[Any], place: Place, attributes: dict[str, Any]) -> None:
    """Refuse to write into an array that does not belong to the result.

    Raises:
        StorageError: it does not.
    """
    if array.attrs.get(ATTRIBUTE) != attributes[ATTRIBUTE]:
        raise replaced(place)


def replaced(place: Place) -> StorageError:
    """Return the error of an output array that was there when the job began."""
    return StorageError(
        f"{place.url} was removed or replaced while the job ran; submit the job again, and leave"
        " its output as it is until it has ended",
        field="output",
    )
