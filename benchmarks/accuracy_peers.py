"""What each library returns for the same logits and labels, under our names of the outputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import softxent

Array = npt.NDArray[Any]
Peer = Callable[[Array, Array], dict[str, Array]]

SMOOTHING = 0.1


def _softxent(logits: Array, labels: Array) -> dict[str, Array]:
    outputs = ("loss", "gradient", "log_normalizer", "probabilities")
    plain = vars(softxent.cross_entropy(logits, labels, outputs=outputs))
    smoothed = softxent.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    found = {name: plain[name] for name in outputs}
    return found | {
        "loss, smoothed": np.asarray(smoothed.loss),
        "gradient, smoothed": np.asarray(smoothed.gradient),
    }


def _torch(logits: Array, labels: Array) -> dict[str, Array]:
    import torch
    from torch.nn.functional import cross_entropy

    found: dict[str, Array] = {}
    for suffix, smoothing in (("", 0.0), (", smoothed", SMOOTHING)):
        x = torch.tensor(logits, requires_grad=True)
        loss = cross_entropy(
            x, torch.from_numpy(labels), reduction="none", label_smoothing=smoothing
        )
        loss.sum().backward()
        assert x.grad is not None
        found[f"loss{suffix}"] = loss.detach().numpy()
        found[f"gradient{suffix}"] = x.grad.numpy()
    x = torch.from_numpy(logits)
    found["log_normalizer"] = torch.logsumexp(x, 1).numpy()
    found["probabilities"] = torch.softmax(x, 1).numpy()
    return found


def _sklearn(logits: Array, labels: Array) -> dict[str, Array]:
    from sklearn._loss import HalfMultinomialLoss

    if logits.shape[1] == 1:
        return {}
    model = HalfMultinomialLoss(n_classes=logits.shape[1])
    loss, gradient = model.loss_gradient(labels.astype(logits.dtype), logits)
    return {
        "loss": loss,
        "gradient": gradient,
        "probabilities": model.predict_proba(logits),
    }


def _scipy(logits: Array, labels: Array) -> dict[str, Array]:
    special: Any = importlib.import_module("scipy.special")
    return {
        "loss": -special.log_softmax(logits, 1)[np.arange(len(labels)), labels],
        "log_normalizer": special.logsumexp(logits, 1),
        "probabilities": special.softmax(logits, 1),
    }


def _optax(logits: Array, labels: Array) -> dict[str, Array]:
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)
    x = jax.numpy.asarray(logits)

    def losses(x: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, labels)

    return {
        "loss": np.asarray(losses(x)),
        "gradient": np.asarray(jax.grad(lambda x: losses(x).sum())(x)),
        "log_normalizer": np.asarray(jax.nn.logsumexp(x, 1)),
        "probabilities": np.asarray(jax.nn.softmax(x, 1)),
    }


PEERS: dict[str, tuple[str, Peer]] = {
    "softxent": ("softxent", _softxent),
    "torch": ("torch", _torch),
    "scikit-learn": ("sklearn", _sklearn),
    "scipy": ("scipy", _scipy),
    "optax": ("optax", _optax),
}
