"""The textbook forms fail where arithmetic says that they must, and the stable ones do not."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import softxent


def test_they_agree_with_many_digits_on_a_calm_row() -> None:
    found = softxent.explain([2.0, 1.0, 0.5], 0).naive
    with mpmath.workdps(50):
        e = [mpmath.exp(v) for v in (2, 1, mpmath.mpf("0.5"))]
        s = [v / mpmath.fsum(e) for v in e]
        loss = float(-mpmath.log(s[0]))
    for form, tolerance in ((found.float32, 1e-6), (found.float64, 1e-15)):
        np.testing.assert_allclose(form.softmax_out, [float(v) for v in s], rtol=tolerance)
        assert float(form.loss) == pytest.approx(loss, rel=tolerance)
        wanted = [float(s[0] - 1), float(s[1]), float(s[2])]
        np.testing.assert_allclose(form.gradient, wanted, rtol=4 * tolerance)


def test_dtypes_are_those_of_their_names() -> None:
    naive = softxent.explain([2.0, 1.0], 0).naive
    for name in ("float32", "float64"):
        form = getattr(naive, name)
        assert {form.softmax_out.dtype, form.loss.dtype, form.gradient.dtype} == {np.dtype(name)}


def test_a_confident_row_loses_its_loss_in_float32() -> None:
    found = softxent.explain([20.0, 0.0], 0)
    assert [float(found.naive.float32.loss), *found.naive.float32.gradient[:1]] == [0.0, 0.0]
    assert math.copysign(1, found.naive.float32.loss) == 1
    # The softmax is 1 - 2.06e-9, which float64 holds to 1.1e-16: eight digits of it are left.
    assert 1e-10 < abs(found.naive.float64.loss / found.loss - 1) < 1e-7


@pytest.mark.parametrize(
    ("logit", "dtypes"), [(89.0, ["float32"]), (710.0, ["float32", "float64"])]
)
def test_the_exponential_overflows(logit: float, dtypes: list[str]) -> None:
    naive = softxent.explain([logit, 0.0], 0).naive
    for name in ("float32", "float64"):
        assert math.isnan(getattr(naive, name).loss) == (name in dtypes)


def test_the_softmax_underflows_under_the_label() -> None:
    found = softxent.explain([0.0, -800.0], 1)
    assert [float(form.loss) for form in vars(found.naive).values()] == [math.inf, math.inf]
    assert found.loss == 800.0


@pytest.mark.parametrize("logits", [[2.0, 1.0, 0.1], [20.0, 0.0], [3.0, 3.0, 3.0], [1e8, 1e8]])
def test_the_stable_form_is_what_its_symbols_say(logits: list[float]) -> None:
    found = softxent.explain(logits, 0).stable
    with mpmath.workdps(100):
        m = max(logits)
        e = [mpmath.exp(mpmath.mpf(v) - m) for v in logits]
        S = mpmath.fsum(e) - 1
        assert found.m == m
        np.testing.assert_allclose(found.e, [float(v) for v in e], rtol=1e-15)
        assert pytest.approx(float(S), rel=1e-15) == found.S
        assert found.log1p == pytest.approx(float(mpmath.log(1 + S)), rel=1e-15)
