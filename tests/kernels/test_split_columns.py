"""Columns split anywhere, as by tensor-parallel shards, and partials that belong elsewhere."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from reference import outputs
from targets import Row
from ulps import Array

from softxent import (
    TILE,
    ClassPartials,
    CrossEntropyResult,
    TensorError,
    class_cross_entropy,
    class_partials,
    combine_partials,
    cross_entropy,
)

OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")


def sharded(
    x: Array, cuts: list[int], *, order: int = 1, **call: Any
) -> tuple[ClassPartials, list[CrossEntropyResult]]:
    """Return the partials of all blocks, and the results of each."""
    edges = [0, *cuts, x.shape[1]]
    target = call.pop("target_probabilities", None)
    blocks = [
        (a, x[:, a:b].copy(), None if target is None else target[:, a:b].copy())
        for a, b in itertools.pairwise(edges)
    ]
    call = {"labels": None, "outputs": OUTPUTS, **call}
    classes = x.shape[1]
    parts = [
        class_partials(b, first_class=a, classes=classes, target_probabilities=t, **call)
        for a, b, t in blocks
    ]
    whole = combine_partials(parts[::order])
    return whole, [
        class_cross_entropy(b, partials=whole, first_class=a, target_probabilities=t, **call)
        for a, b, t in blocks
    ]


def joined(results: list[CrossEntropyResult], name: str) -> Array:
    arrays = [np.asarray(getattr(result, name)) for result in results]
    return np.concatenate(arrays, axis=1) if arrays[0].ndim == 2 else arrays[0]


CALLS: dict[str, dict[str, Any]] = {
    "labels": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"label_smoothing": 0.3, "class_weights": True},
    "tempered": {"temperature": 0.37, "softcap": 20.0},
    "masked": {"class_mask": True, "label_smoothing": 0.2},
    "probabilities": {"target_probabilities": True},
    "confident": {"target_probabilities": True, "confident": True},
    "top-k": {"top_k": True, "tail": "none"},
}


def tensors(
    g: np.random.Generator, rows: int, classes: int, call: dict[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of a call."""
    given = dict(call)
    given.pop("confident", None)
    labels = g.integers(0, classes, rows)
    if given.pop("class_weights", False):
        given["class_weights"] = g.random(classes) * 3
    if given.pop("class_mask", False):
        given["class_mask"] = g.random(classes) < 0.8
        given["class_mask"][labels] = True
    if given.pop("top_k", False):
        given["target_indices"] = np.array([g.permutation(classes)[:3] for _ in range(rows)])
        given["target_log_probabilities"] = -2.0 - g.random((rows, 3))
    elif given.pop("target_probabilities", False):
        given["target_probabilities"] = g.dirichlet(np.full(classes, 0.1), rows)
    else:
        given["labels"] = labels
    return given


FIELDS = {
    "target_probabilities": "probabilities",
    "target_indices": "indices",
    "target_log_probabilities": "log_probabilities",
}


