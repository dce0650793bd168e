"""Every option and output for a batch, in float64 NumPy and as textbooks write them.

It shows what is computed; `reference` shows how well. Its options are those of a call, with the
same names and defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ulps import Array

DEFAULTS: dict[str, Any] = {
    "reduction": "none",
    "ignore_index": -100,
    "label_smoothing": 0.0,
    "smoothing": "all",
    "z_loss": 0.0,
    "softcap": None,
    "temperature": 1.0,
    "tail": "renormalize",
    "hard_weight": None,
    "denominator": None,
    "mean_over": "weights",
    "scale": 1.0,
    "empty": "nan",
}


class Rows(NamedTuple):
    """What a batch's tensors come to, with rows that are not evaluated replaced by zeros."""

    logits: Array
    labels: Array | None
    weights: Array
    mask: Array
    ignored: Array
    broken: Array


def naive(tensors: Mapping[str, Any], vectors: Any = None, **given: Any) -> dict[str, Any]:
    """Return every output and sum of [N, C] logits; the loss and the gradient are reduced."""
    o = DEFAULTS | given
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rows = read_rows(tensors, o)
        z = transformed(rows.logits, rows.mask, o)
        m = z.max(1, keepdims=True, initial=-np.inf)
        lse = np.log(np.exp(z - m).sum(1, keepdims=True)) + m
        out = per_row(z, lse, *target(tensors, rows, o), vectors, rows, o)
        out |= places(z, rows)
        for name, value in out.items():
            blank(name, value, rows)
        return reduced(out, tensors, rows, o)


def read_rows(tensors: Mapping[str, Any], o: Mapping[str, Any]) -> Rows:
    """Return checked rows: which are ignored, which are broken, zeros in place of both."""
    x = np.array(tensors["logits"], np.float64)
    n, classes = x.shape
    ignored = row_weights(tensors, n) == 0
    labels = tensors.get("labels")
    if labels is not None:
        labels = np.array(labels, np.int64)
        ignored |= labels == o["ignore_index"]
        labels = np.where(ignored, 0, labels)
    elif "target_indices" in tensors:
        ignored |= lacks_target(tensors, o)
    mask = np.ones((n, classes), bool) & np.array(tensors.get("class_mask", True), bool)
    seen = np.where(mask, x, -np.inf)
    with np.errstate(invalid="ignore"):
        broken = ~ignored & ~np.isfinite(seen.max(1, initial=-np.inf))
    x[ignored | broken] = 0
    x[~mask] = 0
    return Rows(x, labels, row_weights(tensors, n), mask, ignored, broken)


def lacks_target(tensors: Mapping[str, Any], o: Mapping[str, Any]) -> Array:
    """Return which rows name no class; to be renormalised, one must have a probability above 0."""
    entries = np.array(tensors["target_indices"]) >= 0
    if o["tail"] == "renormalize":
        entries &= np.array(tensors["target_log_probabilities"], np.float64) > -np.inf
    return np.asarray(~entries.any(1))


def row_weights(tensors: Mapping[str, Any], rows: int) -> Array:
    weights = tensors.get("row_weights")
    return np.ones(rows) if weights is None else np.array(weights, np.float64)


def transformed(x: Array, mask: Array, o: Mapping[str, Any]) -> Array:
    """Return z: masked classes at -inf, softcap, temperature."""
    s = o["softcap"]
    y = x if s is None else s * np.tanh(x / s)
    return np.where(mask, y / o["temperature"], -np.inf)


