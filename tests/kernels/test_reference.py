"""The reference against calculus, against a dense computation, and against plain NumPy.

The rest of the kernels' tests believe `reference`; these are why.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
from batches import cases
from cases import Case
from hypothesis import given, settings
from mpmath import mp, mpf
from naive_full import naive
from reference import FORMULAS, gradient_by_logits, outputs, places, problem
from shares import shares
from targets import Row, target

LOGITS = (1.5, -0.75, 0.25, 2.0, -3.0)
DENSE = (0.5, 0.125, 0.0, 0.25, 0.0625)
TOP = {"indices": (3, -1, 1), "log_probabilities": (-0.5, 0.0, -1.75)}
LABEL: dict[str, Any] = {"label": 2}
WEIGHTS: dict[str, Any] = {"class_weights": (0.5, 2.0, 1.25, 3.0, 0.0)}
TARGETS: dict[str, dict[str, Any]] = {
    "label": LABEL,
    "smoothed": LABEL | {"label_smoothing": 0.125},
    "smoothed over others": LABEL | {"label_smoothing": 0.125, "smoothing": "others"},
    "weighted": LABEL | WEIGHTS | {"label_smoothing": 0.125},
    "dense": {"probabilities": DENSE},
    "dense smoothed weighted": {"probabilities": DENSE, "label_smoothing": 0.25} | WEIGHTS,
    "dense smoothed over others": {
        "probabilities": DENSE,
        "label_smoothing": 0.25,
        "smoothing": "others",
    },
    "mixture": {"probabilities": DENSE, "hard_weight": 0.375} | LABEL,
    "renormalize": TOP | {"tail": "renormalize"},
    "bucket": TOP | {"tail": "bucket"},
    "none": TOP | {"tail": "none"},
    "bucket mixture": TOP | {"tail": "bucket", "hard_weight": 0.375} | LABEL,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "z_loss": {"z_loss": 0.5},
    "temperature": {"temperature": 0.375},
    "mask": {"mask": (True, True, True, True, False)},
    "factors": {"loss_factor": -2.5, "gradient_factor": -2.5},
    "all": {"z_loss": 0.5, "temperature": 2.5, "mask": (True, True, True, True, False)},
}
VECTOR = (1.0, -2.0, 0.5, 3.0, 7.0)

each_target = pytest.mark.parametrize("given_target", TARGETS.values(), ids=TARGETS.keys())
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def row_of(*records: dict[str, Any]) -> Row:
    merged: dict[str, Any] = {"logits": LOGITS, "vector": VECTOR}
    for record in records:
        merged |= record
    return Row(**merged)


def loss_at(row: Row, x: list[mpf]) -> mpf:
    """Return the loss as -sum t log softmax of logits that need not be floats."""
    kept = [j for j, keep in enumerate(row.kept) if keep]
    cap, tau = row.softcap, mpf(row.temperature)
    z = {j: (x[j] if cap is None else cap * mp.tanh(x[j] / cap)) / tau for j in kept}
    lse = mp.log(mpmath.fsum(mp.exp(v) for v in z.values()))
    t = target(row)
    loss = mpmath.fsum(t.masses[j] * (lse - z[j]) for j in kept)
    if t.rest:
        others = mpmath.fsum(mp.exp(z[j] - lse) for j in kept if t.bucket[j])
        loss -= t.rest * mp.log(others)
    return (loss + row.z_loss * lse**2) * row.loss_factor


def slope(function: Any, x: list[mpf], direction: list[float]) -> mpf:
    return mp.diff(lambda h: function([a + h * d for a, d in zip(x, direction, strict=True)]), 0)


def basis(j: int) -> list[float]:
    return [float(i == j) for i in range(len(LOGITS))]


def value(row: Row, name: str) -> list[float]:
    return [float(v) for v in outputs(row, [name])[name].high]


@each_option
@each_target
@pytest.mark.parametrize("softcap", [None, 1.75])
def test_gradient_is_the_derivative_of_the_loss(
    given_target: dict[str, Any], options: dict[str, Any], softcap: float | None
) -> None:
    row = row_of(given_target, options, {"softcap": softcap})
    with mp.workdps(60):
        x = [mpf(v) for v in LOGITS]
        wanted = [float(slope(lambda v: loss_at(row, v), x, basis(j))) for j in range(len(x))]
        np.testing.assert_allclose(value(row, "loss"), [float(loss_at(row, x))], rtol=1e-15)
    np.testing.assert_allclose(value(row, "gradient"), wanted, rtol=1e-14, atol=1e-25)


@each_option
@each_target
def test_hessian_is_the_derivative_of_the_gradient(
    given_target: dict[str, Any], options: dict[str, Any]
) -> None:
    row = row_of(given_target, options)
    with mp.workdps(60):
        x = [mpf(v) for v in LOGITS]
        kept = [v * k for v, k in zip(VECTOR, row.kept, strict=True)]
        along = [partial(slope, partial(loss_at, row), direction=basis(j)) for j in range(len(x))]
        diagonal = [float(slope(along[j], x, basis(j))) for j in range(len(x))]
        product = [float(slope(along[j], x, kept)) for j in range(len(x))]
    np.testing.assert_allclose(value(row, "hessian_diagonal"), diagonal, rtol=1e-13, atol=1e-20)
    np.testing.assert_allclose(
        value(row, "hessian_vector_product"), product, rtol=1e-13, atol=1e-20
    )


@each_option
@each_target
def test_loss_is_entropy_plus_divergence(
    given_target: dict[str, Any], options: dict[str, Any]
) -> None:
    """Gibbs: the loss is at least the target's entropy plus T log T."""
    row = row_of(given_target, options, {"z_loss": 0.0, "loss_factor": 1})
    if row.mask is not None:
        assert value(row, "probabilities")[4] == 0
    with mp.workdps(60):
        total = float(target(row).total)
    loss, entropy = value(row, "loss")[0], value(row, "target_entropy")[0]
    assert loss >= entropy + total * math.log(total)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_student_equal_to_its_target_pays_the_entropy(temperature: float) -> None:
    p = outputs(row_of({"label": 0, "temperature": temperature}), ["probabilities", "entropy"])
    shares_ = tuple(p["probabilities"].high.tolist())
    row = row_of({"probabilities": shares_, "temperature": temperature})
    np.testing.assert_allclose(value(row, "loss"), value(row, "target_entropy"), rtol=1e-15)
    np.testing.assert_allclose(value(row, "loss"), p["entropy"].high, rtol=1e-15)
    np.testing.assert_allclose(value(row, "gradient"), 0, atol=1e-16 / temperature)


