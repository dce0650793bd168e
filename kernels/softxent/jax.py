"""Softmax cross-entropy for JAX, evaluated by softxent in XLA's own buffers.

    from softxent.jax import cross_entropy

A pure function that `jit`, `vmap`, `grad` and `hessian` transform, on the CPU. Loss and gradient
are evaluated together; under `jit` with donated logits the gradient takes their place.
"""

from __future__ import annotations

from typing import Any, Unpack

from softxent._interop import OPTIONS, Evaluator, check_service, refuse_missing
from softxent.errors import OptionError, TensorError
from softxent.evaluations import DTYPES
from softxent.options import OptionKeywords, Options

try:
    import jax
    import jax.numpy as jnp
    import ml_dtypes  # noqa: F401 - comes with it
except ImportError as error:
    refuse_missing("jax", error, "jax")

from softxent._jax_handler import service_id
from softxent._jax_primitives import loss_p

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: Any,
    labels: Any = None,
    axis: int = -1,
    where: Any = None,
    *,
    target_probabilities: Any = None,
    target_indices: Any = None,
    target_log_probabilities: Any = None,
    class_weights: Any = None,
    row_weights: Any = None,
    loss_dtype: Any = None,
    service: Evaluator | None = None,
    **options: Unpack[OptionKeywords],
) -> jax.Array:
    """Return the softmax cross-entropy of each row, as optax's losses do.

    Args:
        logits: [..., C], floats of 64, 32 or 16 bits.
        labels: integers [...], as `optax.softmax_cross_entropy_with_integer_labels` takes them,
            or probabilities [..., C], as `optax.softmax_cross_entropy` does.
        axis: which axis of logits, probabilities and top-k targets holds the classes.
        where: booleans that broadcast to the logits; a class where it is false takes no part.
        target_probabilities, target_indices, target_log_probabilities, class_weights,
            row_weights: as `softxent.cross_entropy` takes them.
        loss_dtype: of the loss; None is the logits'.
        service: a `softxent_client.Client` that evaluates in the place of this process.
        **options: fields of `softxent.Options` but `outputs` and `output_dtype`; `non_finite` is
            "propagate" unless given, as in JAX.

    Returns:
        [...], or a scalar with `reduction` "mean" or "sum".

    Raises:
        InputError: options or shapes are refused, when the function is traced. Values that are
            refused raise `jax.errors.JaxRuntimeError` with the library's message and rows.
    """
    check_service(service)
    given = _options(options)
    scores = _last("logits", logits, axis)
    if jnp.result_type(scores).name not in DTYPES:
        raise TensorError(
            f"logits must be one of {', '.join(DTYPES)}, not {jnp.result_type(scores)}",
            field="logits",
        )
    soft = labels is not None and jnp.issubdtype(jnp.result_type(labels), jnp.floating)
    if soft and target_probabilities is not None:
        raise TensorError(
            "labels holds probabilities, and so does target_probabilities: give one",
            field="target_probabilities",
        )
    arrays = {
        "logits": scores,
        "labels": None if soft else labels,
        "target_probabilities": _last("labels", labels if soft else target_probabilities, axis),
        "target_indices": _last("target_indices", target_indices, axis),
        "target_log_probabilities": _last(
            "target_log_probabilities", target_log_probabilities, axis
        ),
        "class_weights": class_weights,
        "row_weights": row_weights,
        "class_mask": _mask(where, logits, axis),
    }
    named = {name: jnp.asarray(array) for name, array in arrays.items() if array is not None}
    if "labels" not in named:
        given.pop("ignore_index", None)
    loss = loss_p.bind(
        *named.values(),
        names=tuple(named),
        options=tuple(given.items()),
        service=service_id(service),
        ranks=tuple(array.ndim for array in named.values()),
        with_gradient=False,
    )[0]
    return loss.astype(scores.dtype if loss_dtype is None else loss_dtype)


def _options(given: Any) -> dict[str, Any]:
    """Return options as they were given, checked."""
    for name in given:
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise OptionError(f"unknown option {name!r}; known are {known}", field=name)
    options = {"non_finite": "propagate", "reduction": "none", **given}
    Options.from_keywords(options)
    return options


def _last(name: str, array: Any, axis: int) -> Any:
    """Return an array with the axis of the classes last."""
    if array is None:
        return None
    if jnp.ndim(array) == 0:
        raise TensorError(f"{name} must have an axis of classes", field=name)
    return jnp.moveaxis(array, axis, -1)


def _mask(where: Any, logits: Any, axis: int) -> Any:
    if where is None:
        return None
    return jnp.moveaxis(jnp.broadcast_to(where, jnp.shape(logits)), axis, -1)
