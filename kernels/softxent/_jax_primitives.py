"""The loss as JAX differentiates and batches it: two primitives over XLA's foreign functions.

The gradient is a second result of the loss, in the logits' own buffer where XLA can spare that;
its derivative is the Hessian-vector product, which is linear in the vectors and its own transpose.
Parameters: `names` of the arrays, `options` as (name, value) pairs, `service`, `ranks` of the
arrays before any `jax.vmap`, which puts its dimensions in front.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from softxent import _jax_handler  # noqa: F401 - registers the foreign functions
from softxent._interop import ThirdDerivativeError
from softxent.errors import OptionError

loss_p = Primitive("softxent_cross_entropy")
loss_p.multiple_results = True
product_p = Primitive("softxent_hessian_vector_product")


def _call(parameters: dict[str, Any]) -> str:
    """Return what the handlers read."""
    options = dict(parameters["options"])
    named = {name: parameters[name] for name in ("names", "service", "ranks")}
    return json.dumps({**named, "options": options})


def _result_shapes(logits: Any, parameters: dict[str, Any]) -> list[Any]:
    leading = logits.shape[: logits.ndim - parameters["ranks"][0]]
    per_row = dict(parameters["options"])["reduction"] == "none"
    computed = logits.dtype if logits.dtype == jnp.float64 else jnp.float32
    loss = (logits.shape[:-1] if per_row else leading, jnp.dtype(computed))
    return [loss, (logits.shape, logits.dtype)][: 1 + parameters["with_gradient"]]


def _loss(logits: Any, *others: Any, **parameters: Any) -> Any:
    shapes = [jax.ShapeDtypeStruct(*shape) for shape in _result_shapes(logits, parameters)]
    call = jax.ffi.ffi_call(
        "softxent_cross_entropy",
        shapes,
        input_output_aliases={0: 1} if parameters["with_gradient"] else None,
        vmap_method="broadcast_all",
    )
    return call(logits, *others, call=_call(parameters))


def _product(vectors: Any, logits: Any, *others: Any, **parameters: Any) -> Any:
    shape = jax.ShapeDtypeStruct(logits.shape, logits.dtype)
    call = jax.ffi.ffi_call("softxent_hessian_vector_product", shape, vmap_method="broadcast_all")
    ranks = (parameters["ranks"][0], *parameters["ranks"])
    return call(vectors, logits, *others, call=_call({**parameters, "ranks": ranks}))


def _refuse_tangents(names: Sequence[str], tangents: Sequence[Any]) -> None:
    for name, tangent in zip(names, tangents, strict=True):
        if type(tangent) is not ad.Zero:
            raise OptionError(
                f"the loss is not differentiated by {name}: pass jax.lax.stop_gradient({name})",
                field=name,
            )


def _differentiate_loss(primals: Any, tangents: Any, **parameters: Any) -> Any:
    logits = primals[0]
    direction, *rest = tangents
    _refuse_tangents(parameters["names"][1:], rest)
    results = loss_p.bind(*primals, **{**parameters, "with_gradient": True})
    loss, gradient = results
    if type(direction) is ad.Zero:
        derivatives = [ad.Zero.from_primal_value(result) for result in results]
    else:
        products = gradient.astype(loss.dtype) * direction.astype(loss.dtype)
        axes = tuple(range(loss.ndim, logits.ndim))
        derivatives = [products.sum(axes)]
        if parameters["with_gradient"]:
            shared = {k: v for k, v in parameters.items() if k != "with_gradient"}
            derivatives.append(product_p.bind(direction, *primals, **shared))
    count = 1 + parameters["with_gradient"]
    return results[:count], derivatives[:count]


def _differentiate_product(primals: Any, tangents: Any, **parameters: Any) -> Any:
    vectors, *arrays = primals
    direction, *rest = tangents
    if any(type(tangent) is not ad.Zero for tangent in rest):
        raise ThirdDerivativeError
    result = product_p.bind(vectors, *arrays, **parameters)
    if type(direction) is ad.Zero:
        return result, ad.Zero.from_primal_value(result)
    return result, product_p.bind(direction, *arrays, **parameters)


def _transpose_product(cotangent: Any, _vectors: Any, *arrays: Any, **parameters: Any) -> Any:
    if type(cotangent) is ad.Zero:
        return None, *(None,) * len(arrays)
    return product_p.bind(cotangent, *arrays, **parameters), *(None,) * len(arrays)


def _in_front(arrays: Sequence[Any], dims: Sequence[Any]) -> list[Any]:
    """Return arrays whose batch dimension is the first, also of those that had none."""
    pairs = list(zip(arrays, dims, strict=True))
    size = next(a.shape[d] for a, d in pairs if d is not None)
    return [
        jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in pairs
    ]


def _batch_loss(arrays: Any, dims: Any, **parameters: Any) -> Any:
    results = loss_p.bind(*_in_front(arrays, dims), **parameters)
    return results, [0] * len(results)


def _batch_product(arrays: Any, dims: Any, **parameters: Any) -> Any:
    return product_p.bind(*_in_front(arrays, dims), **parameters), 0


def _shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, dtype)


loss_p.def_impl(
    jax.jit(_loss, static_argnames=("names", "options", "service", "ranks", "with_gradient"))
)
loss_p.def_abstract_eval(
    lambda logits, *_, **parameters: [_shaped(*s) for s in _result_shapes(logits, parameters)]
)
mlir.register_lowering(loss_p, mlir.lower_fun(_loss, multiple_results=True), platform="cpu")
ad.primitive_jvps[loss_p] = _differentiate_loss
batching.primitive_batchers[loss_p] = _batch_loss

product_p.def_impl(jax.jit(_product, static_argnames=("names", "options", "service", "ranks")))
product_p.def_abstract_eval(
    lambda _vectors, logits, *_others, **_: _shaped(logits.shape, logits.dtype)
)
mlir.register_lowering(product_p, mlir.lower_fun(_product, multiple_results=False), platform="cpu")
ad.primitive_jvps[product_p] = _differentiate_product
ad.primitive_transposes[product_p] = _transpose_product
batching.primitive_batchers[product_p] = _batch_product
