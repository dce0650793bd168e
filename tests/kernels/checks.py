"""Checks of a result against the exact reference and the stated edges, for any drawn case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from cases import EVERY_OUTPUT, PER_LOGIT, PER_ROW, PLACES, Case
from mpmath import mp, mpf
from reference import outputs, places, vector_sizes
from shares import shares
from targets import Row, target
from ulps import Array, Exact, Float64s

SCALED = ("loss", "gradient", "hessian_diagonal", "hessian_vector_product")


def limit(case: Case, name: str) -> float:
    """Return how many ulp an output may be off: 4, and 1 for row weight, class weight and so on."""
    return 5.0 if name in SCALED and case.has_factors else 4.0


def worst_errors(result: Any, case: Case) -> dict[str, float]:
    """Return the largest error in ulp of every output that was asked for, over ordinary rows.

    Rows that are ignored or broken are `assert_edges`'s. A reduced loss is measured in the sum of
    its rows' units, and left out where a row is broken or the mean is empty.
    """
    names = [name for name in case.outputs if name not in PLACES]
    worst = dict.fromkeys(names, 0.0)
    wanted: dict[int, dict[str, Exact]] = {}
    for i in ordinary(case):
        row = case.row(i)
        wanted[i] = outputs(row, names)
        for name in names:
            if name != "loss" or case.option("reduction") == "none":
                got = np.atleast_1d(np.asarray(getattr(result, name))[i])
                errors = wanted[i][name].errors(got, floor(case, row, name), case.computed)
                worst[name] = max(worst[name], float(errors.max()))
    if "loss" in names and case.option("reduction") != "none":
        losses = {i: exact["loss"] for i, exact in wanted.items()}
        worst["loss"] = _error_of_sum(float(result.loss), losses, case)
    return worst


def worst_product_error(product: Array, case: Case) -> float:
    """Return the largest error in ulp of a Hessian-vector product [N, C], over ordinary rows."""
    worst = 0.0
    for i in ordinary(case):
        row, name = case.row(i), "hessian_vector_product"
        exact = outputs(row, [name])[name]
        errors = exact.errors(product[i], floor(case, row, name), case.computed)
        worst = max(worst, float(errors.max()))
    return worst


def assert_accurate(result: Any, case: Case) -> None:
    """Every output of every ordinary row lies within its bound."""
    worst = worst_errors(result, case)
    assert all(error <= limit(case, name) for name, error in worst.items()), worst


def ordinary(case: Case) -> list[int]:
    """Return the rows that are neither ignored nor broken."""
    return [int(i) for i in np.flatnonzero(~(case.rows.ignored | case.rows.broken))]


def floor(case: Case, row: Row, name: str) -> float:
    """Return how many smallest normal numbers the floor is: C, times what scales a row's output.

    Row weight, scale, divisor, the target's total, 1 / tau and the vector enlarge the floor as
    they do everything else; they do not take it below C numbers of the result's type.
    """
    classes, factor = case.logits.shape[1], 1.0
    if name in SCALED:
        s = shares(row)
        with mp.workdps(s.digits):
            factor = max(1.0, float(target(row).total))
            if name == "hessian_vector_product":
                factor *= max(1.0, *map(float, vector_sizes(row, s)))
        factor *= abs(float(row.loss_factor if name == "loss" else row.gradient_factor))
        powers = {"loss": 0, "gradient": 1}.get(name, 2)
        factor *= max(1.0, row.temperature**-powers)
    return float(classes * max(1.0, factor))


def _error_of_sum(got: float, losses: dict[int, Exact], case: Case) -> float:
    divisor = case.sums[2]
    if case.rows.broken.any() or not divisor:
        return 0.0
    values = [
        mpf(float(v)) + mpf(float(w)) for e in losses.values() for v, w in [(e.high[0], e.low[0])]
    ]
    if not np.isfinite([float(v) for v in values]).all():
        return 0.0 if not math.isfinite(got) else math.inf
    units: float = sum(
        float(e.units(case.computed, floor(case, case.row(i), "loss"))[0])
        for i, e in losses.items()
    )
    with mp.workdps(60):
        total = mp.fsum(values) / mpf(divisor)
        away = (
            float(abs(mpf(got) - total)) - sum(float(e.slack[0]) for e in losses.values()) / divisor
        )
    # The sum is rounded to float64 once, and its quotient once.
    away -= float(np.spacing(abs(float(total))))
    return max(0.0, away) / (units / divisor) if units else float(away > 0)


def assert_edges(result: Any, case: Case) -> None:
    """Everything of a result that has one stated answer: forms, ignored and broken rows, sums."""
    _assert_forms(result, case)
    _assert_blank_rows(result, case)
    _assert_masked_columns(result, case)
    _assert_places(result, case)
    _assert_sums(result, case)


def _assert_forms(result: Any, case: Case) -> None:
    n, classes = case.logits.shape
    integers = {"prediction": np.dtype(np.int64), "rank": np.dtype(np.int64)}
    for name in EVERY_OUTPUT:
        value = getattr(result, name, None)
        if name not in case.outputs:
            assert value is None, name
        elif name == "loss" and case.option("reduction") != "none":
            assert isinstance(value, float)
        else:
            shape = (n, classes) if name in PER_LOGIT else (n,)
            dtype = case.stored if name in PER_LOGIT else case.computed
            dtype = np.dtype(bool) if name == "correct" else integers.get(name, dtype)
            assert isinstance(value, np.ndarray)
            assert (value.shape, value.dtype) == (shape, dtype), name


def _assert_blank_rows(result: Any, case: Case) -> None:
    for name in _arrays(case):
        value = getattr(result, name)
        ignored, broken = value[case.rows.ignored], value[case.rows.broken]
        if name in PLACES:
            for rows in (ignored, broken):
                assert (rows == (False if name == "correct" else -1)).all(), name
        else:
            assert (ignored == 0).all(), name
            assert np.isnan(broken.astype(np.float64)).all(), name
    if "loss" in _arrays(case):
        assert not np.signbit(result.loss[result.loss == 0]).any()


def _arrays(case: Case) -> list[str]:
    reduced = case.option("reduction") != "none"
    return [name for name in case.outputs if not (reduced and name == "loss")]


def _assert_masked_columns(result: Any, case: Case) -> None:
    """Masked classes have probability 0: everything about them is 0, its logarithm -inf."""
    masked = ~case.rows.mask & ~(case.rows.ignored | case.rows.broken)[:, None]
    for name in set(PER_LOGIT) & set(case.outputs):
        value = getattr(result, name)[masked].astype(np.float64)
        assert (value == (-np.inf if name == "log_probabilities" else 0)).all(), name


def _assert_places(result: Any, case: Case) -> None:
    for i in ordinary(case):
        allowed = places(case.row(i))
        if "prediction" in case.outputs:
            assert int(result.prediction[i]) in allowed.predictions
        if "rank" in case.outputs:
            assert int(result.rank[i]) in allowed.ranks
        if "correct" in case.outputs:
            assert int(not result.correct[i]) in {min(r, 1) for r in allowed.ranks}
        if {"rank", "correct"} <= set(case.outputs):
            assert bool(result.correct[i]) == (int(result.rank[i]) == 0)
        if {"prediction", "correct"} <= set(case.outputs):
            assert bool(result.correct[i]) == (int(result.prediction[i]) == case.row(i).label)


def _assert_sums(result: Any, case: Case) -> None:
    weight_sum, count, divisor = case.sums
    assert (result.weight_sum, result.count) == (weight_sum, count)
    if "loss" not in case.outputs:
        return
    if case.option("reduction") == "none":
        rows = result.loss.astype(np.float64)
        total = math.fsum(rows) if np.isfinite(rows).all() else float(rows.sum())
        np.testing.assert_array_equal(result.loss_sum, total)
    elif divisor:
        np.testing.assert_allclose(result.loss, result.loss_sum / divisor, rtol=4e-16)
    else:
        wanted = {"nan": math.nan, "zero": 0.0}[case.option("empty")]
        np.testing.assert_array_equal(result.loss, wanted)
        _assert_nothing_flows(result, case)


def _assert_nothing_flows(result: Any, case: Case) -> None:
    """A mean over nothing has derivatives of 0."""
    for name in {"gradient", "hessian_diagonal"} & set(case.outputs):
        assert not getattr(result, name)[~case.rows.broken].astype(np.float64).any(), name


def rounded(case: Case) -> dict[str, Float64s]:
    """Return ordinary rows' exact values of float outputs, as float64 [N, ...]; NaN elsewhere."""
    names = [name for name in case.outputs if name in PER_ROW + PER_LOGIT]
    n, classes = case.logits.shape
    out = {k: np.full((n, classes) if k in PER_LOGIT else (n, 1), np.nan) for k in names}
    for i in ordinary(case):
        for name, exact in outputs(case.row(i), names).items():
            out[name][i] = exact.high
    return {k: v if k in PER_LOGIT else v[:, 0] for k, v in out.items()}
