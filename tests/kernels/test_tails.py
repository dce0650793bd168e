"""What a top-k target leaves to its bucket, and where that or a sum would lose its digits.

Right values come from mpmath: a few obvious lines at 60 digits, or `reference` for every output.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import Case
from checks import assert_accurate, assert_edges
from mpmath import mp, mpf

from softxent import (
    OUTPUTS,
    NonFiniteError,
    RowsError,
    class_cross_entropy,
    class_partials,
    combine_partials,
    cross_entropy,
    hessian_vector_product,
)
from softxent.blockwise.rows import RowSums, evaluate_part, weigh_part
from softxent.options import Options, Tail

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
WITHOUT_LABELS = tuple(name for name in OUTPUTS if name not in ("correct", "rank"))
LEFT = [1e-1, 1e-3, 1e-8, 1e-13, 1e-17, 1e-30]

both = pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])


def top_k(logits: Any, indices: Any, logs: Any, **options: Any) -> Case:
    """Return a call of one row for every output, or of several."""
    tensors = {
        "logits": np.atleast_2d(logits),
        "target_indices": np.atleast_2d(np.array(indices, np.int64)),
        "target_log_probabilities": np.atleast_2d(np.array(logs, np.float64)),
    }
    return Case(tensors, {"outputs": WITHOUT_LABELS, "tail": "bucket"} | options)


def evaluated(case: Case) -> Any:
    arguments: dict[str, Any] = case.tensors | case.options
    return cross_entropy(**arguments)


def assert_right(case: Case) -> Any:
    """Check every output with the exact reference; return the result."""
    result = evaluated(case)
    assert_edges(result, case)
    assert_accurate(result, case)
    return result


def ulps(got: Any, exact: mpf) -> float:
    return float(abs(mpf(float(got)) - exact) / mpf(float(np.spacing(np.abs(got)))))


# What is left is expm1 -------------------------------------------------------------------------


@both
@pytest.mark.parametrize("left", LEFT)
def test_a_sure_teacher_leaves_what_expm1_says(dtype: np.dtype[Any], left: float) -> None:
    result = assert_right(top_k(np.array([50, 0, 1], dtype), [0], [-left]))
    with mp.workdps(60):
        powers = [mp.exp(v) for v in (50, 0, 1)]
        rest, total = -mp.expm1(-mpf(left)), mp.fsum(powers)
        loss = -mp.exp(-mpf(left)) * mp.log(powers[0] / total) - rest * mp.log(
            (powers[1] + powers[2]) / total
        )
        entropy = mp.exp(-mpf(left)) * left - rest * mp.log(rest)
        others = (powers[1] + powers[2]) / total
        assert ulps(result.loss[0], loss) < 2
        assert ulps(result.target_entropy[0], entropy) < 2
        away = abs(float(result.gradient[0, 0]) - (rest - others))
        assert away < 4 * np.finfo(dtype).eps * max(rest, others)


@both
@pytest.mark.parametrize("other", [-7.0, -25.0, -36.0, -50.0])
@pytest.mark.parametrize("left", [0.25, 1e-3, 1e-8])
def test_with_several_entries_the_others_are_taken_from_it(
    dtype: np.dtype[Any], left: float, other: float
) -> None:
    assert_right(top_k(np.array([50, 0, 1, 3], dtype), [0, 2], [-left, other]))
    assert_right(top_k(np.array([0, 1, 2, 30], dtype), [0, 2], [-left, other]))


def test_many_entries_that_hold_nearly_all() -> None:
    """999 of 1,000 classes share 1 - 1e-9: what is left keeps the digits that their sum has."""
    logs = np.full(999, math.log1p(-1e-9) - math.log(999))
    logits = np.random.default_rng(3).normal(size=1000) * 3
    assert_right(top_k(logits, np.arange(999), logs))


def test_a_teacher_that_is_quite_sure_leaves_nothing() -> None:
    result = assert_right(top_k(np.array([50.0, 0, 1]), [0], [0.0]))
    assert result.target_entropy.tolist() == [0.0]


# What is named is next to nothing --------------------------------------------------------------


@both
@pytest.mark.parametrize("named", [-0.7, -5.0, -10.0, -36.0, -50.0, -300.0])
def test_entropy_of_a_teacher_that_names_next_to_nothing(
    dtype: np.dtype[Any], named: float
) -> None:
    result = assert_right(top_k(np.array([3, 0, 1], dtype), [1], [named]))
    with mp.workdps(400):
        mass = mp.exp(mpf(named))
        exact = -mass * named - (1 - mass) * mp.log(1 - mass)
        assert ulps(result.target_entropy[0], exact) < 4 or exact < np.finfo(dtype).tiny


@pytest.mark.parametrize("named", [-2.0, -20.0, -36.0])
def test_a_maximum_in_the_bucket_takes_its_gradient_from_the_others(named: float) -> None:
    """p and what the class is owed are both nearly 1: T p - t would leave 1e-16."""
    case = top_k(np.array([0.0, 1, 60, 2]), [0], [named])
    result = assert_right(case)
    with mp.workdps(60):
        powers = [mp.exp(v) for v in (0, 1, 60, 2)]
        rest = 1 - mp.exp(mpf(named))
        outside = mp.fsum(powers[1:])
        exact = powers[2] / mp.fsum(powers) - rest * powers[2] / outside
        assert ulps(result.gradient[0, 2], exact) < 4
    assert_right(top_k(np.array([0.0, 1, 60, 2]), [0], [named], z_loss=0.01))


@both
@pytest.mark.parametrize("gap", [0.5, 9.0, 40.0, 200.0])
def test_entropy_of_a_renormalised_teacher_that_is_sure(dtype: np.dtype[Any], gap: float) -> None:
    case = top_k(np.array([3, 0, 1], dtype), [2, 0], [-0.25, -0.25 - gap], tail="renormalize")
    result = assert_right(case)
    with mp.workdps(300):
        small = mp.exp(-mpf(gap))
        exact = mp.log(1 + small) + small * gap / (1 + small)
        assert ulps(result.target_entropy[0], exact) < 4 or exact < np.finfo(dtype).tiny


# No class is left ------------------------------------------------------------------------------

ALL_LOGS = [-0.35668945, -1.609375, -2.3027344]


@both
@pytest.mark.parametrize("mask", [None, "one", "of each row"])
def test_nothing_is_left_where_every_class_is_named(dtype: np.dtype[Any], mask: str | None) -> None:
    """0.99998749 is T: the loss is that of the entries alone, and infinite no more."""
    logits = np.array([[2, 1, 0], [2, 1, 0]], dtype)
    case = top_k(logits, [[0, 1, 2]] * 2, [ALL_LOGS] * 2)
    if mask is not None:
        # More classes, none of which takes part.
        case.tensors["logits"] = np.hstack([logits, np.full((2, 40), np.nan, dtype)])
        keep = np.arange(43) < 3
        case.tensors["class_mask"] = keep if mask == "one" else np.tile(keep, (2, 1))
    result = assert_right(case)
    with mp.workdps(60):
        lse = mp.log(mp.fsum(mp.exp(v) for v in (2, 1, 0)))
        masses = [mp.exp(mpf(v)) for v in ALL_LOGS]
        loss = mp.fsum(t * (lse - z) for t, z in zip(masses, (2, 1, 0), strict=True))
    assert float(loss) == pytest.approx(0.80758359272, rel=1e-10)
    np.testing.assert_allclose(result.loss, float(loss), rtol=4 * np.finfo(dtype).eps)


@both
def test_classes_of_no_probability_are_still_owed_what_is_left(dtype: np.dtype[Any]) -> None:
    logits = np.array([[2, 1, -np.inf]], dtype)
    case = top_k(logits, [0, 1], [-1.0, -2.0])
    with pytest.raises(NonFiniteError):
        evaluated(case)


# Rows without a target -------------------------------------------------------------------------

TAILS: tuple[Tail, ...] = ("renormalize", "bucket", "none")


def with_empty_rows(dtype: np.dtype[Any], tail: str, classes: int = 6) -> Case:
    """Return five rows, of which the second and fourth have no entry and hold NaN throughout."""
    generator = np.random.default_rng(classes)
    logits = generator.normal(size=(5, classes)).astype(dtype)
    indices = np.array([[0, 1], [-1, -1], [2, -1], [-1, -1], [1, 0]])
    logs = np.array([[-0.5, -1.5], [0, 0], [-0.25, 9], [0, 0], [-3.0, -2.0]])
    logits[[1, 3]], logs[[1, 3]] = np.nan, np.nan
    case = top_k(logits, indices, logs, tail=tail)
    case.tensors["row_weights"] = np.array([2.0, 8.0, 1.0, 0.5, 0.25])
    return case


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@both
def test_rows_without_an_entry_are_ignored(dtype: np.dtype[Any], reduction: str, tail: str) -> None:
    case = with_empty_rows(dtype, tail)
    case.options["reduction"] = reduction
    result = assert_right(case)
    assert (result.count, result.weight_sum) == (3, 3.25)
    full: dict[str, Any] = {n: v[[0, 2, 4]] for n, v in case.tensors.items()}
    alone: Any = cross_entropy(**full, **case.options)
    assert result.loss_sum == alone.loss_sum
    assert result.gradient[[0, 2, 4]].tobytes() == alone.gradient.tobytes()
    assert not result.gradient[[1, 3]].any()
    assert result.prediction[[1, 3]].tolist() == [-1, -1]


def test_a_mean_counts_rows_that_have_a_target() -> None:
    """Two equal rows, one without a target: the mean is the other's loss and not half of it."""
    case = top_k([[1.0, 2.0, 3.0]] * 2, [[0], [-1]], [[-0.5], [0.0]], reduction="mean")
    for tail in TAILS:
        case.options["tail"] = tail
        alone: Any = cross_entropy(
            [[1.0, 2.0, 3.0]], target_indices=[[0]], target_log_probabilities=[[-0.5]], tail=tail
        )
        for mean_over in ("weights", "rows"):
            case.options["mean_over"] = mean_over
            assert evaluated(case).loss == alone.loss[0]


