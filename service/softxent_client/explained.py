"""The library's explanation of a row, from the JSON object that a service answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.errors import WORDS
from softxent.explanation import Explanation, StableForm
from softxent.naive import NaiveForm, NaiveForms
from softxent_client.errors import ServiceError


def explanation_of(steps: Mapping[str, Any]) -> Explanation:
    """Return the explanation whose members are those of a JSON object.

    Raises:
        ServiceError: one is missing, or is no number where it must be.
    """
    try:
        return _explanation_of(steps)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServiceError(f"the answer is not an explanation: {error!r}") from None


def _explanation_of(steps: Mapping[str, Any]) -> Explanation:
    stable, naive, difference = steps["stable"], steps["naive"], steps["largest_difference"]
    return Explanation(
        softmax_out=_numbers(steps["softmax_out"]),
        softmax_jacobian=_numbers(steps["softmax_jacobian"], 2),
        target=_numbers(steps["target"]),
        loss=float(steps["loss"]),
        loss_by_softmax_out=_optional(steps["loss_by_softmax_out"]),
        chain_rule_product=_optional(steps["chain_rule_product"]),
        fused_gradient=_numbers(steps["fused_gradient"]),
        largest_difference=None if difference is None else float(difference),
        notes=tuple(map(str, steps["notes"])),
        stable=StableForm(
            m=float(stable["m"]),
            e=_numbers(stable["e"]),
            S=float(stable["S"]),
            log1p=float(stable["log1p"]),
        ),
        naive=NaiveForms(
            _naive(naive["float32"], np.float32), _naive(naive["float64"], np.float64)
        ),
    )


def _optional(values: Any) -> npt.NDArray[np.float64] | None:
    return None if values is None else _numbers(values)


def _numbers(values: Any, rank: int = 1) -> npt.NDArray[np.float64]:
    array = np.array(values, np.float64)
    if array.ndim != rank:
        raise ValueError(f"an array of rank {array.ndim} in the place of one of rank {rank}")
    return array


def _naive(form: Mapping[str, Any], dtype: type[np.floating[Any]]) -> NaiveForm:
    # Numbers that JSON lacks are words.
    softmax, gradient = (
        np.array([WORDS.get(v, v) for v in form[name]], dtype)
        for name in ("softmax_out", "gradient")
    )
    return NaiveForm(softmax, dtype(WORDS.get(form["loss"], form["loss"])), gradient)
