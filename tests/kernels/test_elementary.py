"""exp and log1p in ulp against exact arithmetic, their coefficients fitted again, exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from oracle import Array

from softxent._kernels.build.compilation import shared
from softxent._kernels.math.elementary import (
    EXP_32,
    EXP_64,
    LOG,
    exp_pair,
    exp_scaled,
    log1p,
)
from softxent._kernels.math.exact_sum import WORDS, accumulate, accumulate_all, all_finite, total
from softxent._kernels.simd.lanes import LANES
from softxent._kernels.simd.memory import load, store


@shared
def exp_of_numbers(v: Array, v_low: Array, exponent: Array, high: Array, low: Array) -> None:
    for i in range(v.size):
        high[i], low[i] = exp_pair(v[i], v_low[i], exponent[i])


@shared
def exp_of_lanes(v: Array, v_low: Array, exponent: Array, high: Array, low: Array) -> None:
    for i in range(0, v.size, LANES):
        h, rest = exp_pair(load(v, i), load(v_low, i), load(exponent, i))
        store(high, i, h)
        store(low, i, rest)


@shared
def exp_rounded(v: Array, v_low: Array, exponent: Array, out: Array) -> None:
    for i in range(v.size):
        out[i] = exp_scaled(v[i], v_low[i], exponent[i])


@shared
def log1p_of_numbers(s: Array, out: Array) -> None:
    for i in range(s.size):
        out[i] = log1p(s[i])


@shared
def log1p_of_lanes(s: Array, out: Array) -> None:
    for i in range(0, s.size, LANES):
        store(out, i, log1p(load(s, i)))


@shared
def add_up(values: Array, words: Array) -> None:
    for i in range(values.size):
        accumulate(words, values[i])


@shared
def add_up_in_lanes(values: Array, words: Array) -> None:
    accumulate_all(words, values, 0, values.size)


each_way_to_add = pytest.mark.parametrize("add", [add_up, add_up_in_lanes])


def padded(values: Array) -> Array:
    return np.concatenate([values, values[:1].repeat(-values.size % LANES)])


def ulps(got: list[mpf], wanted: list[mpf]) -> float:
    """Return the largest error in ulp of float64, for normal numbers."""
    unit = [mpmath.ldexp(1, max(int(mpmath.frexp(w)[1]), -1021) - 53) for w in wanted]
    return float(max(abs(g - w) / u for g, w, u in zip(got, wanted, unit, strict=True)))


def exp_arguments() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    v = np.concatenate(
        [
            rng.uniform(-1, 1, 1500),
            rng.uniform(-700, 700, 1500),
            rng.uniform(-4000, 4000, 500),
            np.arange(-40, 41) * math.log(2) / 2,
            np.nextafter(np.arange(-40, 41) * math.log(2) / 2, 0),
            [0.0, -0.0, 5e-324, -5e-324, 1e-300, -1e-17],
        ]
    )
    exponent = np.where(np.abs(v) > 690, np.rint(-v / math.log(2)), rng.integers(-9, 9, v.size))
    return padded(v), padded(v * rng.uniform(-1, 1, v.size) * 2.0**-54), padded(exponent)


def test_exp_is_within_a_tenth_of_an_ulp() -> None:
    v, v_low, exponent = exp_arguments()
    high, low, rounded = np.empty_like(v), np.empty_like(v), np.empty_like(v)
    exp_of_numbers(v, v_low, exponent, high, low)
    exp_rounded(v, v_low, exponent, rounded)
    with mp.workdps(60):
        wanted = [
            mp.exp(mpf(a) + mpf(b)) * mpf(2) ** int(n)
            for a, b, n in zip(v.tolist(), v_low.tolist(), exponent.tolist(), strict=True)
        ]
        pair = [mpf(a) + mpf(b) for a, b in zip(high.tolist(), low.tolist(), strict=True)]
        assert ulps(pair, wanted) <= 0.1
        assert ulps([mpf(a) for a in rounded.tolist()], wanted) <= 0.6


def test_exp_in_lanes_has_the_bits_of_exp_of_numbers() -> None:
    v, v_low, exponent = exp_arguments()
    v[:6] = [np.nan, -np.inf, -1e300, -20000, -750, 5]
    v_low[:6] = [0, 0, 0, 1, 0, np.nan]
    results = [[np.empty_like(v), np.empty_like(v)] for _ in range(2)]
    exp_of_numbers(v, v_low, exponent, *results[0])
    exp_of_lanes(v, v_low, exponent, *results[1])
    for number, lane in zip(*results, strict=True):
        assert np.array_equal(number, lane, equal_nan=True)
        assert np.array_equal(np.signbit(number[6:]), np.signbit(lane[6:]))


def test_exp_at_the_ends() -> None:
    v = np.array([-np.inf, -1e300, -16384.0, np.nan, 0.0, -745.0, 700.0])
    out = np.empty_like(v)
    exp_rounded(v, np.zeros_like(v), np.zeros_like(v), out)
    np.testing.assert_array_equal(out[:5], [0, 0, 0, np.nan, 1])
    np.testing.assert_allclose(out[5:], [5e-324, math.exp(700)], rtol=1e-15)


def log_arguments() -> Array:
    rng = np.random.default_rng(1)
    root = math.sqrt(2)
    binades = np.ldexp(rng.uniform(1, 2, 1500), rng.integers(-70, 70, 1500))
    edges = np.array([root, root / 2, 2 * root, 1.0, 2.0, 0.5])
    near = edges[:, None] * (1 + np.arange(-9, 10) * 2e-16)
    return padded(
        np.concatenate(
            [
                binades,
                rng.uniform(0, 1, 1500),
                np.arange(1, 400.0),
                near.ravel(),
                np.abs(near.ravel() - 1),
                [0.0, 5e-324, 2.3e-308, 1e-300, 1e-17, 2.0**-53, 2.0**31, 1e300, 1e308],
            ]
        )
    )


def test_log1p_is_within_one_ulp() -> None:
    s = log_arguments()
    out = np.empty_like(s)
    log1p_of_numbers(s, out)
    positive = s > 0
    assert not out[~positive].any()
    with mp.workdps(60):
        wanted = [mp.log1p(mpf(v)) for v in s[positive].tolist()]
        assert ulps([mpf(v) for v in out[positive].tolist()], wanted) <= 1.0


def test_log1p_in_lanes_has_the_bits_of_log1p_of_numbers() -> None:
    s = log_arguments()
    s[7] = np.nan
    numbers, lanes = np.empty_like(s), np.empty_like(s)
    log1p_of_numbers(s, numbers)
    log1p_of_lanes(s, lanes)
    assert math.isnan(numbers[7])
    assert np.array_equal(numbers, lanes, equal_nan=True)


def exp_quotient(r: Any) -> Any:
    return (mp.exp(r) - 1 - r) / r**2 if r else mpf("0.5")


def log_quotient(z: Any) -> Any:
    w = mp.sqrt(z)
    return (mp.log((1 + w) / (1 - w)) - 2 * w) / w**3


HALF_LN2 = math.log(2) / 2


@pytest.mark.parametrize(
    ("function", "coefficients", "interval", "dtype", "share"),
    [
        (exp_quotient, EXP_32, (-HALF_LN2, HALF_LN2), np.float32, HALF_LN2**2),
        (exp_quotient, EXP_64, (-HALF_LN2, HALF_LN2), np.float64, HALF_LN2**2),
        (log_quotient, LOG, (1e-30, (3 - 2 * math.sqrt(2)) ** 2), np.float64, 0.0147),
    ],
    ids=["exp_32", "exp_64", "log"],
)
def test_coefficients_are_chebyshev_fits(
    function: Callable[[Any], Any],
    coefficients: tuple[float, ...],
    interval: tuple[float, float],
    dtype: Any,
    share: float,
) -> None:
    """A fit made anew, and the function itself, differ by less than half an ulp of the result.

    `share` is how much of a relative error of the polynomial reaches the result, at most.
    """
    eps = float(np.finfo(dtype).eps)
    assert all(c == float(dtype(c)) for c in coefficients)
    with mp.workprec(300):
        fit = mpmath.chebyfit(function, interval, len(coefficients), asc=True)
        for x in mpmath.linspace(*interval, 200):
            ours = mpmath.polyval(coefficients, x, asc=True)
            again = mpmath.polyval(fit, x, asc=True)
            assert abs(ours - again) * share < eps / 4
            assert abs(ours - function(x)) * share < eps / 4


def exact_total(values: list[float]) -> float:
    if any(math.isnan(v) for v in values) or {math.inf, -math.inf} <= set(values):
        return math.nan
    if infinite := [v for v in values if math.isinf(v)]:
        return infinite[0]
    exact = sum(map(Fraction, values), Fraction(0))
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


@each_way_to_add
@given(st.lists(st.floats(), max_size=40), st.integers(0, 40))
@example([1e308, 1e308, -1e308], 1)
@example([1.7976931348623157e308, 9.979201547673599e291], 1)
@example([5e-324, -5e-324, 2.2250738585072014e-308], 2)
@example([math.inf, -math.inf], 1)
@example([1.0, 2.0**-53, 2.0**-1074], 3)
@settings(max_examples=500, deadline=None)
def test_exact_sum_is_rounded_once_however_it_is_split(
    add: Any, values: list[float], split: int
) -> None:
    words = np.zeros((2, WORDS), np.int64)
    add(np.array(values[:split], np.float64), words[0])
    add(np.array(values[split:], np.float64), words[1])
    merged = words.sum(axis=0)
    np.testing.assert_equal(total(merged), exact_total(values))
    assert all_finite(merged) == all(map(math.isfinite, values))


@each_way_to_add
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_exact_sum_of_many_equals_fsum(add: Any, sign: float) -> None:
    rng = np.random.default_rng(3)
    values = sign * np.ldexp(rng.random(200_000), rng.integers(-1000, 900, 200_000))
    words = np.zeros(WORDS, np.int64)
    add(values, words)
    assert total(words) == math.fsum(values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_in_lanes_are_exact_where_two_levels_do_not_hold_them(dtype: Any) -> None:
    largest = np.finfo(dtype).max
    values = np.array([largest, 1.0, -largest, 1e-30, largest, -1.0, 1e-30, -largest] * 40, dtype)
    words = np.zeros(WORDS, np.int64)
    add_up_in_lanes(values, words)
    assert total(words) == math.fsum(values.tolist()) == 80 * float(values[3])
