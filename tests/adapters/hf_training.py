"""Trains a tiny language model with Trainer; prints its losses and the sum of its weights.

Run by the tests, in one process or, by torchrun, in several.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from softxent.hf import CausalLMLoss, DistillationLoss, TopKTargets

VOCABULARY, LENGTH, ROWS = 40, 12, 8
TOP = 5


class Distiller(TopKTargets, Trainer):
    """A Trainer whose batches hold a teacher's top-k."""


def model() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=8,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def rows() -> list[dict[str, Any]]:
    """Sequences of which different parts have labels."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(ROWS):
        ids = torch.randint(0, VOCABULARY, (LENGTH,), generator=generator)
        labels = ids.clone()
        labels[3 + i :] = -100
        teacher = torch.log_softmax(torch.randn(LENGTH, VOCABULARY, generator=generator), 1)
        logs, indices = teacher.topk(TOP)
        made.append(
            {
                "input_ids": ids,
                "labels": labels,
                "target_indices": indices,
                "target_log_probabilities": logs,
            }
        )
    return made


LOSSES: dict[str, Any] = {
    "transformers": None,
    "softxent": CausalLMLoss(),
    "softxent in place": CausalLMLoss(inplace=True),
    "top-k": DistillationLoss(tail="bucket"),
    "mixed": DistillationLoss(tail="none", hard_weight=0.3),
}


class Recorder(TrainerCallback):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def train(name: str, accumulated: int, processes: int = 1) -> dict[str, Any]:
    trained, recorder = model(), Recorder()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            use_cpu=True,
            max_steps=3,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            per_device_train_batch_size=ROWS // accumulated // processes,
            gradient_accumulation_steps=accumulated,
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        loss = LOSSES[name]
        keep = ("input_ids", "labels") if not isinstance(loss, DistillationLoss) else None
        data = [{k: v for k, v in row.items() if keep is None or k in keep} for row in rows()]
        kind = Trainer if keep else Distiller
        trainer = kind(
            trained,
            arguments,
            train_dataset=data,
            compute_loss_func=loss,
            callbacks=[recorder],
        )
        trainer.train()
    weights = sum(float(p.detach().double().abs().sum()) for p in trained.parameters())
    return {"losses": recorder.losses, "weights": weights}


if __name__ == "__main__":
    processes = int(sys.argv[3])
    found = train(sys.argv[1], int(sys.argv[2]), processes)
    rank = torch.distributed.get_rank() if processes > 1 else 0
    if rank == 0:
        print("RESULT", json.dumps(found), flush=True)
    if processes > 1:
        torch.distributed.destroy_process_group()
