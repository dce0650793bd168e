"""softxent.jax beside optax, under every transformation, and what it adds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import softxent
from softxent.jax import cross_entropy
from softxent_client import Client

jax.config.update("jax_enable_x64", True)

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(scale=3, size=(6, 5)))
LABELS = jnp.asarray([0, 1, 2, 3, 4, 0])
TEACHER = jax.nn.softmax(jnp.asarray(RANDOM.normal(size=(6, 5))))
MASK = jnp.asarray([True, True, False, True, True])


def of_labels(x: Any, y: Any = LABELS) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(x, y)


PAIRS: dict[str, tuple[Any, Any]] = {
    "labels": (lambda x: cross_entropy(x, LABELS), of_labels),
    "probabilities": (
        lambda x: cross_entropy(x, TEACHER),
        lambda x: optax.softmax_cross_entropy(x, TEACHER),
    ),
    "mean": (lambda x: cross_entropy(x, LABELS, reduction="mean"), lambda x: of_labels(x).mean()),
    "sum": (lambda x: cross_entropy(x, LABELS, reduction="sum"), lambda x: of_labels(x).sum()),
    "axis": (
        lambda x: cross_entropy(x.T, LABELS, axis=0),
        lambda x: optax.softmax_cross_entropy_with_integer_labels(x.T, LABELS, axis=0),
    ),
    "smoothing": (
        lambda x: cross_entropy(x, LABELS, label_smoothing=0.1),
        lambda x: optax.softmax_cross_entropy(
            x, optax.smooth_labels(jax.nn.one_hot(LABELS, 5), 0.1)
        ),
    ),
    "z_loss": (
        lambda x: cross_entropy(x, LABELS, z_loss=0.1),
        lambda x: of_labels(x) + 0.1 * jax.nn.logsumexp(x, axis=1) ** 2,
    ),
    "temperature": (
        lambda x: cross_entropy(x, LABELS, temperature=2.0),
        lambda x: of_labels(x / 2),
    ),
    "where": (
        lambda x: cross_entropy(x, LABELS % 2, where=MASK),
        lambda x: optax.softmax_cross_entropy_with_integer_labels(
            x, LABELS % 2, where=jnp.broadcast_to(MASK, x.shape)
        ),
    ),
    "row_weights": (
        lambda x: cross_entropy(x, LABELS, row_weights=jnp.arange(6.0)),
        lambda x: of_labels(x) * jnp.arange(6.0),
    ),
    "top-k": (
        lambda x: cross_entropy(
            x,
            target_indices=jax.lax.top_k(TEACHER, 5)[1],
            target_log_probabilities=jnp.log(jax.lax.top_k(TEACHER, 5)[0]),
        ),
        lambda x: optax.softmax_cross_entropy(x, TEACHER),
    ),
}


def assert_same(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_derivatives(name: str, compiled: bool) -> None:
    ours, theirs = PAIRS[name]
    wrap = jax.jit if compiled else lambda f: f
    assert_same(wrap(ours)(LOGITS), theirs(LOGITS))
    vector = jnp.asarray(np.triu(np.ones((6, 5))))
    for derive in (
        lambda f: jax.grad(lambda x: f(x).sum() * 2),
        jax.jacrev,
        lambda f: lambda x: jax.jvp(f, (x,), (vector,)),
        lambda f: jax.hessian(lambda x: f(x).sum()),
        lambda f: jax.jacrev(jax.grad(lambda x: f(x).sum())),
    ):
        assert_same(wrap(derive(ours))(LOGITS), derive(theirs)(LOGITS))


@pytest.mark.parametrize("name", ["labels", "mean", "smoothing"])
def test_check_grads(name: str) -> None:
    check_grads(PAIRS[name][0], (LOGITS,), order=2)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_vmap(reduction: Any) -> None:
    x, y = LOGITS.reshape(3, 2, 5), LABELS.reshape(3, 2)
    weights = jnp.asarray([[1.0, 2.0, 3.0, 4.0, 5.0]] * 3)

    def ours(x: Any, y: Any, w: Any) -> Any:
        return cross_entropy(x, y, class_weights=w, reduction=reduction)

    def theirs(x: Any, y: Any, w: Any) -> Any:
        rows = of_labels(x, y) * w[y]
        return rows if reduction == "none" else rows.sum() / w[y].sum()

    assert_same(jax.vmap(ours)(x, y, weights), jax.vmap(theirs)(x, y, weights))
    outer = jax.vmap(ours, in_axes=(0, 0, None))
    assert_same(outer(x, y, weights[0]), jax.vmap(theirs)(x, y, weights))

    def summed(f: Any) -> Any:
        return jax.jit(jax.vmap(jax.grad(lambda *arguments: f(*arguments).sum())))

    assert_same(summed(ours)(x, y, weights), summed(theirs)(x, y, weights))
    assert_same(
        jax.grad(lambda x: outer(x, y, weights[0]).sum())(x),
        jax.grad(lambda x: jax.vmap(theirs)(x, y, weights).sum())(x),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_bits_are_the_librarys(dtype: str) -> None:
    x = LOGITS.astype(dtype)
    theirs = softxent.cross_entropy(np.asarray(x), np.asarray(LABELS), reduction="mean")
    loss, gradient = jax.jit(
        jax.value_and_grad(
            lambda x: cross_entropy(x, LABELS, reduction="mean", loss_dtype="float64")
        )
    )(x)
    assert loss == np.asarray(theirs.loss, np.float64 if dtype == "float64" else np.float32)
    assert gradient.dtype == x.dtype
    assert np.asarray(gradient).tobytes() == np.asarray(theirs.gradient).tobytes()
    assert cross_entropy(x, LABELS).dtype == x.dtype


def test_gradient_takes_the_place_of_donated_logits() -> None:
    step = jax.jit(
        jax.value_and_grad(lambda x: cross_entropy(x, LABELS, reduction="mean")), donate_argnums=0
    )
    x = jnp.array(LOGITS, copy=True)
    memory = x.unsafe_buffer_pointer()
    _, gradient = step(x)
    assert gradient.unsafe_buffer_pointer() == memory
    assert x.is_deleted()


def test_logits_that_are_kept_stay_as_they_are() -> None:
    x = jnp.array(LOGITS, copy=True)
    jax.jit(jax.grad(lambda x: cross_entropy(x, LABELS, reduction="mean")))(x)
    assert_same(x, LOGITS)


def test_no_rows() -> None:
    assert cross_entropy(jnp.zeros((0, 5)), jnp.zeros(0, int)).shape == (0,)
    assert jnp.isnan(cross_entropy(LOGITS, LABELS * 0 - 100, reduction="mean"))


def test_values_that_are_refused_name_their_rows() -> None:
    for call in (cross_entropy, jax.jit(cross_entropy)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"1 does not; rows 2 \(9\)"):
            jax.block_until_ready(call(LOGITS[:3], jnp.asarray([0, 1, 9])))


FAULTS: dict[str, tuple[type[Exception], str, Any]] = {
    "option": (
        softxent.OptionError,
        "unknown option 'z_los'",
        lambda x: cross_entropy(x, LABELS, z_los=1.0),  # type: ignore[call-arg]
    ),
    "value": (
        softxent.OptionError,
        "label_smoothing must be in",
        lambda x: cross_entropy(x, LABELS, label_smoothing=2.0),
    ),
    "dtype": (
        softxent.TensorError,
        "logits must be one of float64, float32, float16, bfloat16, not int64",
        lambda x: cross_entropy(x.astype(int), LABELS),
    ),
    "both": (
        softxent.TensorError,
        "labels holds probabilities",
        lambda x: cross_entropy(x, TEACHER, target_probabilities=TEACHER),
    ),
    "scalar": (
        softxent.TensorError,
        "logits must have an axis of classes",
        lambda x: cross_entropy(x[0, 0], LABELS),
    ),
    "service": (
        softxent.OptionError,
        "service must be a softxent_client.Client or None, not int",
        lambda x: cross_entropy(x, LABELS, service=3),  # type: ignore[arg-type]
    ),
    "derivative": (
        softxent.OptionError,
        "not differentiated by target_probabilities",
        lambda x: jax.grad(lambda t: cross_entropy(x, t).sum())(TEACHER),
    ),
    "third derivative": (
        RuntimeError,
        "no third derivatives",
        lambda x: jax.jacrev(jax.hessian(lambda x: cross_entropy(x, LABELS).sum()))(x),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    error, message, call = FAULTS[name]
    with pytest.raises(error, match=message):
        call(LOGITS)


def test_a_service_gives_the_same_bits(service_url: str) -> None:
    with Client(service_url) as service:
        ours, remote = (
            jax.jit(
                jax.value_and_grad(
                    lambda x, s=s: cross_entropy(x, LABELS, reduction="mean", service=s)
                )
            )(LOGITS.astype("float32"))
            for s in (None, service)
        )
        assert ours[0] == remote[0]
        assert np.array_equal(ours[1], remote[1])
        hessians = [
            jax.hessian(lambda x, s=s: cross_entropy(x, LABELS[:1], service=s).sum())(LOGITS[:1])
            for s in (None, service)
        ]
        assert np.array_equal(*hessians)
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"rows 0 \(9\)"):
            jax.block_until_ready(cross_entropy(LOGITS[:1], jnp.asarray([9]), service=service))
