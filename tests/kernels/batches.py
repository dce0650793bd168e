"""Legal calls to draw: any target, option, output and type, over logits chosen to lose digits.

Hypothesis draws the structure and a seed; numbers come from the seed. What may not be combined:
smoothing or class weights with tail=bucket; Hessian outputs with a softcap; denominator or
mean_over without reduction=mean, or both; tail without a top-k; hard_weight without both a label
and a soft target, and both of these without it; correct and rank without a label. smoothing=others
goes with label_smoothing=0, where it changes nothing: whoever sweeps the smoothing down to 0 need
not take the other option away.

Not drawn, for want of one stated answer: infinities under a softcap, a top-k that lists a masked
class, -inf logits with a bucket.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from cases import DTYPES, EVERY_OUTPUT, Case
from hypothesis import strategies as st
from ulps import Array

KINDS = ("label", "probabilities", "top_k", "label and probabilities", "label and top_k")
HESSIANS = ("hessian_diagonal",)
OF_LABELS = ("correct", "rank")
TEMPERATURES = (0.01, 0.3, 2.0, 3.7, 100.0)
SOFTCAPS = (0.7, 30.0, 50.0)
LEAST_LOG = -600.0
"""Stored log-probabilities lie above it or are -inf: masses that all underflow have no sum."""

GROUPS = ("temperature", "softcap", "z_loss", "smoothing", "reduction", "scale", "stored")

ILLEGAL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("top_k", "label_smoothing", {"tail": "bucket", "label_smoothing": 0.1}),
    ("label", "hessian_diagonal", {"softcap": 30.0, "outputs": ("hessian_diagonal",)}),
    ("label", "denominator", {"denominator": 2.0}),
    ("label", "denominator", {"denominator": 2.0, "reduction": "sum"}),
    ("label", "mean_over", {"mean_over": "rows"}),
    ("label", "mean_over", {"mean_over": "rows", "denominator": 2.0, "reduction": "mean"}),
    ("label", "tail", {"tail": "bucket"}),
    ("probabilities", "tail", {"tail": "none"}),
    ("label", "hard_weight", {"hard_weight": 0.5}),
    ("top_k", "hard_weight", {"hard_weight": 0.5}),
    ("probabilities", "correct", {"outputs": ("correct",)}),
    ("top_k", "rank", {"outputs": ("rank",)}),
)
"""Kind of target, what is at fault, and options that do not go together with it or one another.

