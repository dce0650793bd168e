"""Logits, labels and gradients of the tests of softxent.torch."""

from __future__ import annotations

from typing import Any

import torch

LABELS = torch.tensor([0, 1, 2, 3, -100, 4])


def logits(dtype: Any = torch.float64) -> Any:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)


def leaf(dtype: Any = torch.float64) -> Any:
    return logits(dtype).requires_grad_()


def gradient(loss: Any, x: Any) -> Any:
    return torch.autograd.grad(loss, x)[0]
