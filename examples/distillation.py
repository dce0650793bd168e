"""Distils a teacher into a student over arrays at rest: only the gradient comes back.

The teacher is a character model of order 5 of a real text; of each of its predictions the eight
largest log-probabilities are stored, as a team would store terabytes of them. The student is a
table of logits by the two characters before. Each step its logits go to Zarr, a job evaluates
cross-entropy against the stored top-k with the rest in a bucket, and the gradient is read back.

    python examples/distillation.py [URL of a service]

With a URL the jobs run there (its SOFTXENT_ROOTS must hold the folder of --folder), else here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from ngrams import log_probabilities, read_text

TOP = 8
ROWS = 4000
RATE = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="a service that runs the jobs")
    parser.add_argument("--folder", type=Path, help="where arrays are kept")
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        distil(given.folder or Path(temporary), given.url, given.steps)


def distil(folder: Path, url: str | None, steps: int) -> None:
    learned, _, classes = read_text()
    text = learned[:ROWS]
    store_teacher(folder, log_probabilities(learned, text, classes, 5))
    before = np.concatenate([[0, 0], text[:-1]])
    histories, row_of = np.unique(before[1:] * classes + before[:-1], return_inverse=True)
    student = np.zeros((len(histories), classes), np.float32)
    for step in range(steps):
        result = run_job(folder, f"step{step}", student[row_of], url)
        gradient = result["gradient"][:]
        print(
            f"step {step}: loss {result.attrs['mean']:.4f}, of that the teacher's own entropy"
            f" {result['target_entropy'][:].mean():.4f}; gradient {gradient.shape}"
        )
        # Rows of one history share their logits: their gradients add up.
        update = np.zeros_like(student)
        np.add.at(update, row_of, gradient)
        student -= RATE * update / np.bincount(row_of)[:, None]


def store_teacher(folder: Path, logs: Any) -> None:
    """Write the largest log-probabilities of each row, and the classes they belong to."""
    indices = np.argsort(-logs, axis=1)[:, :TOP]
    kept = np.take_along_axis(logs, indices, 1).astype(np.float16)
    zarr.create_array(
        str(folder / "indices.zarr"), data=indices.astype(np.int32), chunks=(500, TOP)
    )
    zarr.create_array(str(folder / "logs.zarr"), data=kept, chunks=(500, TOP))


def run_job(folder: Path, name: str, logits: Any, url: str | None) -> Any:
    """Write the student's logits, run a job over them, and open its result."""
    zarr.create_array(str(folder / f"{name}.zarr"), data=logits, chunks=(500, logits.shape[1]))
    job = {
        "logits": f"file://{folder}/{name}.zarr",
        "target_indices": f"file://{folder}/indices.zarr",
        "target_log_probabilities": f"file://{folder}/logs.zarr",
        "output": f"file://{folder}/{name}-result.zarr",
        "outputs": ["loss", "gradient", "target_entropy"],
        "tail": "bucket",
    }
    if url:
        submit(job, url)
    else:
        evaluate(job)
    return zarr.open_group(str(folder / f"{name}-result.zarr"), mode="r")


def evaluate(job: dict[str, Any]) -> None:
    """Run a job in a process of its own, without a service."""
    command = [sys.executable, "-m", "softxent_service.cli", "evaluate", job.pop("logits")]
    for name, value in job.items():
        text = ",".join(value) if isinstance(value, list) else value
        command.append(f"--{name.replace('_', '-')}={text}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def submit(job: dict[str, Any], url: str) -> None:
    """Run a job at a service, and wait until it has succeeded."""
    from softxent_client.jobs import Jobs

    with Jobs(url) as jobs:
        *_, last = jobs.watch(jobs.submit(job)["id"])
    if last["state"] != "succeeded":
        sys.exit(f"distillation: the job {last['state']}: {last['error']}")


if __name__ == "__main__":
    main()
