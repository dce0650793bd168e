"""The loss for whatever traces or transforms calls: custom operators, and Functions over them.

`torch.compile` and `torch.export` take the operators, which are functional: PyTorch differentiates
no operator that mutates. The transforms of `torch.func` take autograd Functions with a separate
`setup_context`. The gradient is a second output of either, whose own derivative is the Hessian.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from softxent._interop import OPTIONS, Evaluator, ThirdDerivativeError
from softxent._torch_autograd import hessian_vector_product, loss_and_gradient
from softxent.evaluations import TENSORS

_services: dict[int, Evaluator | None] = {0: None}
"""Those that compiled code names, kept as long as that may run."""

_SCHEMA_TYPES = {str: "str", int: "int", float: "float"}
_OPTIONAL = ("softcap", "hard_weight", "denominator")
_TENSOR_SCHEMA = ", ".join(f"Tensor{'?' if name != 'logits' else ''} {name}" for name in TENSORS)
_OPTION_SCHEMA = ", ".join(
    f"{_SCHEMA_TYPES[kind]}{'?' if name in _OPTIONAL else ''} {name}"
    for name, kind in OPTIONS.items()
)
_ARGUMENTS = f"{_TENSOR_SCHEMA}, {_OPTION_SCHEMA}, int service"


def service_id(service: Evaluator | None) -> int:
    """Return the number by which operators find a service; 0 is this process."""
    return 0 if service is None else _kept(id(service))


@torch.compiler.assume_constant_result
def _kept(address: int) -> int:
    """Keep the object at an address; compilers call this while they trace, not afterwards."""
    _services[address] = ctypes.cast(address, ctypes.py_object).value
    return address


def _split(arguments: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Any]:
    """Return tensors, options and what follows them."""
    return arguments[: len(TENSORS)], arguments[len(TENSORS) : -1], arguments[-1]


@torch.library.custom_op(
    "softxent::cross_entropy",
    mutates_args=(),
    schema=f"(bool with_gradient, {_ARGUMENTS}) -> (Tensor, Tensor)",
)
def cross_entropy_operator(with_gradient: bool, *arguments: Any) -> tuple[Any, Any]:
    """Return loss and gradient; the latter is empty where it is not wanted."""
    tensors, options, service = _split(arguments)
    loss, gradient = loss_and_gradient(
        tensors, options, _services[service], with_gradient=with_gradient
    )
    return loss, tensors[0].new_empty(0) if gradient is None else gradient


@torch.library.custom_op(
    "softxent::hessian_vector_product",
    mutates_args=(),
    schema=f"(Tensor vectors, {_ARGUMENTS}) -> Tensor",
)
def product_operator(vectors: torch.Tensor, *arguments: Any) -> Any:
    """Return the Hessian of each row's loss by its logits, times vectors."""
    tensors, options, service = _split(arguments)
    return hessian_vector_product(vectors, tensors, options, _services[service])


@cross_entropy_operator.register_fake
def _(with_gradient: bool, *arguments: Any) -> tuple[Any, Any]:
    (logits, *_rest), options, _service = _split(arguments)
    computed = torch.float64 if logits.dtype == torch.float64 else torch.float32
    reduction = dict(zip(OPTIONS, options, strict=True))["reduction"]
    shape = logits.shape[:-1] if reduction == "none" else ()
    gradient = logits.new_empty(logits.shape if with_gradient else (0,))
    return logits.new_empty(shape, dtype=computed), gradient


@product_operator.register_fake
def _(vectors: torch.Tensor, *arguments: Any) -> Any:  # noqa: ARG001
    return arguments[0].new_empty(arguments[0].shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, options, service = _split(inputs[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *tensors)
    ctx.rest = (*options, service)


def _derivative(ctx: Any, upstream: Any, vectors: Any, product: Any) -> Any:
    gradient, *tensors = ctx.saved_tensors
    total = None
    if upstream is not None:
        factor = upstream if upstream.ndim == 0 else upstream.unsqueeze(-1)
        total = (gradient * factor).to(gradient.dtype)
    if vectors is not None:
        curved = product(vectors, *tensors, *ctx.rest)
        total = curved if total is None else total + curved
    return None, total, *(None,) * (len(tensors) - 1 + len(ctx.rest))


def _backward(ctx: Any, upstream: Any, vectors: Any) -> Any:
    return _derivative(ctx, upstream, vectors, product_operator)


cross_entropy_operator.register_autograd(_backward, setup_context=_save)


def _over_batch(function: Any, info: Any, in_dims: Sequence[int | None], arguments: Any) -> Any:
    """Return results of a Function for each member of a batch of `torch.vmap`, and their dims."""
    results = []
    for i in range(info.batch_size):
        members = (
            argument if dim is None else argument.select(dim, i)
            for argument, dim in zip(arguments, in_dims, strict=True)
        )
        results.append(function.apply(*members))
    if isinstance(results[0], torch.Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])


class TransformedCrossEntropy(torch.autograd.Function):
    """Loss and gradient under `torch.func.grad`, `torch.vmap` and the like."""

    @staticmethod
    def forward(with_gradient: bool, *arguments: Any) -> Any:
        """Evaluate; see `cross_entropy_operator`."""
        return cross_entropy_operator(with_gradient, *arguments)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, upstream: Any, vectors: Any) -> Any:
        """Return the derivative by the logits."""
        return _derivative(ctx, upstream, vectors, TransformedProduct.apply)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Evaluate one member of a batch after the other."""
        return _over_batch(TransformedCrossEntropy, info, in_dims, arguments)


class TransformedProduct(torch.autograd.Function):
    """The Hessian of each row's loss by its logits, times vectors; it has no derivative."""

    @staticmethod
    def forward(vectors: torch.Tensor, *arguments: Any) -> Any:
        """Evaluate; see `product_operator`."""
        return product_operator(vectors, *arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, _upstream: Any) -> Any:  # noqa: ARG004
        """Refuse a third derivative."""
        raise ThirdDerivativeError

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Evaluate one member of a batch after the other."""
        return _over_batch(TransformedProduct, info, in_dims, arguments)
