"""What `softxent evaluate` imports and loads, done once, in the process that the others fork from.

It starts no thread and no event loop: those would not live on in a child.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from softxent import Options
from softxent.blockwise.rows import evaluate_part
from softxent_service.job_commands import app

_SMALL = {"logits": np.zeros((2, 3), np.float32), "labels": np.zeros(2, np.int64)}
evaluate_part(_SMALL, Options(outputs=("loss", "gradient")), num_threads=1)


def evaluate(*arguments: str) -> None:
    """Run `softxent evaluate` in this process; the totals that it prints are not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        app(["evaluate", *arguments])
