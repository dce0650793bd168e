"""The loss on PyTorch's tensors, and autograd Functions for eager calls.

Logits are [..., C] here. Arguments travel flat, because operators take no dictionaries: the
tensors of `TENSORS`, then the values of `OPTIONS`, each in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import softxent
from softxent._interop import (
    OPTIONS,
    ErrorsAlso,
    Evaluator,
    ThirdDerivativeError,
    as_numpy,
)
from softxent.dtypes import dtype_name
from softxent.errors import LabelError, SoftxentError
from softxent.evaluations import TENSORS
from softxent.options import Options

REFUSALS = ErrorsAlso({LabelError: IndexError, SoftxentError: RuntimeError})
"""What `torch.nn.functional.cross_entropy` raises where the library raises an error of its own."""


_DEFAULTS = tuple(getattr(Options, name) for name in OPTIONS)


def loss_and_gradient(
    tensors: Sequence[torch.Tensor | None],
    options: Sequence[Any],
    service: Evaluator | None,
    *,
    with_gradient: bool,
    in_place: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Evaluate logits [..., C]; return the loss in the dtype of computation, and the gradient.

    Args:
        tensors: as `TENSORS` names them, None where not given.
        options: values for `OPTIONS`.
        service: what evaluates; None is this process.
        with_gradient: whether the gradient is evaluated; else it is None.
        in_place: whether the gradient takes the place of the logits.
    """
    with REFUSALS:
        keywords = _keywords(tensors, options, service)
        logits = keywords["logits"]
        if in_place and service is None:
            keywords["out"] = {"gradient": logits}
        outputs = ("loss", "gradient") if with_gradient else ("loss",)
        result = _evaluator(service).cross_entropy(**keywords, outputs=outputs)
    if in_place and service is not None:
        logits[...] = result.gradient
    computed = np.float64 if logits.dtype == np.float64 else np.float32
    loss = _as_torch(np.asarray(result.loss, computed))
    if not with_gradient:
        return loss, None
    return loss, tensors[0] if in_place else _as_torch(result.gradient)


def hessian_vector_product(
    vectors: torch.Tensor,
    tensors: Sequence[torch.Tensor | None],
    options: Sequence[Any],
    service: Evaluator | None,
) -> torch.Tensor:
    """Return the Hessian of each row's loss by its logits, times `vectors` [..., C]."""
    with REFUSALS:
        keywords = _keywords(tensors, options, service)
        array = as_numpy("vectors", vectors)
        product = _evaluator(service).hessian_vector_product(vectors=array, **keywords)
    return _as_torch(product)


def _evaluator(service: Evaluator | None) -> Any:
    return softxent if service is None else service


def _keywords(
    tensors: Sequence[torch.Tensor | None], options: Sequence[Any], service: Any
) -> dict[str, Any]:
    """Return what an evaluator is called with: of the options those that are not its defaults."""
    keywords = {
        name: as_numpy(name, tensor)
        for name, tensor in zip(TENSORS, tensors, strict=True)
        if tensor is not None
    }
    has_labels = "labels" in keywords
    for name, value, default in zip(OPTIONS, options, _DEFAULTS, strict=True):
        if value is not default:
            keywords[name] = value
    if not has_labels and keywords.get("ignore_index", 0) < 0:
        # Without labels PyTorch takes any that is no class.
        del keywords["ignore_index"]
    if service is None:
        keywords["num_threads"] = torch.get_num_threads()
    return keywords