def row_of(x: Array, i: int, given: dict[str, Any]) -> Row:
    """Return the row of the reference for a row of a call."""
    fields: dict[str, Any] = {"logits": tuple(x[i].astype(float).tolist()), "dtype": x.dtype.name}
    for name, value in given.items():
        if name == "labels":
            fields["label"] = int(value[i])
        elif name in FIELDS:
            fields[FIELDS[name]] = tuple(value[i].tolist())
        elif name in ("class_weights", "class_mask"):
            fields[name.replace("class_mask", "mask")] = tuple(value.tolist())
        else:
            fields[name] = value
    return Row(**fields)


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("cuts", [[1], [7, 8, 40], [TILE - 1], [100, 2500]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_split_keeps_the_bounds(dtype: Any, cuts: list[int], kind: str) -> None:
    g = np.random.default_rng(len(kind) + cuts[0])
    classes = cuts[-1] + 53
    x = (g.normal(size=(2, classes)) * 4).astype(dtype)
    given = tensors(g, 2, classes, CALLS[kind])
    if kind == "confident":
        # The maximum holds nearly all mass, in the logits and in the target.
        x[:, classes // 2] = 60
        given["target_probabilities"][:, classes // 2] = 1.0
    if "target_probabilities" in given:
        given["target_probabilities"] = given["target_probabilities"].astype(dtype)
    _, results = sharded(x, cuts, **given)
    for i in range(2):
        wanted = outputs(row_of(x, i, given), OUTPUTS)
        for name in OUTPUTS:
            found = np.atleast_1d(joined(results, name)[i])
            assert wanted[name].errors(found, classes).max() <= 4.0, name


@pytest.mark.parametrize(("columns", "classes"), [(16_032, 32_064), (37_984, 151_936)])
def test_tensor_parallel_shards(columns: int, classes: int) -> None:
    """Half of a vocabulary of 32,064 columns, and a quarter of one of 151,936."""
    g = np.random.default_rng(1)
    x = g.normal(size=(3, classes)).astype(np.float32)
    labels = np.array([0, columns, classes - 1])
    cuts = list(range(columns, classes, columns))
    whole = cross_entropy(x, labels, outputs=OUTPUTS)
    partials, results = sharded(x, cuts, labels=labels)
    assert partials.tile_starts[:2] == (0, TILE)
    for name in OUTPUTS:
        np.testing.assert_array_max_ulp(joined(results, name), getattr(whole, name), 4)
    _, again = sharded(x, cuts, labels=labels, order=-1)
    for name in OUTPUTS:
        assert joined(again, name).tobytes() == joined(results, name).tobytes()
    losses = {np.asarray(result.loss).tobytes() for result in results}
    assert len(losses) == 1


X = np.linspace(-3, 3, 2 * 40, dtype=np.float32).reshape(2, 40)
Y = np.array([3, 30])


def part(first: int, last: int, labels: Any = Y, x: Array = X, **options: Any) -> ClassPartials:
    return class_partials(
        x[:, first:last], labels, first_class=first, classes=x.shape[1], **options
    )


OTHERS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 2.0},
    "softcap": {"softcap": 5.0},
    "label_smoothing": {"label_smoothing": 0.1},
    "ignore_index": {"ignore_index": 3},
    "labels": {"labels": np.array([3, 31])},
    "class_weights": {"class_weights": np.full(40, 2.0)},
    "row_weights": {"row_weights": np.array([1.0, 0.0])},
    "class_mask": {"class_mask": np.arange(40) != 7},
    "another dtype": {"x": X.astype(np.float64)},
    "another number of rows": {"x": X[:1], "labels": Y[:1]},
    "another number of classes": {"x": np.concatenate([X, X[:, :1]], axis=1)},
    "another kind of target": {
        "labels": None,
        "target_probabilities": np.full((2, 15), 0.025, np.float32),
    },
    "target_indices": {
        "labels": None,
        "target_indices": np.array([[3], [4]]),
        "target_log_probabilities": np.full((2, 1), -1.0),
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_partials_of_anything_else_are_refused_by_name(name: str) -> None:
    """Where they are combined, and where a block is finished with them."""
    mine = part(0, 25)
    theirs = part(25, 40, **OTHERS[name])
    said = "labels" if name == "target_indices" else name
    with pytest.raises(TensorError, match=said) as caught:
        combine_partials([mine, theirs])
    assert caught.value.field == "partials"
    call = {"labels": Y, **OTHERS[name]}
    x = call.pop("x", X)
    if "another number of classes" in name:
        x = X[:, :25]
        with pytest.raises(TensorError, match="does not lie in the classes"):
            class_cross_entropy(x, Y, combine_partials([mine, part(25, 40)]), first_class=25)
        return
    whole = combine_partials([mine, part(25, 40)])
    with pytest.raises(TensorError, match=said) as finished:
        class_cross_entropy(x[:, 25:40], partials=whole, first_class=25, **call)
    assert finished.value.field == "partials"


def test_top_k_targets_and_their_tail_are_compared() -> None:
    def top_k(index: int, log: float, **options: Any) -> dict[str, Any]:
        return {
            "labels": None,
            "target_indices": np.array([[3], [index]]),
            "target_log_probabilities": np.full((2, 1), log),
            **options,
        }

    mine = part(0, 25, **top_k(4, -1.0))
    for said, others in (
        ("target_indices", top_k(5, -1.0)),
        ("target_log_probabilities", top_k(4, -0.5)),
        ("tail: 'renormalize', here 'none'", top_k(4, -1.0, tail="none")),
    ):
        with pytest.raises(TensorError, match=said):
            combine_partials([mine, part(25, 40, **others)])


def test_options_that_partials_do_not_depend_on_may_differ() -> None:
    whole = combine_partials([part(0, 25), part(25, 40)])
    result = class_cross_entropy(X[:, :25], Y, whole, first_class=0, scale=2.0, z_loss=0.1)
    wanted = cross_entropy(X, Y, scale=2.0, z_loss=0.1)
    np.testing.assert_array_max_ulp(np.asarray(result.loss), np.asarray(wanted.loss), 4)


@pytest.mark.parametrize(("first", "last"), [(0, 20), (20, 40), (0, 26), (10, 25)])
def test_a_block_that_partials_were_not_made_of_is_refused(first: int, last: int) -> None:
    whole = combine_partials([part(0, 25), part(25, 40)])
    with pytest.raises(TensorError, match="other blocks than columns") as caught:
        class_cross_entropy(X[:, first:last], Y, whole, first_class=first)
    assert caught.value.field == "partials"


def test_blocks_on_tiles_may_be_joined_and_cut_again() -> None:
    g = np.random.default_rng(2)
    x = g.normal(size=(2, 3 * TILE))
    y = np.array([5, 2 * TILE + 1])
    blocks = [(0, TILE), (TILE, 3 * TILE)]
    whole = combine_partials(
        [class_partials(x[:, a:b], y, first_class=a, classes=3 * TILE) for a, b in blocks]
    )
    wanted = cross_entropy(x, y)
    for a, b in [(0, 2 * TILE), (2 * TILE, 3 * TILE), (0, 3 * TILE)]:
        result = class_cross_entropy(x[:, a:b], y, whole, first_class=a)
        assert np.asarray(result.loss).tobytes() == np.asarray(wanted.loss).tobytes()
        assert result.gradient.tobytes() == wanted.gradient[:, a:b].tobytes()  # type: ignore[union-attr, index]


def test_partials_travel() -> None:
    """As between the processes of a cluster."""
    sent = pickle.loads(pickle.dumps(part(0, 25)))  # noqa: S301 - our own
    whole = combine_partials([sent, part(25, 40)])
    result = class_cross_entropy(X[:, 25:], Y, whole, first_class=25)
    np.testing.assert_array_max_ulp(
        np.asarray(result.loss), np.asarray(cross_entropy(X, Y).loss), 4
    )


@pytest.mark.parametrize("cuts", [[0, 4096, 9000], [0, 100, 9000]])
@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("labels", "logits"),
        ("target_probabilities", "logits"),
        ("target_probabilities", "target_probabilities"),
    ],
)
def test_partials_of_other_logits_or_targets_are_refused_with_their_rows(
    kind: str, cuts: list[int], other: str
) -> None:
    """What the block itself comes to is compared with what was exchanged, to the bit."""
    draw = np.random.default_rng(5)
    given: dict[str, Any] = {"logits": draw.normal(size=(6, 9000))}
    if kind == "labels":
        given["labels"] = draw.integers(0, 9000, 6)
    else:
        given["target_probabilities"] = draw.random((6, 9000)) / 4500
    changed = {**given, other: given[other].copy()}
    changed[other][[2, 4]] *= 1.5
    wide = ("logits", "target_probabilities")

    def block(tensors: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
        return {n: t[:, begin:end] if n in wide else t for n, t in tensors.items()}

    bounds = list(itertools.pairwise(cuts))
    parts = [class_partials(**block(given, a, b), first_class=a, classes=9000) for a, b in bounds]
    whole = combine_partials(parts)
    for a, b in bounds:
        call = block(changed, a, b)
        call.setdefault("labels", None)
        with pytest.raises(TensorError, match="2 rows, first in row 2") as caught:
            class_cross_entropy(**call, partials=whole, first_class=a)
        assert caught.value.field == "partials"
