"""Work in turns: a large batch takes one for each stretch of rows, and has the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from softxent import Options, cross_entropy
from softxent.serving import TURN_ELEMENTS, evaluate

ROWS, CLASSES = 2_100, 5_000
OUTPUTS = ("loss", "gradient", "entropy", "prediction")


class TimeSlices:
    """Counts turns; more than `most` are refused."""

    def __init__(self, most: float = np.inf) -> None:
        self.taken, self.inside, self.most = 0, False, most

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if self.taken == self.most:
            raise TimeoutError
        assert not self.inside
        self.taken, self.inside = self.taken + 1, True
        yield
        self.inside = False


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    g = np.random.default_rng(0)
    logits = g.standard_normal((ROWS, CLASSES), np.float32)
    labels = g.integers(0, CLASSES, ROWS)
    labels[::7] = -100
    given = dict.fromkeys(("target_probabilities", "target_indices", "target_log_probabilities"))
    others = dict.fromkeys(("class_weights", "row_weights", "class_mask"))
    return {"logits": logits, "labels": labels, **given, **others}


@pytest.mark.parametrize("options", [{}, {"reduction": "mean"}, {"output_dtype": "float16"}])
def test_a_large_batch_is_evaluated_in_turns_to_the_same_bits(
    tensors: dict[str, Any], options: dict[str, Any]
) -> None:
    turns = TimeSlices()
    results = evaluate(tensors, Options.from_keywords({"outputs": OUTPUTS, **options}), turn=turns)
    # One to weigh the rows, the others to evaluate them.
    assert turns.taken > ROWS * CLASSES / TURN_ELEMENTS
    for begin in range(0, ROWS, 700) if not options else []:
        rows = slice(begin, begin + 700)
        logits, labels = tensors["logits"][rows], tensors["labels"][rows]
        small = cross_entropy(logits, labels, outputs=OUTPUTS)
        for name in OUTPUTS:
            wanted = np.asarray(getattr(small, name))
            assert results[name][rows].tobytes() == wanted.tobytes(), name
    whole = cross_entropy(tensors["logits"], tensors["labels"], outputs=OUTPUTS, **options)
    assert results["gradient"].tobytes() == np.asarray(whole.gradient).tobytes()
    assert results["loss_sum"] == whole.loss_sum


def test_a_turn_that_is_refused_ends_the_evaluation(tensors: dict[str, Any]) -> None:
    turns = TimeSlices(most=2)
    with pytest.raises(TimeoutError):
        evaluate(tensors, Options.from_keywords({}), turn=turns)
    assert turns.taken == 2
    assert not turns.inside


def test_a_small_batch_is_one_turn(tensors: dict[str, Any]) -> None:
    turns = TimeSlices()
    small = {name: None if value is None else value[:3] for name, value in tensors.items()}
    evaluate(small, Options.from_keywords({}), turn=turns)
    assert turns.taken == 1