Class weights with tail=bucket are illegal too, and a label beside a soft target without
hard_weight; both of them by their tensors.
"""

FAMILIES = (
    lambda c, g: np.where(np.arange(c) == g.integers(c), g.choice([4.0, 17.0, 40.0, 300.0]), 0.0),
    lambda c, g: np.full(c, g.choice([0.0, 0.1, -7.3, 1e4])),
    lambda c, g: g.standard_normal(c) * 4 + g.choice([1e8, -1e8, 1e4]),
    lambda c, g: np.where(np.arange(c) == g.integers(c), 92.0, g.integers(-3, 4, c) / 8),
    lambda c, g: np.linspace(-60, 60, c) + g.choice([0.0, 1e4]),
    lambda c, g: g.standard_normal(c) * g.choice([1e-6, 0.03, 1.0, 6.0, 30.0]),
    lambda c, g: g.integers(-2, 3, c) * g.choice([1.0, 350.0]),
)


@st.composite
def cases(draw: st.DrawFn, *, poisoned: bool = True, most_classes: int = 9000) -> Case:
    """Draw a call; with `poisoned` some of its rows hold NaN or infinities, and it propagates."""
    kind = draw(st.sampled_from(KINDS))
    classes, rows = draw(st.integers(1, 70)), draw(st.integers(0, 6))
    if most_classes > 4096 and draw(st.integers(0, 19)) == 19:
        classes, rows = draw(st.integers(4097, most_classes)), min(rows, 1)
    dtype = DTYPES[draw(st.sampled_from([*DTYPES]))]
    options = draw(_options(kind))
    given = draw(st.sets(st.sampled_from(["class_weights", "row_weights", "mask", "masks"])))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tensors = _tensors(generator, (rows, classes), dtype, kind, given, options)
    if poisoned and draw(st.booleans()):
        _poison(generator, tensors, options)
        options["non_finite"] = "propagate"
    vectors = (generator.standard_normal((rows, classes)) + 3).astype(dtype)
    return Case(tensors, options, None if "softcap" in options else vectors)


@st.composite
def _options(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    groups = draw(st.sets(st.sampled_from(GROUPS)))
    options: dict[str, Any] = {}
    if "temperature" in groups:
        options["temperature"] = draw(st.sampled_from(TEMPERATURES))
    if "softcap" in groups:
        options["softcap"] = draw(st.sampled_from(SOFTCAPS))
    if "z_loss" in groups:
        options["z_loss"] = draw(st.sampled_from([1e-4, 0.01, 1.0]))
    if "scale" in groups:
        options["scale"] = draw(st.sampled_from([-0.37, 1 / 3, 65536.0]))
    if "stored" in groups:
        options["output_dtype"] = draw(st.sampled_from([*DTYPES]))
    if "reduction" in groups:
        options |= draw(_reductions())
    options |= draw(_target_options(kind, smoothed="smoothing" in groups))
    options["outputs"] = draw(_outputs(kind, softcap="softcap" in groups))
    return options


@st.composite
def _reductions(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"reduction": "sum"}
    more = [{}, {"denominator": 7.3}, {"mean_over": "rows"}, {"mean_over": "weights"}]
    options = {"reduction": "mean"} | draw(st.sampled_from(more))
    return options | {"empty": draw(st.sampled_from(["nan", "zero"]))}


@st.composite
def _target_options(draw: st.DrawFn, kind: str, *, smoothed: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if kind.endswith("top_k"):
        options["tail"] = draw(st.sampled_from(["renormalize", "bucket", "none"]))
    if " and " in kind:
        options["hard_weight"] = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    if smoothed and options.get("tail") != "bucket":
        options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 1.0]))
        options["smoothing"] = draw(st.sampled_from(["all", "others"]))
    return options


@st.composite
def _outputs(draw: st.DrawFn, kind: str, *, softcap: bool) -> tuple[str, ...]:
    refused = (HESSIANS if softcap else ()) + (() if kind.startswith("label") else OF_LABELS)
    legal = [name for name in EVERY_OUTPUT if name not in refused]
    if draw(st.booleans()):
        return tuple(legal)
    return tuple(draw(st.lists(st.sampled_from(legal), min_size=1, unique=True)))


def _tensors(
    generator: np.random.Generator,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    kind: str,
    given: set[str],
    options: dict[str, Any],
) -> dict[str, Array]:
    rows, classes = shape
    tensors = {"logits": logits(generator, shape, dtype)}
    labels = generator.integers(0, classes, rows)
    mask = np.ones(shape, bool)
    if given & {"mask", "masks"}:
        one = generator.random(classes) < 0.7
        one[labels] = True
        one[generator.integers(classes)] = True
        each = (generator.random(shape) < 0.7) | (np.arange(classes) == labels[:, None])
        tensors["class_mask"] = one if "mask" in given else each
        mask = mask & tensors["class_mask"]
    if "class_weights" in given and options.get("tail") != "bucket":
        tensors["class_weights"] = class_weights(generator, classes)
    if "row_weights" in given:
        tensors["row_weights"] = generator.choice([0.0, 0.1, 1.0, 3.7], rows)
    tensors |= _soft_target(generator, tensors["logits"], mask, kind, options)
    if kind.startswith("label"):
        tensors["labels"] = np.where(generator.random(rows) < 0.15, -100, labels)
    return tensors


def logits(generator: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return rows of families drawn at random, within what the type holds."""
    most = 6e4 if dtype == np.float16 else 1e30
    rows = [
        FAMILIES[generator.integers(len(FAMILIES))](shape[1], generator) for _ in range(shape[0])
    ]
    return np.clip(np.array(rows, np.float64).reshape(shape), -most, most).astype(dtype)


def class_weights(generator: np.random.Generator, classes: int) -> Array:
    """Return weights around 1; now and then with zeros, or with one that dominates."""
    weights = generator.random(classes) + 0.5
    if generator.random() < 0.3:
        weights[generator.random(classes) < 0.3] = 0
    if generator.random() < 0.2:
        weights[generator.integers(classes)] = 1e12
    return weights


def _soft_target(
    generator: np.random.Generator,
    x: Array,
    mask: Array,
    kind: str,
    options: dict[str, Any],
) -> dict[str, Array]:
    if kind == "label":
        return {}
    teacher = np.array(
        [_teacher(generator, row, kept, options) for row, kept in zip(x, mask, strict=True)]
    ).reshape(x.shape)
    if kind.endswith("probabilities"):
        return {"target_probabilities": teacher.astype(x.dtype)}
    return _top_k(generator, teacher, mask, x.dtype, options)


def _teacher(
    generator: np.random.Generator, row: Array, kept: Array, options: dict[str, Any]
) -> Array:
    """Return probabilities: the student's own, one-hot, nearly so, or any; also a sum below 1."""
    z, cap = row.astype(np.float64), options.get("softcap")
    z = np.where(kept, (z if cap is None else cap * np.tanh(z / cap)), -np.inf)
    hot = kept & (np.arange(len(z)) == generator.choice(np.flatnonzero(kept)))
    forms = [z / options.get("temperature", 1.0), np.where(hot, 0.0, -np.inf)]
    forms += [
        np.where(hot, 0.0, -generator.choice([9.0, 25.0])),
        3 * generator.standard_normal(len(z)),
    ]
    form = np.where(kept, forms[generator.integers(len(forms))], -np.inf)
    shares = np.exp(form - form.max())
    return np.asarray(shares / shares.sum() * generator.choice([1.0, 1.0, 0.5]))


