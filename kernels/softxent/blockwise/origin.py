"""Origin of the partials of a block of columns; partials of any other origin are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from softxent.batch import Batch
from softxent.errors import TensorError
from softxent.options import Options

Array = npt.NDArray[Any]


def made_from(batch: Batch, options: Options) -> dict[str, object]:
    """Return what the partials of a block depend on besides its logits, by name."""
    settings = ("ignore_index", "label_smoothing", "softcap", "temperature", "tail", "hard_weight")
    same_for_all = (
        "labels",
        "target_indices",
        "target_log_probabilities",
        "class_weights",
        "row_weights",
        "class_mask",
    )
    return {
        "classes": batch.classes,
        "rows": batch.rows,
        "logits": batch.logits.dtype.name,
        "target_probabilities": "target_probabilities" in batch.kinds,
        **{name: getattr(options, name) for name in settings},
        **{name: _digest(getattr(batch, name)) for name in same_for_all},
    }


def _digest(array: Array) -> str:
    return f"{array.shape} {hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()}"


_DIFFERENCES = {
    "classes": "are of another number of classes",
    "rows": "are of another number of rows",
    "logits": "were made from logits of another dtype",
    "target_probabilities": "are of another kind of target",
}


def refuse_other_origin(known: Mapping[str, object], other: Mapping[str, object]) -> None:
    """Refuse partials of which `made_from` gave anything but what it gives here.

    Raises:
        TensorError: they were; it names what is different.
    """
    for name, value in known.items():
        if other[name] != value:
            difference = _DIFFERENCES.get(name, f"were made with other {name}")
            text = ""
            if not isinstance(value, str) or name == "tail":
                text = f": {value!r}, here {other[name]!r}"
            raise TensorError(f"the partials {difference}{text}", field="partials")
