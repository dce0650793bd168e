"""One batch of more than 2^31 logits: every offset takes 64 bits."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest

from softxent import LabelError, cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]

PATTERN = 1_009
"""Distinct rows: a prime, so that no power of two of rows repeats them in step."""
SHAPES = [(66_000, 32_768), (215_000_000, 10), (2, 1_100_000_000)]


def pattern(classes: int) -> Array:
    """Return rows of float16 logits that a batch repeats; fewer and longer ones share a row."""
    generator = np.random.default_rng(classes)
    row = generator.standard_normal(min(classes, 1 << 20), np.float32) * 4
    rows = min(PATTERN, max(2, (1 << 25) // classes))
    return np.stack([np.resize(np.roll(row, i), classes).astype(np.float16) for i in range(rows)])


@pytest.fixture(params=SHAPES, ids=str)
def batch(request: pytest.FixtureRequest) -> tuple[Array, Array, Array]:
    """Return logits [N, C] of more than 2^31 elements, labels [N] and the rows that repeat."""
    count, classes = request.param
    assert count * classes > 2**31
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free > 3 * count * classes + (1 << 30), "6 to 12 GB of free memory are needed"
    rows = pattern(classes)
    logits = np.empty((count, classes), np.float16)
    for first in range(0, count, len(rows)):
        part = logits[first : first + len(rows)]
        part[:] = rows[: len(part)]
    labels = np.arange(count) * 7 % classes
    labels[-1] = classes - 1
    return logits, labels, rows


def test_first_middle_and_last_rows_are_those_of_small_batches(
    batch: tuple[Array, Array, Array],
) -> None:
    logits, labels, rows = batch
    count, classes = logits.shape
    result = cross_entropy(logits, labels, out={"gradient": logits})
    assert result.gradient is logits
    loss = np.asarray(result.loss)
    assert result.loss_sum == math.fsum(loss)
    # Around the first element whose number takes more than 31 bits, too.
    turn = 2**31 // classes
    for i in {0, 1, count // 2, turn - 1, turn, count - 2, count - 1}:
        row = rows[i % len(rows)].reshape(1, -1)
        small = cross_entropy(row, labels[i : i + 1])
        assert small.gradient is not None
        assert loss[i] == np.asarray(small.loss)[0]
        assert np.array_equal(logits[i].view(np.uint16), small.gradient[0].view(np.uint16))


def test_a_bad_label_in_the_last_row_is_named(batch: tuple[Array, Array, Array]) -> None:
    logits, labels, _ = batch
    labels[-1] = logits.shape[1]
    with pytest.raises(LabelError, match=f"; rows {len(labels) - 1} ") as refused:
        cross_entropy(logits, labels, outputs=("loss",))
    assert refused.value.total == 1
