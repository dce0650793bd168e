"""Rows evaluated block of columns by block of columns: the bits of the whole rows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from batches import class_weights, logits
from cases import DTYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulps import Array

from softxent import (
    TILE,
    CrossEntropyResult,
    LabelError,
    NonFiniteError,
    OptionError,
    TensorError,
    class_cross_entropy,
    class_partials,
    combine_partials,
    cross_entropy,
)

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")
PER_BLOCK = ("gradient", "probabilities")

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0, "z_loss": 0.01},
    {"temperature": 0.01},
    {"softcap": 30.0, "temperature": 2.0, "label_smoothing": 0.3},
    {"reduction": "mean", "scale": -0.3},
    {"reduction": "sum", "output_dtype": "float32"},
)

Tensors = dict[str, Array]


def blocks_of(x: Array, cuts: list[int]) -> list[tuple[int, Array]]:
    edges = [0, *(cut * TILE for cut in cuts), x.shape[1]]
    return [(a, x[:, a:b].copy()) for a, b in itertools.pairwise(edges)]


def sharded(
    x: Array, others: Tensors, options: dict[str, Any], cuts: list[int], in_place: bool = False
) -> list[CrossEntropyResult]:
    """Return the results of every block."""
    call: dict[str, Any] = {**others, **options, "outputs": OUTPUTS}
    call.setdefault("labels", None)
    target = call.pop("target_probabilities", None)

    def columns(first: int, block: Array) -> Any:
        return None if target is None else target[:, first : first + block.shape[1]]

    blocks = blocks_of(x, cuts)
    parts = [
        class_partials(
            b, first_class=a, classes=x.shape[1], target_probabilities=columns(a, b), **call
        )
        for a, b in blocks
    ]
    # Some are combined before the others.
    whole = combine_partials([combine_partials(parts[1:]), parts[0]]) if cuts else parts[0]
    return [
        class_cross_entropy(
            block,
            partials=whole,
            first_class=first,
            target_probabilities=columns(first, block),
            out={"gradient": block} if in_place else None,
            **call,
        )
        for first, block in blocks
    ]


def assert_same(results: list[CrossEntropyResult], whole: CrossEntropyResult) -> None:
    for name in OUTPUTS:
        found = [np.asarray(getattr(result, name)) for result in results]
        wanted = np.asarray(getattr(whole, name))
        if name in PER_BLOCK:
            found = [np.concatenate(found, axis=1)]
        for array in found:
            assert array.dtype == wanted.dtype, name
            assert bits(array) == bits(wanted), name
    for result in results:
        assert result.weight_sum == whole.weight_sum
        assert result.count == whole.count
        np.testing.assert_array_equal(result.loss_sum, whole.loss_sum)


def bits(array: Array) -> bytes:
    """Return the bytes of an array, with one NaN for all of them."""
    same = array.copy()
    same[np.isnan(same)] = np.nan
    return same.tobytes()


@st.composite
def calls(draw: st.DrawFn) -> tuple[Array, Tensors, dict[str, Any], list[int]]:
    """Draw logits, the other tensors, options, and the tiles where columns are cut."""
    classes = draw(st.sampled_from([3, 40, TILE, TILE + 1, 2 * TILE, 3 * TILE + 17]))
    dtype = DTYPES[draw(st.sampled_from([*DTYPES]))]
    cuts = sorted(draw(st.sets(st.integers(1, max(1, (classes - 1) // TILE)))))
    cuts = cuts if classes > TILE else []
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = 5
    x = logits(g, (rows, classes), dtype)
    if draw(st.booleans()):
        x[0, g.integers(classes)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    labels = g.integers(0, classes, rows)
    labels[1] = x[1].astype(float).argmax()
    others: Tensors = {"labels": labels}
    options = dict(draw(st.sampled_from(OPTIONS)))
    kind = draw(st.sampled_from(["labels", "top-k", "probabilities"]))
    if kind == "top-k":
        k = min(4, classes)
        indices = np.array([g.permutation(classes)[:k] for _ in range(rows)])
        indices[2, 0] = -1
        others |= {
            "target_indices": indices,
            "target_log_probabilities": -1.5 - g.random((rows, k)) * 8,
        }
        options |= {"tail": draw(st.sampled_from(["renormalize", "none"]))}
    if kind == "probabilities":
        target = g.dirichlet(np.full(classes, 0.05), rows)
        target[3] = np.eye(classes)[x[3].astype(float).argmax()]
        others["target_probabilities"] = target.astype(dtype)
    if kind != "labels" and draw(st.booleans()):
        options["hard_weight"] = 0.3
    elif kind != "labels":
        del others["labels"]
    if draw(st.booleans()):
        others["class_weights"] = class_weights(g, classes)
    if draw(st.booleans()):
        others["row_weights"] = g.choice([0.0, 0.3, 2.0], rows)
    if draw(st.booleans()):
        mask = g.random(classes) < 0.7
        mask[labels] = True
        mask[np.maximum(others.get("target_indices", labels), 0)] = True
        # A masked class takes no part, whatever its probability.
        others["class_mask"] = mask
    return x, others, options, cuts


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls(), st.booleans())
def test_blocks_give_the_bits_of_whole_rows(
    call: tuple[Array, Tensors, dict[str, Any], list[int]], in_place: bool
) -> None:
    x, others, options, cuts = call
    options = options | {"non_finite": "propagate"}
    given: dict[str, Any] = {**others, **options}
    whole = cross_entropy(x, outputs=OUTPUTS, **given)
    in_place = in_place and options.get("output_dtype", x.dtype.name) == x.dtype.name
    assert_same(sharded(x, others, options, cuts, in_place), whole)


def test_many_rows_in_parallel() -> None:
    g = np.random.default_rng(5)
    x = g.normal(size=(300, 2 * TILE)).astype(np.float32)
    labels = {"labels": g.integers(0, 2 * TILE, 300)}
    for options in ({}, {"temperature": 3.0}):
        whole = cross_entropy(x, outputs=OUTPUTS, **labels, **options)  # type: ignore[arg-type]
        assert_same(sharded(x, labels, options, [1]), whole)


X = np.zeros((2, TILE + 10), np.float32)
Y = np.array([0, TILE + 1])


def test_columns_must_lie_within_the_classes() -> None:
    for first, last, classes in ((0, TILE + 10, 9), (8, TILE + 8, TILE + 7)):
        with pytest.raises(TensorError) as caught:
            class_partials(X[:, first:last], [0, 0], first_class=first, classes=classes)
        assert caught.value.field == "first_class"


@pytest.mark.parametrize("name", ["first_class", "classes"])
@pytest.mark.parametrize("value", [3.0, "3", True, None])
def test_places_of_columns_must_be_integers(name: str, value: Any) -> None:
    places: dict[str, Any] = {"first_class": 0, "classes": TILE + 10, name: value}
    with pytest.raises(TensorError, match=f"{name} must be an integer, not {value!r}") as caught:
        class_partials(X, Y, **places)
    assert caught.value.field == name


def test_what_cannot_be_sharded_is_refused() -> None:
    more: list[tuple[str, dict[str, Any]]] = [
        ("smoothing", {"label_smoothing": 0.1, "smoothing": "others"}),
        ("outputs", {"outputs": "entropy"}),
    ]
    for field, options in more:
        with pytest.raises(OptionError) as option:
            class_partials(X[:, :TILE], Y, first_class=0, classes=TILE + 10, **options)
        assert option.value.field == field
    top_k: dict[str, Any] = {
        "target_indices": np.array([[0], [1]]),
        "target_log_probabilities": np.full((2, 1), -1),
    }
    with pytest.raises(OptionError) as tail:
        class_partials(X[:, :TILE], first_class=0, classes=TILE + 10, tail="bucket", **top_k)
    assert tail.value.field == "tail"
    with pytest.raises(TensorError) as mask:
        class_partials(
            X[:, :TILE], Y, first_class=0, classes=TILE + 10, class_mask=np.ones(X.shape, bool)
        )
    assert mask.value.field == "class_mask"


def test_partials_that_do_not_fit_are_refused() -> None:
    classes = X.shape[1]
    first = class_partials(X[:, :TILE], Y, first_class=0, classes=classes)
    second = class_partials(X[:, TILE:], Y, first_class=TILE, classes=classes)
    smoothed = class_partials(
        X[:, TILE:], Y, first_class=TILE, classes=classes, label_smoothing=0.1
    )
    for parts in ([], [first, first], [first, smoothed], [second, second]):
        with pytest.raises(TensorError) as caught:
            combine_partials(parts)
        assert caught.value.field == "partials"
    whole = combine_partials([first, second])
    for partials, rows in ((first, X), (whole, X[:1])):
        with pytest.raises(TensorError) as fits:
            class_cross_entropy(rows[:, :TILE], Y[: len(rows)], partials, first_class=0)
        assert fits.value.field == "partials"


def test_rows_are_checked_as_ever() -> None:
    with pytest.raises(LabelError) as label:
        class_partials(X[:, :TILE], [0, TILE + 10], first_class=0, classes=TILE + 10)
    assert label.value.rows == (1,)
    x = X.copy()
    x[1, 7] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        sharded(x, {"labels": Y}, {}, [1])
    assert caught.value.rows == (1,)
