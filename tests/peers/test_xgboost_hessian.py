"""XGBoost's second derivative, of the installed release, is what docs/conventions.md says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xgboost
from peer_tables import DOCUMENT, code

import softxent
from softxent.results import CrossEntropyResult

CLASSES = 5
OUTPUTS = ("gradient", "hessian_diagonal")


def documented(release: str) -> str:
    """Return the expression that the document's table gives for a release."""
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.partition("| XGBoost | second derivative |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        releases, _, ours = (cell.strip() for cell in line.strip("|").split(" | "))
        first, _, last = releases.partition(" to ")
        if number(first) <= number(release) <= number(last or "99"):
            return code(ours)
    raise AssertionError(f"the document says nothing of XGBoost {release}")


def number(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    return int(major), int(rest.partition(".")[0] or 0)


def newton_step(
    logits: npt.NDArray[np.float32], label: int, weight: float, objective: str
) -> npt.NDArray[np.float64]:
    """Return what one round adds to one row's logits: -gradient / second derivative.

    One row makes a tree of one leaf, and nothing is added to the divisor.
    """
    row = xgboost.DMatrix(
        np.zeros((1, 1), np.float32), label=[label], weight=[weight], base_margin=logits
    )
    given: dict[str, Any] = {"objective": objective, "num_class": CLASSES, "eta": 1, "lambda": 0}
    model = xgboost.train({**given, "min_child_weight": 0}, row, 1)
    return np.asarray(model.predict(row, output_margin=True) - logits, np.float64)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
@pytest.mark.parametrize("seed", range(6))
def test_the_second_derivative_is_as_documented(objective: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-4, 4, (1, CLASSES)).astype(np.float32)
    label, weight = int(rng.integers(CLASSES)), float(np.float32(rng.uniform(0.5, 2)))
    result = softxent.cross_entropy(
        logits.astype(np.float64), [label], row_weights=[weight], outputs=OUTPUTS
    )
    assert isinstance(result, CrossEntropyResult)
    assert result.gradient is not None
    second = -result.gradient / newton_step(logits, label, weight, objective)
    expected = eval(documented(xgboost.__version__), {"np": np, "result": result})
    # The step and the sum with the logits are rounded to float32.
    np.testing.assert_allclose(second, expected, rtol=2e-6)


def test_every_release_has_one_line() -> None:
    assert documented("0.90") == documented("3.4.1") != documented("3.5.0")