def _top_k(
    generator: np.random.Generator,
    teacher: Array,
    mask: Array,
    dtype: np.dtype[Any],
    options: dict[str, Any],
) -> dict[str, Array]:
    """Return the K largest of the teacher or any K classes, in any order, with pads between."""
    rows, classes = teacher.shape
    k = int(generator.integers(1, min(classes, 9) + 1))
    indices = np.full((rows, k), -1, np.int64)
    logs = np.zeros((rows, k), (dtype, np.dtype(np.float64))[generator.integers(2)])
    for i in range(rows):
        spare = 1 if options["tail"] == "bucket" and generator.random() < 0.8 else 0
        count = min(int(generator.integers(0, k + 1)), int(mask[i].sum()) - spare)
        order = np.argsort(np.where(mask[i], -teacher[i], np.inf), kind="stable")
        places, chosen = generator.permutation(k)[:count], order[:count]
        if generator.random() < 0.3:
            chosen = generator.permutation(np.flatnonzero(mask[i]))[:count]
        exact = _log_masses(generator, teacher[i, chosen])
        if generator.random() < 0.7 or not np.isfinite(exact).any():
            exact = np.maximum(exact, LEAST_LOG)
        if options["tail"] == "renormalize":
            exact = _unnormalized(generator, exact)
            indices[i, places], logs[i, places] = chosen, exact.astype(logs.dtype)
        else:
            indices[i, places], logs[i, places] = chosen, _stored(exact, logs.dtype)
    return {"target_indices": indices, "target_log_probabilities": logs}


def _log_masses(generator: np.random.Generator, masses: Array) -> Array:
    """Return logarithms of masses as they are, or as those of a sure or an unsure teacher.

    A sure one leaves 0.1 to 1e-17 to all but its first class, or nothing at all; the others share
    that, or hold next to nothing. All that an unsure one names is next to nothing.
    """
    with np.errstate(divide="ignore"):
        exact = np.log(masses)
    form, count = int(generator.integers(8)), len(masses)
    if form < 4 or not count:
        return np.asarray(exact)
    if form == 7:
        return generator.uniform(-90.0, -9.0, count)
    left = generator.choice([0.0, *10.0 ** -generator.uniform(1, 17, 9)])
    exact = generator.uniform(-90.0, -40.0, count)
    if form == 5 and left:
        exact = math.log(left / count) + generator.uniform(-3.0, -0.1, count)
    exact[0] = -left
    return exact


def _unnormalized(generator: np.random.Generator, exact: Array) -> Array:
    """Return what is renormalised alike: log-probabilities, or tempered, or off by a constant."""
    factor, offset = generator.choice([1.0, 1.0, 0.5]), generator.choice([0.0, 0.0, 17.0, -3e3])
    return np.asarray(exact * factor + offset)


def _stored(exact: Array, dtype: np.dtype[Any]) -> Array:
    """Return log-probabilities as rounded, whose masses lie above 1 by no more than may be."""
    stored = np.minimum(exact, 0).astype(dtype)
    most = 1 + 2.0**-5 if dtype.name == "bfloat16" else 1 + 2.0**-7
    while stored.size and np.exp(stored.astype(np.float64)).sum() > most:
        stored = (stored.astype(np.float64) - 0.01).astype(dtype)
    return stored


def _poison(
    generator: np.random.Generator, tensors: dict[str, Array], options: dict[str, Any]
) -> None:
    """Write NaN and infinities: some rows are broken, some have classes of probability 0."""
    x, n = tensors["logits"], len(tensors["logits"])
    classes = x.shape[1]
    mask = np.ones(x.shape, bool) & tensors.get("class_mask", True)
    x[~mask] = np.nan
    soft = "softcap" in options
    for i in np.flatnonzero(generator.random(n) < 0.5):
        j = int(generator.choice(np.flatnonzero(mask[i])))
        way = int(generator.integers(3))
        if way == 0:
            x[i, j] = np.nan
        elif way == 1 and not soft:
            x[i, j] = np.inf
        elif not soft and options.get("tail") != "bucket":
            x[i, (generator.random(classes) < 0.3) & (np.arange(classes) != j)] = -np.inf
    if "row_weights" in tensors:
        x[tensors["row_weights"] == 0] = np.nan
    if "target_indices" in tensors:
        pads = tensors["target_indices"] < 0
        tensors["target_log_probabilities"][pads] = np.nan
        if "labels" not in tensors:
            x[pads.all(1)] = np.nan