def test_only_renormalising_needs_an_entry_above_minus_infinity() -> None:
    call = np.array([[1.0, 2.0, 3.0]]), [0, 1], [-np.inf, -np.inf]
    assert assert_right(top_k(*call, tail="renormalize")).count == 0
    assert assert_right(top_k(*call, tail="none")).count == 1
    result = assert_right(top_k(*call, tail="bucket"))
    assert result.count == 1
    exact = math.log1p(math.exp(-1) + math.exp(-2))
    np.testing.assert_allclose(result.loss, [exact], rtol=1e-15)


@pytest.mark.parametrize("tail", TAILS)
def test_a_label_beside_an_empty_row_is_its_target(tail: Tail) -> None:
    case = top_k(np.array([[1.0, 2, 3]]), [-1, -1], [np.nan, np.nan], tail=tail, hard_weight=0.25)
    case.tensors["labels"] = np.array([1])
    result = assert_right(case)
    assert (result.count, result.weight_sum) == (1, 1.0)
    p = np.exp([1.0, 2, 3]) / np.exp([1.0, 2, 3]).sum()
    np.testing.assert_allclose(result.gradient[0], 0.25 * (p - [0, 1, 0]), rtol=1e-14)


@pytest.mark.parametrize("tail", TAILS)
def test_nothing_flows_from_a_batch_without_any_target(tail: Tail) -> None:
    case = top_k(np.full((3, 4), np.nan), np.full((3, 2), -1), np.full((3, 2), np.nan), tail=tail)
    case.options.update(reduction="mean", empty="zero")
    result = assert_right(case)
    assert (result.loss, result.count) == (0.0, 0)


