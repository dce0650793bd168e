"""What the kernels are measured beside: the same loss and gradient by the usual libraries.

Each returns something to call, or None where the library is not installed. Rows are summed; every
library gets the same logits and labels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Work = Callable[[], object]


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def torch_eager(logits: Array, labels: Array, threads: int) -> Work | None:
    """torch's cross_entropy, forward and backward."""
    torch = _module("torch")
    if torch is None:
        return None
    torch.set_num_threads(threads)
    x = torch.tensor(logits, requires_grad=True)
    y = torch.from_numpy(labels)

    def work() -> None:
        x.grad = None
        torch.nn.functional.cross_entropy(x, y, reduction="sum").backward()

    return work


def torch_compiled(logits: Array, labels: Array, threads: int) -> Work | None:
    """torch.compile of a function that returns the loss and softmax less one-hot."""
    torch = _module("torch")
    if torch is None:
        return None
    torch.set_num_threads(threads)
    x, y = torch.tensor(logits), torch.from_numpy(labels)

    def fused(x: Any, y: Any) -> Any:
        log_p = torch.log_softmax(x, 1)
        hot = torch.nn.functional.one_hot(y, x.shape[1])
        return -log_p.gather(1, y[:, None]).sum(), log_p.exp() - hot

    compiled = torch.compile(fused)

    def work() -> object:
        with torch.no_grad():
            return compiled(x, y)

    return work


def scikit_learn(logits: Array, labels: Array, threads: int) -> Work | None:
    """scikit-learn's fused loss and gradient."""
    losses = _module("sklearn._loss.loss")
    if losses is None:
        return None
    loss = losses.HalfMultinomialLoss(n_classes=logits.shape[1])
    y = labels.astype(logits.dtype)
    loss_out, gradient_out = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    return lambda: loss.loss_gradient(
        y_true=y,
        raw_prediction=logits,
        loss_out=loss_out,
        gradient_out=gradient_out,
        n_threads=threads,
    )


def jax_optax(logits: Array, labels: Array, threads: int) -> Work | None:  # noqa: ARG001
    """JAX's jit of optax's loss and its gradient; XLA takes the cores that the process has."""
    jax, optax = _module("jax"), _module("optax")
    if jax is None or optax is None:
        return None
    jax.config.update("jax_enable_x64", True)

    def loss(x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, y).sum()

    both = jax.jit(jax.value_and_grad(loss))
    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(labels)
    return lambda: jax.block_until_ready(both(x, y))


PEERS = {
    "torch eager": torch_eager,
    "torch.compile": torch_compiled,
    "scikit-learn": scikit_learn,
    "JAX, optax": jax_optax,
}
