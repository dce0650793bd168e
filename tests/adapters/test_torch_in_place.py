"""softxent.torch with `inplace`: the gradient takes the place of the logits, and misuse raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapter_support import LABELS, gradient, leaf
from torch.nn.functional import cross_entropy as torchs
from torch.testing import assert_close

from softxent.torch import cross_entropy

VIEWS = {
    "owner": lambda x: x,
    "view": lambda x: x.view(6, 5),
    "view of a view": lambda x: x.view(2, 3, 5).view(-1, 5),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("upstream", [1.0, 3.0])
def test_in_place(view: Any, upstream: float) -> None:
    w = leaf(torch.float32)
    expected = gradient(torchs(w * 2, LABELS) * upstream, w)
    x = w * 2
    memory = x.data_ptr()
    taken = []
    x.register_hook(lambda found: taken.append(found.data_ptr()))
    loss = cross_entropy(view(x), LABELS, inplace=True) * upstream
    assert_close(gradient(loss, w), expected)
    assert_close(x.detach(), expected / 2)
    assert memory in (x.data_ptr(), *taken)


def test_in_place_rows() -> None:
    w = leaf()
    factors = torch.arange(6.0, dtype=torch.float64)
    loss = (cross_entropy(w * 2, LABELS, reduction="none", inplace=True) * factors).sum()
    expected = (torchs(w * 2, LABELS, reduction="none") * factors).sum()
    assert_close(gradient(loss, w), gradient(expected, w))


def test_in_place_second_backward_raises() -> None:
    w = leaf()
    loss = cross_entropy(w * 2, LABELS, inplace=True) * 3
    torch.autograd.grad(loss, w, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, w)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_in_place_use_after_overwriting_raises(view: Any) -> None:
    w = leaf()
    x = w * 2
    loss = cross_entropy(view(x), LABELS, inplace=True)
    with pytest.raises(RuntimeError, match="used after"):
        (loss + x.sum()).backward()


def test_in_place_use_before_overwriting_raises() -> None:
    w = leaf()
    x = w * 2
    squares = (x * x).sum()
    loss = cross_entropy(x, LABELS, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + squares).backward()


@pytest.mark.parametrize(
    "prepare", [lambda w: w, lambda w: w.view(6, 5), lambda w: (w * 2)[1:]], ids=str
)
def test_in_place_refuses_what_it_cannot_overwrite(prepare: Any) -> None:
    w = leaf()
    x, before = prepare(w), w.detach().clone()
    with pytest.raises(RuntimeError, match="leave inplace out"):
        cross_entropy(x, LABELS[-len(x) :], inplace=True)
    assert_close(w.detach(), before)
