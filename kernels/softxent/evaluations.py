"""Evaluations: the tensors, options and outputs of each, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TENSORS = (
    "logits",
    "labels",
    "target_probabilities",
    "target_indices",
    "target_log_probabilities",
    "class_weights",
    "row_weights",
    "class_mask",
)
"""The tensors of a batch: logits, at least one target, and what may stand beside them."""

OUTPUTS = (
    "loss",
    "gradient",
    "log_normalizer",
    "probabilities",
    "log_probabilities",
    "entropy",
    "target_entropy",
    "prediction",
    "correct",
    "rank",
    "hessian_diagonal",
)
"""Every output of `cross_entropy`, in the order in which they are returned."""

PRODUCT = "hessian_vector_product"

EVERY_OUTPUT = (*OUTPUTS, PRODUCT)

PER_LOGIT = ("gradient", "probabilities", "log_probabilities", "hessian_diagonal", PRODUCT)
"""The outputs of one value a logit; all others have one a row."""

DERIVATIVES = ("gradient", "hessian_diagonal", PRODUCT)
"""The outputs that are divided as a mean of the loss is."""

IN_PLACE = ("gradient", "probabilities")
"""The outputs that may take the place of their logits."""

INTEGERS = {"prediction": "int64", "correct": "bool", "rank": "int64"}
"""The outputs that are no floats, and their dtypes."""

DTYPES = ("float64", "float32", "float16", "bfloat16")
"""What logits may be, and what is returned; bfloat16 is the dtype of the package ml_dtypes."""

OPTIONS = (
    "outputs",
    "reduction",
    "ignore_index",
    "label_smoothing",
    "smoothing",
    "z_loss",
    "softcap",
    "temperature",
    "tail",
    "hard_weight",
    "denominator",
    "mean_over",
    "scale",
    "non_finite",
    "empty",
    "output_dtype",
)
"""Every option there is, the fields of `Options`."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One thing that can be asked of a batch.

    Attributes:
        name: of the library's function, the client's method and the service's route.
        tensors: what it may be given, logits always.
        options: the names of those that apply.
        outputs: what may be asked for.
        default_outputs: what is returned where `outputs` is not said, or no option.
        has_sums: whether loss_sum, weight_sum and count come with the outputs.
    """

    name: str
    tensors: tuple[str, ...]
    options: tuple[str, ...]
    outputs: tuple[str, ...]
    default_outputs: tuple[str, ...]
    has_sums: bool = False

    @property
    def has_target(self) -> bool:
        """Whether a batch needs a target."""
        return "labels" in self.tensors


CROSS_ENTROPY = Evaluation(
    name="cross_entropy",
    tensors=TENSORS,
    options=OPTIONS,
    outputs=OUTPUTS,
    default_outputs=("loss", "gradient"),
    has_sums=True,
)

SOFTMAX = Evaluation(
    name="softmax",
    tensors=("logits", "class_mask"),
    options=("outputs", "softcap", "temperature", "non_finite", "output_dtype"),
    outputs=("log_normalizer", "probabilities", "log_probabilities", "entropy", "prediction"),
    default_outputs=("probabilities",),
)

HESSIAN_VECTOR_PRODUCT = Evaluation(
    name=PRODUCT,
    tensors=(*TENSORS, "vectors"),
    options=OPTIONS[1:],
    outputs=(PRODUCT,),
    default_outputs=(PRODUCT,),
)

EVALUATIONS = {e.name: e for e in (CROSS_ENTROPY, SOFTMAX, HESSIAN_VECTOR_PRODUCT)}


def given_tensors(arguments: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Return the tensors among the arguments of a call, which has them under their names."""
    return {name: arguments[name] for name in evaluation.tensors}