def _as_torch(array: Any) -> torch.Tensor:
    """Return an array as a tensor in the same memory; what is read-only is copied."""
    writable = array if array.flags.writeable else array.copy()
    if dtype_name(writable.dtype) == "bfloat16":
        return torch.from_numpy(writable.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(writable)


def scaled(gradient: torch.Tensor, upstream: torch.Tensor, out: torch.Tensor | None) -> Any:
    """Return the gradient times what comes from above: a number, or one for each row."""
    if upstream.item() == 1 if upstream.ndim == 0 else bool((upstream == 1).all()):
        return gradient
    factor = upstream if upstream.ndim == 0 else upstream.unsqueeze(-1)
    return torch.mul(gradient, factor, out=torch.empty_like(gradient) if out is None else out)


class CrossEntropy(torch.autograd.Function):
    """The loss of logits [..., C]; the gradient is evaluated with it and scaled in the backward."""

    @staticmethod
    def forward(ctx: Any, rest: Sequence[Any], logits: torch.Tensor) -> torch.Tensor:
        """Evaluate, and keep what both backwards need.

        What is not differentiated by travels in one argument: each takes `apply` a microsecond.
        """
        others, ctx.options, ctx.service = rest
        tensors = (logits, *others)
        loss, gradient = loss_and_gradient(tensors, ctx.options, ctx.service, with_gradient=True)
        ctx.save_for_backward(gradient, *tensors)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        """Scale the gradient, in its own memory where nobody needs it again."""
        if torch.is_grad_enabled():
            gradient = _Gradient.apply(ctx.options, ctx.service, *ctx.saved_tensors)
            factor = upstream if upstream.ndim == 0 else upstream.unsqueeze(-1)
            product = gradient * factor
        else:
            # The logits may have been changed since: they are not asked for.
            gradient = ctx._raw_saved_tensors[0].data
            kept = torch._C._autograd._get_current_graph_task_keep_graph()
            product = scaled(gradient, upstream, None if kept else gradient)
        return None, product


class _Gradient(torch.autograd.Function):
    """The gradient as a function of the logits, whose derivative is the Hessian."""

    @staticmethod
    def forward(
        ctx: Any, options: Sequence[Any], service: Any, gradient: torch.Tensor, *tensors: Any
    ) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        ctx.options, ctx.service = options, service
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, vectors: torch.Tensor) -> Any:
        logits, *others = ctx.saved_tensors
        tensors = (_TwiceAtMost.apply(logits), *others)
        product = _Product.apply(ctx.options, ctx.service, vectors, *tensors)
        return None, None, None, product, *(None,) * len(others)


class _Product(torch.autograd.Function):
    """The Hessian times vectors, which is linear in them and its own transpose."""

    @staticmethod
    def forward(
        ctx: Any, options: Sequence[Any], service: Any, vectors: torch.Tensor, *tensors: Any
    ) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        ctx.options, ctx.service = options, service
        return hessian_vector_product(vectors, tensors, options, service)

    @staticmethod
    def backward(ctx: Any, vectors: torch.Tensor) -> Any:
        product = _Product.apply(ctx.options, ctx.service, vectors, *ctx.saved_tensors)
        return None, None, product, *(None,) * len(TENSORS)


class _TwiceAtMost(torch.autograd.Function):
    """The logits that a Hessian is taken at: whoever asks for its derivative is refused."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, _upstream: Any) -> Any:  # noqa: ARG004
        raise ThirdDerivativeError


class CrossEntropyInPlace(torch.autograd.Function):
    """The same loss, with the gradient in the logits' memory.

    It takes the tensor that owns the memory, which is marked as overwritten: what was saved of it
    before, and what uses it afterwards, raises in the backward instead of being wrong.
    """

    @staticmethod
    def forward(
        ctx: Any, options: Sequence[Any], service: Any, owner: torch.Tensor, *tensors: Any
    ) -> Any:
        """Evaluate, and overwrite the logits."""
        logits = tensors[0].detach()
        loss, _ = loss_and_gradient(
            (logits, *tensors[1:]), options, service, with_gradient=True, in_place=True
        )
        ctx.mark_dirty(owner)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(owner.detach())
        ctx.layout = logits.shape, logits.stride()
        return loss, owner

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor | None, of_logits: torch.Tensor | None) -> Any:
        """Scale the gradient where it lies; the version counter is told."""
        if of_logits is not None:
            raise RuntimeError(
                "the logits were used after cross_entropy(inplace=True) had overwritten them with"
                " the gradient; use them before, or leave inplace out"
            )
        (owner,) = ctx.saved_tensors
        if upstream is not None:
            rows = owner.as_strided(*ctx.layout)
            scaled(rows, upstream, rows)
        return None, None, owner if upstream is not None else None, *(None,) * len(TENSORS)
