"""Compatibility of options and batches: what does not apply is refused, never ignored."""

from __future__ import annotations

from typing import Any

import numpy as np

from softxent.batch import Layout
from softxent.dtypes import dtype_name
from softxent.errors import OptionError, TensorError
from softxent.evaluations import PRODUCT
from softxent.options import Options


def check_compatible(layout: Layout, options: Options) -> None:
    """Refuse options that mean nothing for a batch's target or dtype, or contradict it.

    Raises:
        OptionError: an option does not apply, or the output dtype is not there.
        TensorError: class weights stand beside a bucket.
    """
    mixed = "labels" in layout.kinds and layout.is_soft
    top_k = "target_indices" in layout.kinds
    if mixed and options.hard_weight is None:
        raise OptionError(
            "labels beside a soft target need hard_weight, the share of the label",
            field="hard_weight",
        )
    if options.hard_weight is not None and not mixed:
        raise OptionError(
            "hard_weight applies only to labels beside a soft target", field="hard_weight"
        )
    if options.ignore_index not in (None, Options.ignore_index) and "labels" not in layout.kinds:
        raise OptionError("ignore_index applies only to labels", field="ignore_index")
    if options.tail != "renormalize" and not top_k:
        raise OptionError("tail applies only to top-k targets", field="tail")
    if options.tail == "bucket":
        _refuse_beside_bucket(layout, options)
    _refuse_outputs(layout, options)
    _refuse_temperature(layout, options)
    stored_dtype(layout.dtype, options)


def _refuse_beside_bucket(layout: Layout, options: Options) -> None:
    if options.label_smoothing:
        raise OptionError("label_smoothing does not go with tail=bucket", field="label_smoothing")
    if "class_weights" in layout.given:
        raise TensorError("class_weights do not go with tail=bucket", field="class_weights")


def _refuse_outputs(layout: Layout, options: Options) -> None:
    for name in options.outputs:
        if name in ("correct", "rank") and "labels" not in layout.kinds:
            raise OptionError(f"the output {name} needs labels, which are not given", field=name)
        if name in ("hessian_diagonal", PRODUCT) and options.softcap is not None:
            raise OptionError(
                f"the output {name} does not go with a softcap; give softcap=None", field=name
            )


def _refuse_temperature(layout: Layout, options: Options) -> None:
    # Logits 2^128 apart, whose difference is no float32, then still differ by more than 2^8 in the
    # exponent, where the lesser one's share of a sum cannot be seen. Downwards 1 / temperature is
    # finite.
    most = 120 if layout.computed.itemsize == 4 else 1020
    if most == 120 and options.temperature >= 2.0**120:
        raise OptionError(
            "temperature must be below 2^120, about 1.3e36, for logits computed in float32,"
            f" not {options.temperature!r}",
            field="temperature",
        )
    if options.temperature < 2.0**-most:
        raise OptionError(
            f"temperature must be at least 2^-{most}, about {2.0**-most:.1e}, for logits computed"
            f" in {layout.computed}, not {options.temperature!r}",
            field="temperature",
        )


def stored_dtype(logits: np.dtype[Any], options: Options) -> np.dtype[Any]:
    """Return the dtype of outputs of one value a logit.

    Raises:
        OptionError: it is bfloat16, and the package ml_dtypes is not installed.
    """
    if options.output_dtype in (None, dtype_name(logits)):
        return logits
    if options.output_dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401 - gives NumPy the name
        except ImportError:
            raise OptionError(
                "output_dtype=bfloat16 needs the package ml_dtypes", field="output_dtype"
            ) from None
    return np.dtype(str(options.output_dtype))
