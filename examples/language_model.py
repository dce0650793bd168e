"""Evaluates language models from stored logits: loss a token, rank, accuracy, perplexity.

Models of a real text predict a document they have not seen. Their logits go to Zarr as a model
would store them, [rows, longest row, C] in half precision, the last row filled up.
`softxent evaluate` reads them block by block; what was filled up has the label -100 and is
left out.

    python examples/language_model.py [orders of the models]
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from ngrams import log_probabilities, read_text

LONGEST = 100
IGNORED = -100


def main() -> None:
    learned, text, classes = read_text()
    print(f"{len(learned)} characters to learn from, {len(text)} to predict, {classes} kinds")
    print("order     loss   bits perplexity accuracy median rank")
    for order in map(int, sys.argv[1:] or "1235"):
        attributes, rank = evaluate(log_probabilities(learned, text, classes, order), text)
        print(
            f"{order:>5} {attributes['mean']:>8.4f} {attributes['mean'] / math.log(2):>6.3f}"
            f" {attributes['perplexity']:>10.3f} {attributes['accuracy']:>8.3f}"
            f" {np.median(rank[rank >= 0]):>11.0f}"
        )


def evaluate(logits: Any, text: Any) -> tuple[dict[str, Any], Any]:
    """Return the attributes of a result, and the rank of each character that counts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        stored, labels = in_lines(logits.astype(np.float16), text)
        zarr.create_array(str(place / "logits.zarr"), data=stored, chunks=(16, *stored.shape[1:]))
        np.save(place / "labels.npy", labels)
        command = [sys.executable, "-m", "softxent_service.cli", "evaluate"]
        command += [str(place / "logits.zarr"), str(place / "labels.npy")]
        command += [f"--output={place / 'result.zarr'}", "--outputs=loss,rank"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result: Any = zarr.open_group(str(place / "result.zarr"), mode="r")
        return dict(result.attrs), result["rank"][:]


def in_lines(logits: Any, text: Any) -> tuple[Any, Any]:
    """Return logits and labels in rows of at most `LONGEST` characters, filled up and ignored."""
    rows = -(-len(text) // LONGEST)
    labels = np.full(rows * LONGEST, IGNORED)
    labels[: len(text)] = text
    padded = np.zeros((rows * LONGEST, logits.shape[1]), logits.dtype)
    padded[: len(text)] = logits
    return padded.reshape(rows, LONGEST, -1), labels.reshape(rows, LONGEST)


if __name__ == "__main__":
    main()