@each_option
def test_bucket_is_one_class_that_gathers_the_others(options: dict[str, Any]) -> None:
    """Replace the classes outside the top-k by one whose logit is the log of their sum."""
    row = row_of(TARGETS["bucket"], {k: v for k, v in options.items() if k != "z_loss"})
    with mp.workdps(60):
        t, s = target(row), shares(row)
        listed = [j for j in (3, 1) if row.kept[j]]
        others = mpmath.fsum(mp.exp(z) for z, b in zip(s.logits, t.bucket, strict=True) if b)
        z = [s.logits[j] for j in listed] + [mp.log(others)]
        lse = mp.log(mpmath.fsum(mp.exp(v) for v in z))
        masses = [t.masses[j] for j in listed] + [t.rest]
        loss = mpmath.fsum(m * (lse - v) for m, v in zip(masses, z, strict=True))
        assert float(t.total) == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(value(row, "loss"), [float(loss * mpf(row.loss_factor))], rtol=1e-15)


@pytest.mark.parametrize("softcap", [0.5, 2.0, 30.0])
def test_softcap_chain_is_the_derivative(softcap: float) -> None:
    s = shares(row_of(LABEL, {"softcap": softcap, "temperature": 0.75}))
    with mp.workdps(60):
        for x, chain in zip(LOGITS, s.chain, strict=True):
            wanted = mp.diff(lambda v: softcap * mp.tanh(v / softcap) / mpf(0.75), mpf(x))
            assert abs(chain - wanted) < mpf(10) ** -40


