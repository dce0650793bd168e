"""Character n-gram models of a real text, for the examples about language models.

The text is this project's own documents. A model of order n counts which character follows each
n - 1 others, and mixes that with the model one shorter by how many it has seen (Witten and Bell):
p_n(c | h) = (count(h c) + distinct(h) p_(n-1)(c | h')) / (count(h) + distinct(h)).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = "docs/numerics.md"
"""No model has seen this document."""

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def read_text() -> tuple[Codes, Codes, int]:
    """Return the characters to learn from and those to test with, as codes in [0, C), and C."""
    paths = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "LICENSE"])
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    held_out = texts.pop(ROOT / HELD_OUT)
    learned = "\n".join(texts.values())
    known = sorted(set(learned + held_out))
    code_of = {character: code for code, character in enumerate(known)}
    both = (np.array([code_of[c] for c in text], np.int64) for text in (learned, held_out))
    return *both, len(known)  # type: ignore[return-value]


def log_probabilities(learned: Codes, text: Codes, classes: int, order: int) -> Floats:
    """Return log p(c | what stands before), [characters, C], of a model of some order."""
    mixed = np.full((len(text), classes), 1.0 / classes)
    for n in range(1, order + 1):
        keys, test_keys = _contexts(learned, n, classes), _contexts(text, n, classes)
        histories, rows = np.unique(keys, return_inverse=True)
        counts = np.zeros((len(histories), classes))
        np.add.at(counts, (rows, learned), 1)
        places = np.searchsorted(histories, test_keys).clip(max=len(histories) - 1)
        seen = np.where((histories[places] == test_keys)[:, None], counts[places], 0)
        total, distinct = seen.sum(1, keepdims=True), (seen > 0).sum(1, keepdims=True)
        blended = (seen + distinct * mixed) / np.maximum(total + distinct, 1)
        mixed = np.where(total > 0, blended, mixed)
    return np.asarray(np.log(mixed))


def _contexts(text: Codes, n: int, classes: int) -> Codes:
    """Return a number for the n - 1 characters before each; before the first stand zeros."""
    keys = np.zeros(len(text), np.int64)
    for back in range(1, n):
        before = np.concatenate([np.zeros(back, np.int64), text[:-back]])
        keys = keys * classes + before
    return keys
