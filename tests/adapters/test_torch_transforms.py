"""softxent.torch under compilers and transforms, beside PyTorch's own loss there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy as torchs
from torch.testing import assert_close

from softxent.evaluations import TENSORS
from softxent.torch import cross_entropy
from softxent_client import Client

LABELS = torch.tensor([0, 1, 2, 3, -100, 4])


def logits(dtype: Any = torch.float64) -> Any:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)


def options(reduction: str) -> tuple[Any, ...]:
    return (
        *(reduction, -100, 0.1, "all", 0.0, None, 1.0, "renormalize", None, None),
        *("weights", 1.0, "propagate", "nan"),
    )


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_operators_pass_opcheck(reduction: str) -> None:
    nothing = [None] * (len(TENSORS) - 2)
    x = logits().requires_grad_()
    arguments = (LABELS, *nothing, *options(reduction), 0)
    namespace = torch.ops.softxent
    torch.library.opcheck(namespace.cross_entropy.default, (True, x, *arguments))
    torch.library.opcheck(
        namespace.hessian_vector_product.default, (logits(), x.detach(), *arguments)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_compiled_without_a_graph_break(dtype: Any) -> None:
    def loss_of(function: Any) -> Any:
        return lambda x: function(x * 2, LABELS, label_smoothing=0.1)

    x = logits(dtype).requires_grad_()
    compiled = torch.compile(loss_of(cross_entropy), fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(x), loss_of(torchs)(x)
    assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(loss, x)[0] for loss in (ours, theirs))
    assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_by_inductor() -> None:
    x = logits().requires_grad_()
    ours = torch.compile(lambda x: cross_entropy(x * 2, LABELS), fullgraph=True)(x)
    theirs = torchs(x * 2, LABELS)
    assert_close(torch.autograd.grad(ours, x)[0], torch.autograd.grad(theirs, x)[0])


def test_compiled_with_a_service(service_url: str) -> None:
    with Client(service_url) as service:
        compiled = torch.compile(
            lambda x: cross_entropy(x, LABELS, service=service), fullgraph=True, backend="aot_eager"
        )
        assert compiled(logits()).item() == cross_entropy(logits(), LABELS).item()


def test_compiled_faults_name_rows() -> None:
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match=r"rows 0 \(7\)"):
        compiled(logits()[:1], torch.tensor([7]))


class Rows(torch.nn.Module):
    def forward(self, x: Any, labels: Any) -> Any:
        return cross_entropy(x, labels, reduction="none")


def test_exported() -> None:
    rows = torch.export.Dim("rows")
    program = torch.export.export(
        Rows(), (logits(), LABELS), dynamic_shapes={"x": {0: rows}, "labels": {0: rows}}
    )
    x = logits().repeat(2, 1)
    assert_close(
        program.module()(x, LABELS.repeat(2)), torchs(x, LABELS.repeat(2), reduction="none")
    )


def test_functional_derivatives() -> None:
    def both(transform: Any, *arguments: Any) -> None:
        ours, theirs = (
            transform(lambda x, y, f=f: f(x, y))(*arguments) for f in (cross_entropy, torchs)
        )
        assert_close(ours, theirs)

    both(torch.func.grad, logits(), LABELS)
    both(torch.func.grad_and_value, logits(), LABELS)
    both(lambda f: torch.func.jacrev(torch.func.grad(f)), logits(), LABELS)
    both(lambda f: torch.vmap(torch.func.grad(f)), logits()[:4], LABELS[:4])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_second_derivatives(reduction: str) -> None:
    def loss(x: Any) -> Any:
        return cross_entropy(x, LABELS, reduction=reduction, label_smoothing=0.1, temperature=2.0)

    x = logits().requires_grad_()
    assert torch.autograd.gradcheck(loss, x)
    assert torch.autograd.gradgradcheck(loss, x)


def test_third_derivatives_are_refused() -> None:
    x = logits().requires_grad_()
    (first,) = torch.autograd.grad(cross_entropy(x, LABELS), x, create_graph=True)
    (second,) = torch.autograd.grad((first * logits()).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivatives"):
        torch.autograd.grad(second.sum(), x)


def test_hessian_vector_product() -> None:
    vector = torch.ones(6, 5, dtype=torch.float64).triu()
    ours, theirs = (
        torch.autograd.functional.hvp(lambda x, f=f: f(x, LABELS), logits(), vector)
        for f in (cross_entropy, torchs)
    )
    assert_close(ours, theirs)
