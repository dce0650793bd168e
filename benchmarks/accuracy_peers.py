"""What each library returns for the same problem, under our names of the outputs.

Where a library has no function for an output, what its users write stands here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import softxent

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """One row of logits [1, C], a target, a temperature, and a vector [1, C].

    Attributes:
        label: the target, or None where `probabilities` [1, C] or the entries [1, K] are.
    """

    logits: Array
    vector: Array
    label: int | None = None
    smoothing: float = 0.0
    probabilities: Array | None = None
    indices: Array | None = None
    log_probabilities: Array | None = None
    temperature: float = 1.0


Peer = Callable[[Problem, str], Array | None]
"""Returns an output by name, None where the library has no such thing."""


def _softxent(p: Problem, output: str) -> Array | None:
    call: dict[str, Any] = {"temperature": p.temperature, "label_smoothing": p.smoothing}
    if p.label is not None:
        call["labels"] = np.array([p.label])
    if p.probabilities is not None:
        call["target_probabilities"] = p.probabilities
    if p.indices is not None:
        call["target_indices"] = p.indices
        call["target_log_probabilities"] = p.log_probabilities
    if output == "hessian_vector_product":
        return softxent.hessian_vector_product(p.logits, p.vector, **call)
    result = softxent.cross_entropy(p.logits, outputs=output, **call)
    return np.asarray(getattr(result, output))


def _torch(p: Problem, output: str) -> Array | None:
    import torch

    f = torch.nn.functional
    x = torch.tensor(p.logits, requires_grad=output == "gradient")
    z = x / p.temperature if p.temperature != 1 else x
    if output in ("loss", "gradient"):
        if p.indices is not None:
            return None
        target: Any = torch.tensor([p.label]) if p.label is not None else None
        if p.probabilities is not None:
            target = torch.from_numpy(p.probabilities)
        loss = f.cross_entropy(z, target, reduction="none", label_smoothing=p.smoothing)
        if output == "loss":
            return np.asarray(loss.numpy())
        loss.sum().backward()
        assert x.grad is not None
        return np.asarray(x.grad.numpy())
    a, v = torch.softmax(z, 1), torch.from_numpy(p.vector)
    forms: dict[str, Callable[[], Any]] = {
        "log_normalizer": lambda: torch.logsumexp(z, 1),
        "probabilities": lambda: a,
        "log_probabilities": lambda: torch.log_softmax(z, 1),
        "entropy": lambda: torch.special.entr(a).sum(1),
        "target_entropy": lambda: torch.special.entr(torch.from_numpy(p.probabilities)).sum(1),
        "hessian_diagonal": lambda: a * (1 - a),
        "hessian_vector_product": lambda: a * (v - (a * v).sum(1, keepdim=True)),
    }
    return np.asarray(forms[output]().numpy())


def _sklearn(p: Problem, output: str) -> Array | None:
    from sklearn._loss import HalfMultinomialLoss

    if p.logits.shape[1] == 1 or p.label is None or p.smoothing or p.temperature != 1:
        return None
    model = HalfMultinomialLoss(n_classes=p.logits.shape[1])
    if output == "probabilities":
        return np.asarray(model.predict_proba(p.logits))
    if output not in ("loss", "gradient"):
        return None
    loss, gradient = model.loss_gradient(np.array([p.label], p.logits.dtype), p.logits)
    return np.asarray(loss if output == "loss" else gradient)


def _scipy(p: Problem, output: str) -> Array | None:
    special: Any = importlib.import_module("scipy.special")
    forms: dict[str, Callable[[], Any]] = {
        "log_normalizer": lambda: special.logsumexp(p.logits, 1),
        "probabilities": lambda: special.softmax(p.logits, 1),
        "log_probabilities": lambda: special.log_softmax(p.logits, 1),
        "entropy": lambda: special.entr(special.softmax(p.logits, 1)).sum(1),
        "target_entropy": lambda: special.entr(p.probabilities).sum(1),
    }
    if output == "loss" and p.label is not None and not p.smoothing and p.temperature == 1:
        return np.asarray(-special.log_softmax(p.logits, 1)[:, p.label])
    return np.asarray(forms[output]()) if output in forms else None


def _optax(p: Problem, output: str) -> Array | None:
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)
    x = jax.numpy.asarray(p.logits)

    def loss(x: Any) -> Any:
        z = x / p.temperature if p.temperature != 1 else x
        if p.probabilities is not None:
            return optax.softmax_cross_entropy(z, p.probabilities)
        if not p.smoothing:
            return optax.softmax_cross_entropy_with_integer_labels(z, np.array([p.label]))
        one_hot = jax.nn.one_hot(np.array([p.label]), x.shape[1], dtype=x.dtype)
        return optax.softmax_cross_entropy(z, optax.smooth_labels(one_hot, p.smoothing))

    forms: dict[str, Callable[[], Any]] = {
        "loss": lambda: loss(x),
        "gradient": lambda: jax.grad(lambda x: loss(x).sum())(x),
        "log_normalizer": lambda: jax.nn.logsumexp(x, 1),
        "probabilities": lambda: jax.nn.softmax(x, 1),
        "log_probabilities": lambda: jax.nn.log_softmax(x, 1),
    }
    if output not in forms or p.indices is not None:
        return None
    return np.asarray(forms[output]())


PEERS: dict[str, tuple[str, Peer]] = {
    "softxent": ("softxent", _softxent),
    "torch": ("torch", _torch),
    "scikit-learn": ("sklearn", _sklearn),
    "scipy": ("scipy", _scipy),
    "optax": ("optax", _optax),
}


@functools.cache
def is_installed(name: str) -> bool:
    """Tell whether a library can be imported."""
    try:
        importlib.import_module(PEERS[name][0])
    except ImportError:
        return False
    return True
