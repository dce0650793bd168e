"""Suggestions for names that are unknown: what other libraries call the same thing, or a typo."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from softxent.evaluations import OPTIONS, TENSORS

_OPTIONS, _TENSORS = (*OPTIONS, "logits_dtype"), (*TENSORS, "vectors")

LONGEST = 64
"""Characters of an unknown name that are compared and repeated; a client's may be megabytes."""

_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "logits": ("input", "inputs", "logit", "predictions", "scores", "x", "y_pred"),
    "labels": ("label", "target", "targets", "y", "y_true"),
    "class_weights": ("class_weight", "pos_weight", "weight", "weights"),
    "row_weights": ("row_weight", "sample_weight", "sample_weights", "weight", "weights"),
    "target_probabilities": (
        "one_hot",
        "probabilities",
        "probs",
        "soft_labels",
        "soft_targets",
        "target",
        "target_probs",
        "targets",
    ),
    "class_mask": ("mask",),
    "vectors": ("v", "vector"),
    "label_smoothing": ("alpha", "eps", "epsilon", "smooth"),
    "softcap": ("logit_softcap", "logit_softcapping", "soft_cap"),
    "temperature": ("T", "tau"),
    "z_loss": ("lse_square_scale", "z_loss_multiplier"),
    "scale": ("loss_scale",),
    "denominator": ("num_items_in_batch",),
    "outputs": ("output", "return_z_loss"),
}
"""Names of torch, optax, scikit-learn and kernels for language models, by ours."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence that refuses the name of an unknown "tensor", "option" or "output"."""
    name, known = name[:LONGEST], tuple(known)
    return f"unknown {kind} {name!r}; known are {', '.join(known)}{_hint(kind, name, known)}"


def _hint(kind: str, name: str, known: tuple[str, ...]) -> str:
    """Return the end of that sentence: where the name belongs, or what was meant."""
    if kind == "tensor" and name in _OPTIONS:
        return f"; {name} is an option: options are query parameters, in Python keywords"
    if kind == "option" and name in _TENSORS:
        return f"; {name} is a tensor: tensors stand in the body, in Python they are arguments"
    meant = [ours for ours, theirs in _ELSEWHERE.items() if name in theirs]
    meant = [ours for ours in meant if ours in known or kind == "option"]
    meant = meant or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {' or '.join(meant)}?" if meant else ""