@pytest.mark.parametrize("tail", TAILS)
def test_vectors_of_empty_rows_are_not_read(tail: Tail) -> None:
    case = with_empty_rows(DOUBLE, tail)
    vectors = np.ones(case.logits.shape)
    vectors[[1, 3]] = np.nan
    given: dict[str, Any] = {n: v for n, v in case.tensors.items() if n != "logits"}
    product = hessian_vector_product(case.logits, vectors, tail=tail, **given)
    assert not product[[1, 3]].any()


@pytest.mark.parametrize("tail", ["renormalize", "none"])
def test_empty_rows_of_blocks_of_columns(tail: Tail) -> None:
    case = with_empty_rows(SINGLE, tail, classes=9000)
    given: dict[str, Any] = {n: v for n, v in case.tensors.items() if n != "logits"}
    given |= {"tail": tail}
    starts = range(0, 9000, 4096)
    blocks = [(i, case.logits[:, i : i + 4096]) for i in starts]
    partials = combine_partials(
        [class_partials(x, first_class=i, classes=9000, **given) for i, x in blocks]
    )
    whole: Any = cross_entropy(case.logits, reduction="mean", **given)
    for i, x in blocks:
        part: Any = class_cross_entropy(x, None, partials, first_class=i, reduction="mean", **given)
        assert (part.loss, part.count) == (whole.loss, 3)
        assert part.gradient.tobytes() == whole.gradient[:, i : i + 4096].tobytes()


