"""softxent.hf inside transformers.Trainer: the same training, however batches are divided."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy as torchs
from torch.testing import assert_close

import softxent
from softxent.hf import CausalLMLoss, DistillationLoss
from softxent_client import Client

SCRIPT = Path(__file__).with_name("hf_training.py")


def train(name: str, accumulated: int, processes: int = 1) -> dict[str, Any]:
    """Train in processes of their own; return the losses logged and the sum of all weights."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*command, f"--nproc-per-node={processes}"] if processes > 1 else [sys.executable]
    arguments = [str(SCRIPT), name, str(accumulated), str(processes)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=280)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(found[1])
    return result


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)
    assert one["weights"] == pytest.approx(other["weights"], rel=1e-6)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return train("transformers", 1)


@pytest.mark.parametrize("name", ["softxent", "softxent in place"])
def test_training_is_that_of_transformers(name: str, whole: dict[str, Any]) -> None:
    assert_same(train(name, 1), whole)


def test_accumulated_batches_give_one_loss(whole: dict[str, Any]) -> None:
    assert_same(train("softxent", 4), whole)


def test_devices_give_one_loss(whole: dict[str, Any]) -> None:
    assert_same(train("softxent", 2, processes=2), whole)


@pytest.mark.parametrize("name", ["top-k", "mixed"])
def test_distillation_does_not_depend_on_the_division(name: str) -> None:
    assert_same(train(name, 4), train(name, 1))


def batch() -> tuple[dict[str, Any], Any, dict[str, Any], Any]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 9, (2, 6), generator=generator)
    labels[0, 3:] = -100
    teacher = torch.softmax(torch.randn(2, 6, 9, generator=generator).double(), -1)
    top = teacher.topk(9)
    targets = {"target_indices": top.indices, "target_log_probabilities": top.values.log()}
    return {"logits": logits}, labels, targets, teacher


def test_distillation_is_cross_entropy_against_the_teacher() -> None:
    outputs, labels, targets, teacher = batch()
    logits = outputs["logits"]
    kept = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    rows = torchs(logits.movedim(-1, 1), teacher.movedim(-1, 1), reduction="none")
    expected = (rows * (kept != -100)).sum() / 5
    assert_close(DistillationLoss()(outputs, labels, 5, **targets), expected)
    hard = torchs(logits.movedim(-1, 1), kept, reduction="sum") / 5
    mixed = DistillationLoss(hard_weight=0.3)(outputs, labels, 5, **targets)
    assert_close(mixed, 0.3 * hard + 0.7 * expected)


def test_no_labels_at_all_is_nan() -> None:
    outputs, labels, _, _ = batch()
    assert CausalLMLoss()(outputs, torch.full_like(labels, -100), torch.tensor(0)).isnan()


def test_16_bits_give_a_loss_of_32() -> None:
    outputs, labels, _, _ = batch()
    half = {"logits": outputs["logits"].detach().bfloat16()}
    loss = CausalLMLoss(shift=False)(half, labels)
    assert loss.dtype == torch.float32
    theirs = torchs(half["logits"].double().movedim(-1, 1), labels)
    assert_close(loss.double(), theirs, rtol=1e-6, atol=0)


def test_what_is_missing_is_named() -> None:
    outputs, labels, _, _ = batch()
    with pytest.raises(softxent.TensorError, match="labels are required"):
        CausalLMLoss()(outputs, None)
    with pytest.raises(softxent.TensorError, match="remove_unused_columns=False"):
        DistillationLoss()(outputs, labels)


def test_a_service_gives_the_same_bits(service_url: str) -> None:
    outputs, labels, targets, _ = batch()
    with Client(service_url) as service:
        for make in (CausalLMLoss, DistillationLoss):
            given = targets if make is DistillationLoss else {}
            ours = make()(outputs, labels, 5, **given)
            assert make(service=service)(outputs, labels, 5, **given).item() == ours.item()
