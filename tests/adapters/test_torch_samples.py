"""PyTorch's own sample inputs of cross_entropy: the same call gives the same loss and gradient."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy as torchs
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from softxent import WeightError
from softxent.torch import CrossEntropyLoss, cross_entropy

(OPERATOR,) = (op for op in op_db if op.name == "nn.functional.cross_entropy")
(MODULE,) = (info for info in module_db if info.module_cls is torch.nn.CrossEntropyLoss)
DTYPES = sorted(OPERATOR.dtypes, key=str)


def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)


def samples(dtype: Any, *, requires_grad: bool) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Logits, target and keywords of every sample; weights below 0, which are refused, turned."""
    seeded()
    for sample in OPERATOR.sample_inputs_func(OPERATOR, "cpu", dtype, requires_grad):
        logits, target, options = sample.input, sample.args[0].detach(), dict(sample.kwargs)
        if options.get("weight") is not None:
            options["weight"] = options["weight"].detach()
        weight = options.get("weight")
        if weight is not None and bool((weight < 0).any()):
            with pytest.raises(WeightError):
                cross_entropy(logits, target, **options)
            options["weight"] = weight.abs()
        yield logits, target, options


def of_module(dtype: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    seeded()
    for sample in MODULE.module_inputs_func(
        MODULE, device="cpu", dtype=dtype, requires_grad=False, training=True
    ):
        options = dict(sample.constructor_input.kwargs)
        if options.get("weight") is not None:
            options["weight"] = options["weight"].abs()
        yield *sample.forward_input.args, options


def gradient(loss: Any, logits: Any) -> Any:
    return torch.autograd.grad(loss, logits, torch.linspace(1, 2, loss.numel()).view_as(loss))[0]


def assert_same(logits: Any, target: Any, ours: Any, theirs: Any) -> None:
    leaf = logits.detach().requires_grad_()
    loss = ours(leaf, target)
    # PyTorch's own gradients of 16 bits are off by 90 %: it is asked in float64.
    is_half = logits.dtype.itemsize == 2
    exact = leaf.detach().double().requires_grad_() if is_half else leaf
    expected = theirs(exact, target.double() if is_half and target.is_floating_point() else target)
    assert loss.dtype == logits.dtype
    assert_close(loss, expected.to(loss.dtype), equal_nan=True)
    assert_close(gradient(loss, leaf), gradient(expected, exact).to(loss.dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_of_the_operator(dtype: Any) -> None:
    count = 0
    for logits, target, options in samples(dtype, requires_grad=False):
        exact = dict(options)
        if dtype.itemsize == 2 and options.get("weight") is not None:
            exact["weight"] = options["weight"].double()
        assert_same(
            logits,
            target,
            partial(cross_entropy, **options),
            partial(torchs, **exact),
        )
        count += 1
    assert count > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_of_the_module(dtype: Any) -> None:
    count = 0
    for logits, target, options in of_module(dtype):
        ours, theirs = CrossEntropyLoss(**options), torch.nn.CrossEntropyLoss(**options)
        assert_same(logits, target, ours, theirs)
        count += 1
    assert count > 50


def test_derivatives_of_samples() -> None:
    for logits, target, options in samples(torch.float64, requires_grad=True):

        def loss(x: Any, target: Any = target, options: Any = options) -> Any:
            return cross_entropy(x, target, **options)

        assert torch.autograd.gradcheck(loss, logits)
        assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_faults_raise_pytorchs_own_types(dtype: Any) -> None:
    seeded()
    faults = MODULE.module_error_inputs_func(
        MODULE, device="cpu", dtype=dtype, requires_grad=False, training=True
    )
    assert faults
    for fault in faults:
        sample = fault.module_error_input
        module = CrossEntropyLoss(**sample.constructor_input.kwargs)
        with pytest.raises(fault.error_type):
            module(*sample.forward_input.args)
