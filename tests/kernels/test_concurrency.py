"""Many threads in parallel kernels at once, under each threading layer that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from threading_layers import layers

THREADS = 32
CALLS = 128
"""Of each thread; 4,096 in all, each on a batch just large enough for the parallel loops."""

SCRIPT = f"""
import threading
import numba, numpy as np
import softxent
from softxent.serving import PARALLEL_ELEMENTS
from softxent.serving import threading_layer

rng = np.random.default_rng(0)
batches = []
for rows, classes, dtype in [(4000, 10, "f4"), (700, 64, "f8"), (50, 1000, "f4"), (10, 5000, "f8")]:
    logits = rng.standard_normal((rows, classes)).astype(dtype)
    labels = rng.integers(0, classes, rows)
    alone = softxent.cross_entropy(logits, labels, num_threads=1)
    wanted = (alone.loss.tobytes(), alone.gradient.tobytes(), alone.loss_sum)
    batches.append((logits, labels, wanted))
assert all(PARALLEL_ELEMENTS <= logits.size <= 50_000 for logits, _, _ in batches)

start = threading.Barrier({THREADS})
calls, problems = [0] * {THREADS}, []

def work(number):
    start.wait()
    before = numba.get_num_threads()
    try:
        for i in range({CALLS}):
            logits, labels, wanted = batches[(number + i) % len(batches)]
            buffer = logits.copy() if i % 3 == 0 else None
            out = None if buffer is None else {{"gradient": buffer}}
            given = logits if buffer is None else buffer
            threads = (None, 2)[i % 2]
            r = softxent.cross_entropy(given, labels, out=out, num_threads=threads)
            assert (r.loss.tobytes(), r.gradient.tobytes(), r.loss_sum) == wanted
            calls[number] += 1
        assert numba.get_num_threads() == before
    except BaseException as error:
        problems.append(repr(error))
        raise

workers = [threading.Thread(target=work, args=(n,)) for n in range({THREADS})]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert not problems, problems
print(threading_layer(), sum(calls))
"""


@pytest.mark.parametrize("layer", layers())
def test_thirty_two_threads_in_parallel_kernels(layer: str) -> None:
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [layer, str(THREADS * CALLS)]


def test_a_refused_call_leaves_the_kernels_usable() -> None:
    """An error raised between two parallel calls, and in a thread, holds no lock."""
    script = """
import threading
import numpy as np, softxent
x = np.zeros((5000, 10)); y = np.zeros(5000, int)
bad = x.copy(); bad[7] = np.nan
def call():
    try:
        softxent.cross_entropy(bad, y)
    except softxent.NonFiniteError:
        print("refused")
for _ in range(3):
    worker = threading.Thread(target=call); worker.start(); worker.join()
    softxent.cross_entropy(x, y)
"""
    for layer in layers():
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "NUMBA_THREADING_LAYER": layer},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 3), done.stderr
