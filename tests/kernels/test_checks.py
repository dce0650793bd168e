"""The checks that kernels' tests call: exact values pass them, values a few ulp away do not."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from batches import cases
from cases import PER_LOGIT, Case
from checks import (
    assert_accurate,
    assert_edges,
    limit,
    rounded,
    worst_errors,
    worst_product_error,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from naive_full import naive
from reference import outputs


def result_of(case: Case) -> Any:
    """Return what a perfect library would: exact values rounded once, and the naive edges."""
    plain, exact = naive(case.tensors, **case.options), rounded(case)
    fields: dict[str, Any] = {k: plain[k] for k in ("loss_sum", "weight_sum", "count")}
    taken = ~(case.rows.ignored | case.rows.broken)
    for name in case.outputs:
        found: Any = plain[name]
        if name in exact and not (name == "loss" and case.option("reduction") != "none"):
            dtype = case.stored if name in PER_LOGIT else case.computed
            found = found.copy()
            found[taken] = exact[name][taken]
            with np.errstate(over="ignore"):
                found = (found + 0.0).astype(dtype)
        fields[name] = found
    if "loss" in case.outputs and case.option("reduction") == "none":
        rows = fields["loss"].astype(np.float64)
        finite = np.isfinite(rows).all()
        fields["loss_sum"] = math.fsum(rows) if finite else float(rows.sum())
    return SimpleNamespace(**fields)


@given(cases(most_classes=70))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_checks_accept_exact_values_rounded_once(case: Case) -> None:
    assume(case.option("reduction") == "none" or "loss" not in case.outputs)
    result = result_of(case)
    assert_edges(result, case)
    assert all(error <= 0.501 for error in worst_errors(result, case).values())


@given(cases(poisoned=False, most_classes=70), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_checks_refuse_values_a_few_ulp_away(case: Case, seed: int) -> None:
    assume(case.option("reduction") == "none" and "softcap" not in case.options)
    assume(case.stored == case.logits.dtype == case.computed)
    result, generator = result_of(case), np.random.default_rng(seed)
    # The rest of a bucket has a slack of its own, under which a small loss may be further away.
    names = ("probabilities",) if case.option("tail") == "bucket" else ("loss", "probabilities")
    for name in [n for n in names if n in case.outputs]:
        found = getattr(result, name)
        place = tuple(int(generator.integers(n)) for n in found.shape) if found.size else (0,)
        if found.size and np.abs(found[place]) > 1e-30 and not case.rows.ignored[place[0]]:
            found[place] += 20 * np.spacing(found[place])
            assert worst_errors(result, case)[name] > limit(case, name)


def test_a_product_of_exact_values_is_accepted_and_another_refused() -> None:
    logits = np.array([[1.5, -0.75, 0.25, 2.0, -3.0], [0.0, 1.0, 2.0, 3.0, -4.0]], np.float32)
    case = Case({"logits": logits, "labels": np.array([1, 4])}, {}, np.ones_like(logits) * 2)
    product = np.zeros_like(logits)
    assert worst_product_error(product, case) == 0
    case = dataclasses.replace(case, vectors=logits * 3)
    right = [outputs(case.row(i), ["hessian_vector_product"]) for i in range(2)]
    product = np.array([r["hessian_vector_product"].high for r in right], np.float32)
    assert worst_product_error(product, case) <= 0.5
    product[1, 2] *= 1.001
    assert worst_product_error(product, case) > 4


def test_edges_refuse_what_is_not_blank() -> None:
    logits = np.array([[0.0, 1.0], [np.nan, 1.0], [2.0, 1.0]])
    options = {"outputs": ("loss", "gradient"), "non_finite": "propagate"}
    case = Case({"logits": logits, "labels": np.array([0, 1, -100])}, options)
    assert_edges(result_of(case), case)
    assert_accurate(result_of(case), case)
    for name, row in [("loss", 1), ("gradient", 2)]:
        broken = result_of(case)
        getattr(broken, name)[row] = 0.25
        with pytest.raises(AssertionError):
            assert_edges(broken, case)
