"""The textbook forms of softmax cross-entropy, in float32 and float64, as they are usually written.

They overflow, underflow and cancel; `softxent.explain` shows what that costs beside the stable
forms. Nothing else evaluates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class NaiveForm:
    """Results of the textbook forms in one dtype; any number may be NaN or infinite.

    Attributes:
        softmax_out: [C], exp(x) / sum(exp(x)), without taking the maximum out first.
        loss: -sum y log(softmax_out) over the classes whose target is positive, in nats.
        gradient: [C], softmax_out - y.
    """

    softmax_out: Floats
    loss: np.floating[Any]
    gradient: Floats


@dataclass(frozen=True, eq=False)
class NaiveForms:
    """The textbook forms in both dtypes, logits and target rounded to each."""

    float32: NaiveForm
    float64: NaiveForm


def naive_forms(logits: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> NaiveForms:
    """Return what the textbook forms give for one row."""
    return NaiveForms(_form(logits, target, np.float32), _form(logits, target, np.float64))


def _form(
    logits: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    dtype: type[np.floating[Any]],
) -> NaiveForm:
    # Overflow, log(0) and inf / inf are what is to be shown.
    with np.errstate(all="ignore"):
        x, y = logits.astype(dtype), target.astype(dtype)
        exponentials = np.exp(x)
        softmax = exponentials / exponentials.sum()
        counted = y > 0
        loss = -(y[counted] * np.log(softmax[counted])).sum()
        # + 0 turns the -0.0 of -log(1) into 0.0.
        return NaiveForm(softmax, loss + dtype(0), softmax - y)