@pytest.mark.parametrize("given_target", [TARGETS["label"], TARGETS["bucket"], TARGETS["dense"]])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_slack_covers_one_ulp_of_every_softcapped_logit(
    given_target: dict[str, Any], temperature: float, seed: int
) -> None:
    """Shift each exact z by up to 1 ulp: every output stays within its slack."""
    signs = np.random.default_rng(seed).uniform(-1, 1, len(LOGITS))
    row = row_of(given_target, {"softcap": 1.75, "temperature": temperature, "z_loss": 0.25})
    names = [name for name in FORMULAS if "hessian" not in name]
    wanted = outputs(row, names)
    p = problem(row)
    with mp.workdps(p.s.digits):
        moved = [z + d * s for z, d, s in zip(p.s.logits, p.s.logit_slack, signs, strict=True)]
        maximum = max(moved)
        exps = [mp.exp(z - maximum) for z in moved]
        total = mpmath.fsum(exps)
        inside = [e if b else mpf(0) for e, b in zip(exps, p.t.bucket, strict=True)]
        bucket = mpmath.fsum(inside)
        s = dataclasses.replace(
            p.s,
            logits=moved,
            exponentials=exps,
            probabilities=[e / total for e in exps],
            maximum=maximum,
            log_normalizer=maximum + mp.log(total),
            chain=[(1 - (z * temperature / row.softcap) ** 2) / temperature for z in moved],
        )
        shared = [e / bucket if bucket else e for e in inside]
        after = p._replace(s=s, bucket=bucket / total, inside=shared)
        for name in names:
            got, exact = FORMULAS[name](after), wanted[name]
            away = np.abs((got.high - exact.high) + (got.low - exact.low))
            # Beside the slack, nothing but the rounding of these float64 numbers themselves.
            assert (away <= exact.slack * (1 + 1e-12) + np.abs(exact.high) * 1e-30).all(), name


def test_confident_rows_keep_their_digits() -> None:
    """The values that the contract names."""
    row = Row((20.0, 0.0), label=0)
    assert value(row, "loss")[0] == pytest.approx(2.0611536203e-09, rel=1e-9)
    assert value(row, "gradient")[0] == pytest.approx(-2.0611536181e-09, rel=1e-9)
    assert value(Row((40.0, 0.0), label=0), "loss") == [4.248354255291589e-18]
    assert value(Row((1e8, 1e8), label=0), "loss") == [math.log(2)]
    assert value(Row((200.0, 0.0), label=0), "loss")[0] == pytest.approx(math.exp(-200), rel=1e-15)


def test_masses_above_one_leave_no_rest_and_keep_their_total() -> None:
    row = row_of({"indices": (0, 1), "log_probabilities": (-0.25, -1.5), "tail": "bucket"})
    with mp.workdps(60):
        t = target(row)
        assert t.rest == 0
        assert t.total == mp.exp(-0.25) + mp.exp(-1.5) > 1
    assert all(v > 0 for v in value(row, "gradient")[2:])


def test_ties_go_to_the_lower_index() -> None:
    row = Row((1.0, 2.0, 2.0, 2.0, 0.0), label=3, mask=(True, False, True, True, True))
    assert places(row) == ({2}, range(1, 2))
    blurred = places(Row((1e3, 1e3 + 1), label=1, softcap=30.0))
    assert blurred == ({0, 1}, range(2))


@given(cases(poisoned=False, most_classes=70))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_agrees_with_plain_numpy(case: Case) -> None:
    got = naive(case.tensors, vectors=case.vectors, **case.options)
    names = [n for n in FORMULAS if not ("hessian" in n and case.vectors is None)]
    for i in np.flatnonzero(~case.rows.ignored):
        row = case.row(int(i))
        s = shares(row)
        if max(abs(float(z)) for z, k in zip(s.logits, row.kept, strict=True) if k) > 1000:
            continue
        for name, exact in outputs(row, names).items():
            if name == "loss" and case.option("reduction") != "none":
                continue
            with mp.workdps(60):
                size = max(1.0, float(target(row).total)) * max(1.0, row.temperature**-2)
            factor = {"loss": row.loss_factor}.get(name, row.gradient_factor)
            size *= max(1.0, abs(float(factor))) * (1 + max(map(abs, row.vector or (0.0,))))
            size = max(size, float(exact.operand[np.isfinite(exact.operand)].max(initial=0)))
            value = np.atleast_1d(got[name][i])
            np.testing.assert_allclose(value, exact.high, rtol=1e-9, atol=1e-11 * size)


def test_gradient_by_logits_sums_to_the_z_loss_alone() -> None:
    """The softmax's gradient sums to 0 over classes whatever the target; the z-loss's does not."""
    for given_target in TARGETS.values():
        p = problem(row_of(given_target, {"z_loss": 0.25}))
        with mp.workdps(60):
            total = mpmath.fsum(gradient_by_logits(p))
            assert abs(total - 0.5 * p.s.log_normalizer) < mpf(10) ** -50