@pytest.mark.parametrize("tail", TAILS)
def test_empty_rows_of_blocks_of_rows(tail: Tail) -> None:
    case, options = with_empty_rows(SINGLE, tail), Options(tail=tail, reduction="mean")
    names = ("row_weights", "target_indices", "target_log_probabilities")
    blocks = [slice(i, i + 2) for i in range(0, 5, 2)]
    weighed = RowSums.merged(
        weigh_part({n: case.tensors[n][rows] for n in names}, options, classes=6) for rows in blocks
    )
    assert (weighed.count, weighed.weight_sum) == (3, 3.25)
    found = [
        evaluate_part({n: v[rows] for n, v in case.tensors.items()}, options, divisor=3.25)
        for rows in blocks
    ]
    case.options["reduction"] = "mean"
    whole = evaluated(case)
    sums = RowSums.merged(part.sums for part in found)
    assert (sums.count, sums.weight_sum, sums.loss_sum) == (3, 3.25, whole.loss_sum)
    gradient = np.concatenate([part.arrays["gradient"] for part in found])
    assert gradient.tobytes() == whole.gradient.tobytes()


def test_top_k_targets_are_weighed_without_labels_or_weights() -> None:
    given = {"target_indices": [[0], [-1], [2]], "target_log_probabilities": [[-1.0]] * 3}
    weighed = weigh_part({n: np.array(v) for n, v in given.items()}, Options(), classes=3)
    assert (weighed.count, weighed.weight_sum) == (2, 2.0)


# Renormalising asks for differences alone ------------------------------------------------------


def test_tempered_log_probabilities_and_raw_logits_are_renormalised() -> None:
    """Those of temperature 2 have masses of 1.6; a teacher's logits are off by any constant."""
    halves = np.log([0.7, 0.2, 0.1]) / 2
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    options: dict[str, Any] = {"tail": "renormalize", "temperature": 2.0}
    for logs in (halves, halves + 0.5, halves + 700.0, halves - 5000.0):
        result = assert_right(top_k(logits, [0, 1, 2], logs, **options))
        assert result.loss[0] == pytest.approx(1.1247139, abs=5e-8)