def target(
    tensors: Mapping[str, Any], rows: Rows, o: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """Return masses [N, C], the rest that a bucket is owed [N, 1], and who is in it [N, C]."""
    base, rest, bucket = soft_target(tensors, rows, o)
    if rows.labels is not None:
        a = 1.0 if o["hard_weight"] is None else o["hard_weight"]
        base, rest = (1 - a) * base, (1 - a) * rest
        base[np.arange(len(base)), rows.labels] += a
    count = np.maximum(rows.mask.sum(1, keepdims=True), 1)
    eps = o["label_smoothing"]
    spread = eps / count
    if o["smoothing"] == "others":
        spread = eps * (base.sum(1, keepdims=True) - base) / np.maximum(count - 1, 1)
    weights = np.array(tensors.get("class_weights", 1.0), np.float64)
    return np.where(rows.mask, weights * ((1 - eps) * base + spread), 0), rest, bucket


def soft_target(
    tensors: Mapping[str, Any], rows: Rows, o: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """Return a soft target as masses, rest and bucket; zeros for a label alone."""
    shape = rows.logits.shape
    masses, nothing = np.zeros(shape), np.zeros((shape[0], 1))
    if "target_probabilities" in tensors:
        given = np.array(tensors["target_probabilities"], np.float64)
        return np.where(rows.mask, given, 0), nothing, np.zeros(shape, bool)
    if "target_indices" not in tensors:
        return masses, nothing, np.zeros(shape, bool)
    listed = np.zeros(shape, bool)
    highest = np.full(shape[0], -np.inf)
    for i, _, log_probability in top_k(tensors):
        highest[i] = max(highest[i], log_probability)
    renormalized = o["tail"] == "renormalize"
    centre = np.where(np.isfinite(highest) & renormalized, highest, 0)
    for i, j, log_probability in top_k(tensors):
        masses[i, j] = math.exp(log_probability - centre[i]) * rows.mask[i, j]
        listed[i, j] = True
    total = masses.sum(1, keepdims=True)
    if renormalized:
        return masses / np.where(total > 0, total, 1), nothing, np.zeros(shape, bool)
    if o["tail"] == "none":
        return masses, nothing, np.zeros(shape, bool)
    bucket = rows.mask & ~listed
    return masses, np.maximum(0, 1 - total) * bucket.any(1, keepdims=True), bucket


def top_k(tensors: Mapping[str, Any]) -> list[tuple[int, int, float]]:
    """Return (row, class, log-probability) of every entry that is not a pad."""
    indices = np.array(tensors["target_indices"])
    logs = np.array(tensors["target_log_probabilities"], np.float64)
    return [(i, int(indices[i, k]), logs[i, k]) for i, k in np.argwhere(indices >= 0).tolist()]


def per_row(
    z: Array,
    lse: Array,
    t: Array,
    rest: Array,
    bucket: Array,
    vectors: Any,
    rows: Rows,
    o: Mapping[str, Any],
) -> dict[str, Array]:
    """Return what does not involve the rows' factors; losses and derivatives before them."""
    p, log_p = np.exp(z - lse), z - lse
    mass = (p * bucket).sum(1, keepdims=True)
    q = np.where(bucket & (rest > 0) & (p > 0), p / mass, 0)
    total, tau, extra = t.sum(1, keepdims=True) + rest, o["temperature"], 2 * o["z_loss"]
    by_z = (total + extra * lse) * p - t - rest * q
    spread, inner = p * (1 - p), q * (1 - q)
    out = {
        "loss": total_of(-t * log_p, t > 0)
        + np.where(rest > 0, -rest * np.log(mass), 0)[:, 0]
        + o["z_loss"] * lse[:, 0] ** 2,
        "gradient": by_z * chain(rows.logits, o),
        "log_normalizer": lse[:, 0],
        "probabilities": p,
        "log_probabilities": log_p,
        "entropy": total_of(-p * log_p, p > 0),
        "target_entropy": entropy(t) + entropy(rest),
        "hessian_diagonal": ((total + extra * lse) * spread - rest * inner + extra * p**2) / tau**2,
    }
    if vectors is not None:
        v = np.where(rows.mask, np.array(vectors, np.float64), 0)
        mean, within = (p * v).sum(1, keepdims=True), (q * v).sum(1, keepdims=True)
        product = (total + extra * lse) * p * (v - mean) - rest * q * (v - within)
        out["hessian_vector_product"] = (product + extra * p * mean) / tau**2
    return out


def total_of(terms: Array, taken: Array) -> Array:
    return np.asarray(np.where(taken, terms, 0).sum(1))


def entropy(t: Array) -> Array:
    return total_of(-t * np.log(t), t > 0)


def chain(x: Array, o: Mapping[str, Any]) -> Any:
    """Return dz/dx."""
    s = o["softcap"]
    return (1.0 if s is None else 1 - np.tanh(x / s) ** 2) / o["temperature"]


def places(z: Array, rows: Rows) -> dict[str, Array]:
    """Return prediction, and with labels rank and correct: ties go to the lower index."""
    prediction = z.argmax(1)
    if rows.labels is None:
        return {"prediction": prediction}
    own = np.take_along_axis(z, rows.labels[:, None], 1)
    before = np.arange(z.shape[1]) < rows.labels[:, None]
    rank = (rows.mask & ((z > own) | ((z == own) & before))).sum(1)
    return {"prediction": prediction, "rank": rank, "correct": rank == 0}


SCALED = ("loss", "gradient", "hessian_diagonal", "hessian_vector_product")
INTEGERS = ("prediction", "rank")


def blank(name: str, value: Array, rows: Rows) -> None:
    """Write what ignored and broken rows hold: zeros and NaN, -1 and false."""
    if name == "correct":
        value[rows.ignored | rows.broken] = False
    elif name in INTEGERS:
        value[rows.ignored | rows.broken] = -1
    else:
        value[rows.broken] = np.nan
        value[rows.ignored] = 0


def reduced(
    out: dict[str, Array], tensors: Mapping[str, Any], rows: Rows, o: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all outputs with row weight, scale and reduction applied, and the sums."""
    factor = rows.weights * o["scale"]
    loss = np.where(rows.ignored, 0, out["loss"] * factor)
    weight_sum, count = weigh(tensors, rows, o), int((~rows.ignored).sum())
    divisor = divide_by(weight_sum, count, o)
    result: dict[str, Any] = dict(out)
    for name in set(SCALED[1:]) & set(out):
        share = factor / divisor if divisor else 0 * factor
        result[name] = np.where(rows.ignored[:, None], 0, out[name] * share[:, None])
    total = math.fsum(loss) if np.isfinite(loss).all() else float(loss.sum())
    mean = total / divisor if divisor else {"nan": math.nan, "zero": 0.0}[o["empty"]]
    result["loss"] = loss if o["reduction"] == "none" else mean
    return result | {"loss_sum": total, "weight_sum": weight_sum, "count": count}


def weigh(tensors: Mapping[str, Any], rows: Rows, o: Mapping[str, Any]) -> float:
    """Return the sum of row weights, times the label's class weight where labels are all there is.

    Where a soft target takes part, a mixture with the label included, row weights alone count.
    """
    weights = np.where(rows.ignored, 0, rows.weights)
    if "class_weights" in tensors and o["hard_weight"] is None and rows.labels is not None:
        weights = weights * np.array(tensors["class_weights"], np.float64)[rows.labels]
    return math.fsum(weights)


def divide_by(weight_sum: float, count: int, o: Mapping[str, Any]) -> float:
    """Return what the mean divides by; 0 where nothing is left."""
    if o["reduction"] != "mean":
        return 1.0
    if o["denominator"] is not None:
        return float(o["denominator"])
    return float(count) if o["mean_over"] == "rows" else weight_sum


def refuses_as_empty(tensors: Mapping[str, Any], **given: Any) -> bool:
    """Tell whether the mean has no divisor and `empty` is "error"."""
    o = DEFAULTS | given
    rows = read_rows(tensors, o)
    divisor = divide_by(weigh(tensors, rows, o), int((~rows.ignored).sum()), o)
    return divisor == 0 and o["empty"] == "error"
