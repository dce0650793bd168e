"""Train a small transformer in PyTorch on a real text, distilled from a teacher's top-k.

The text is this project's own documents, a character at a time. The teacher is an n-gram model of
order 5, of whose predictions the eight largest are kept. The loss is mixed of the teacher's top-k
and the text itself, and its gradient takes the place of the logits.

    python examples/torch_distillation.py [--steps 60]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from ngrams import log_probabilities, read_text

from softxent.torch import cross_entropy

LENGTH, BATCH, TOP, WIDTH = 64, 16, 8, 64
CHARACTERS = 20_000


class Transformer(torch.nn.Module):
    """Two causal layers over characters and their positions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.characters = torch.nn.Embedding(classes, WIDTH)
        self.positions = torch.nn.Embedding(LENGTH, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, classes)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH)
        self.register_buffer("mask", mask)

    def forward(self, text: torch.Tensor) -> Any:
        """Return the logits of the next character, [batch, length, classes]."""
        hidden = self.characters(text) + self.positions.weight[: text.shape[1]]
        return self.head(self.layers(hidden, mask=self.mask, is_causal=True))


def batches(text: torch.Tensor, indices: torch.Tensor, logs: torch.Tensor) -> Iterator[Any]:
    """Yield characters, those after them, and the teacher's prediction of those, without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        starts = torch.randint(len(text) - LENGTH - 1, (BATCH, 1), generator=generator)
        places = starts + torch.arange(LENGTH)
        yield text[places], text[places + 1], indices[places + 1], logs[places + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    learned, _, classes = read_text()
    codes = learned[:CHARACTERS]
    teacher = torch.from_numpy(log_probabilities(learned, codes, classes, 5)).topk(TOP)
    model = Transformer(classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    data = batches(torch.from_numpy(codes), teacher.indices, teacher.values)
    for step, (text, labels, indices, logs) in zip(range(steps), data, strict=False):
        loss = cross_entropy(
            model(text).flatten(0, 1),
            labels.flatten(),
            target_indices=indices.flatten(0, 1),
            target_log_probabilities=logs.flatten(0, 1),
            hard_weight=0.3,
            inplace=True,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