def test_log_probabilities_as_far_apart_as_float64_goes() -> None:
    far = np.finfo(np.float64).max
    result = assert_right(top_k([2.0, 1.0, 0.0], [1, 0], [far, -far], tail="renormalize"))
    assert result.target_entropy.tolist() == [0.0]


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_log_probabilities_that_are_none(value: float, tail: str) -> None:
    with pytest.raises(RowsError, match="NaN or Infinity") as caught:
        evaluated(top_k(np.ones((2, 3)), [[0], [1]], [[-1.0], [value]], tail=tail))
    assert (caught.value.field, caught.value.rows) == ("target_log_probabilities", (1,))


# Sums above 1 ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("tail", ["bucket", "none"])
@pytest.mark.parametrize(
    "logs", [[2.0**-20], [math.log1p(2.0**-7) - 1e-15], [-0.5, math.log(1.0078 - math.exp(-0.5))]]
)
def test_a_sum_a_little_above_one_is_what_rounding_made(
    dtype: np.dtype[Any], logs: list[float], tail: str
) -> None:
    result = assert_right(
        top_k(np.array([3, 1, 0, 2], dtype), list(range(len(logs))), logs, tail=tail)
    )
    # Nothing is left: the gradient outside is T p alone.
    share = np.exp(2) / np.exp([3, 1, 0, 2]).sum()
    np.testing.assert_allclose(
        result.gradient[0, 3], np.exp(logs).sum() * share, rtol=4 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("tail", ["bucket", "none"])
@pytest.mark.parametrize(
    ("logs", "value"),
    [([2.0**-6], math.exp(2.0**-6)), ([math.log(0.51)] * 2, 1.02), ([800.0], "Infinity")],
)
def test_a_sum_above_that_is_refused_by_row_and_value(
    logs: list[float], value: float | str, tail: str
) -> None:
    rows = [[-2.0] * len(logs), logs, logs]
    with pytest.raises(RowsError, match=r"more than 1 \+ 2\^-7") as caught:
        evaluated(top_k(np.ones((3, 4)), [list(range(len(logs)))] * 3, rows, tail=tail))
    error = caught.value
    assert (error.field, error.rows, error.total) == ("target_log_probabilities", (1, 2), 2)
    wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-15)
    assert error.values[0] == wanted


@pytest.mark.parametrize("tail", ["bucket", "none"])
def test_uniform_masses_of_bfloat16_may_add_up_to_more(tail: Tail) -> None:
    """-log 59 is -4.0625 in bfloat16, so 59 equal entries add up to 1.0152."""
    logs = np.full((1, 59), -math.log(59)).astype(ml_dtypes.bfloat16)
    total = float(np.exp(logs.astype(np.float64)).sum())
    assert total == pytest.approx(1.0152, abs=1e-4)
    case = top_k(np.linspace(-3, 3, 64), np.arange(59), np.zeros(59), tail=tail)
    case.tensors["target_log_probabilities"] = logs
    assert_right(case)
    case.tensors["target_log_probabilities"] = logs.astype(np.float32)
    with pytest.raises(RowsError, match=r"more than 1 \+ 2\^-7"):
        evaluated(case)
    more: Any = np.full((1, 59), -4.0).astype(ml_dtypes.bfloat16)
    case.tensors["target_log_probabilities"] = more
    with pytest.raises(RowsError, match=r"more than 1 \+ 2\^-5"):
        evaluated(case)


# Beside a label --------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("left", [1e-3, 1e-13, 1e-17, 0.0])
def test_a_label_in_and_out_of_the_bucket(dtype: np.dtype[Any], left: float, label: int) -> None:
    for logits in ([50, 0, 1], [0, 50, 1]):
        case = top_k(np.array([logits], dtype), [0], [-left], hard_weight=0.3)
        case.tensors["labels"] = np.array([label])
        case.options["outputs"] = OUTPUTS
        assert_right(case)
