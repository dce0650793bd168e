"""What notebooks show: well-formed, bounded, and the library's digits."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import softxent
from softxent.explanation_steps import agreement

LONGEST = 40_000


def cells(html: str) -> list[str]:
    return [cell.text or "" for cell in ElementTree.fromstring(html).iter("td")]


def test_an_explanation_shows_every_step_and_digit() -> None:
    found = softxent.explain([2.0, 1.0, 0.1], 0)
    html = found._repr_html_()
    shown = cells(html)
    assert len(re.findall("<math ", html)) == len(re.findall("<h4>", html)) == 7
    for vector in (found.softmax_out, found.fused_gradient, found.stable.e):
        assert {repr(float(value)) for value in vector} <= set(shown)
    assert f"L = {found.loss!r} nats" in html


def test_what_is_not_defined_is_said() -> None:
    html = softxent.explain([0.0, -800.0], 1)._repr_html_()
    ElementTree.fromstring(html)
    assert "loss_by_softmax_out is not defined" in html


@pytest.mark.parametrize("label", [0, 255])
def test_the_longest_row_is_bounded(label: int) -> None:
    html = softxent.explain(np.linspace(-300, 300, 256), label)._repr_html_()
    ElementTree.fromstring(html)
    assert "244 more classes are not shown" in html
    assert len(html) < LONGEST


def test_a_result_shows_shapes_dtypes_and_first_values() -> None:
    logits = np.array([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]], np.float32)
    result = softxent.cross_entropy(logits, [0, 0])
    assert isinstance(result.loss, np.ndarray)
    lines = np.reshape(cells(result._repr_html_()), (-1, 4)).tolist()
    losses = ", ".join(map(str, result.loss))
    assert lines[0] == ["loss", "[2]", "float32", losses]
    assert lines[1][:3] == ["gradient", "[2, 3]", "float32"]
    assert [line[0] for line in lines[2:]] == ["loss_sum", "weight_sum", "count"]


def test_a_large_result_is_bounded() -> None:
    logits = np.zeros((300, 1000), np.float32)
    html = softxent.cross_entropy(logits, np.zeros(300, int), reduction="mean")._repr_html_()
    assert len(html) < 2_000
    assert ", ..." in cells(html)[7]


@pytest.mark.parametrize(
    ("value", "right", "says"),
    [
        (np.float64(1.0), 1.0, "right"),
        (np.float32(0.1), 0.1, "right"),
        (np.float64(1.09), 1.0, "1 digit right"),
        (np.float64(1.0001), 1.0, "4 digits right"),
        (np.float64(3.0), 1.0, "no digit right"),
        (np.float64(1e-3), 0.0, "no digit right"),
        (np.float32(np.nan), 1.0, "not a number"),
        (np.float32(-np.inf), 1.0, "infinite"),
    ],
)
def test_agreement_in_words(value: np.floating, right: float, says: str) -> None:
    assert agreement(value, right) == says
