"""The calls whose exact answers are published: small batches that are easy to get wrong.

Inputs come from a counter (`splitmix`) or are written out; a teacher's probabilities are exact
ones, rounded. So they are the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from cases import DTYPES, EVERY_OUTPUT, Case
from reference import outputs
from splitmix import Generator
from targets import Row
from ulps import Array

NAN, INF = float("nan"), float("inf")
SOFTMAX_OUTPUTS = (
    "log_normalizer",
    "entropy",
    "probabilities",
    "log_probabilities",
    "prediction",
)
SHORT = ("loss", "log_normalizer", "entropy", "gradient", "prediction", "correct", "rank")
"""What a row of thousands of classes is answered with: one output per logit instead of four."""

Tensors = dict[str, Array]


class Fixture(NamedTuple):
    """A call, its name and the sentence that says what it is for."""

    name: str
    description: str
    case: Case
    evaluation: str = "cross_entropy"


def fixtures() -> Iterator[Fixture]:
    """Yield every published call."""
    for several in (
        _labels,
        _extremes,
        _soft,
        _tails,
        _mixed,
        _weighted,
        _transformed,
        _evaluations,
    ):
        yield from several()


def _labels() -> Iterator[Fixture]:
    for dtype in DTYPES:
        name = f"labels-{dtype}"
        yield _call(name, f"Ordinary {dtype} logits and labels.", _labelled(name, 6, 10, dtype))
    one = {"logits": _array([[0.0], [1e8], [-7.5]]), "labels": np.zeros(3, np.int64)}
    yield _call("one-class-float32", "A single class: loss and gradient are 0.", one)


def _extremes() -> Iterator[Fixture]:
    rows = [[20, 0], [20, 0], [0, 20], [88, 0], [100, -3], [0.1, 0.1]]
    for dtype, factor in (("float32", 1.0), ("float64", 8.0)):
        x = _array(np.array(rows) * factor, dtype)
        words = "Confident rows, whose loss is far below the spacing of the logits."
        labels = np.array([0, 1, 1, 0, 0, 1])
        yield _call(f"confident-{dtype}", words, {"logits": x, "labels": labels})
    yield from _offsets()
    yield from _one_above_many()
    yield from _not_finite()


def _offsets() -> Iterator[Fixture]:
    steps = np.array([[0, 0, 0], [0, -8, -16], [16, 0, 8], [-64, 8, -8], [0, 0, -128]], np.float64)
    offsets = np.array([[1e8], [1e8], [-1e8], [1e8], [1e30]])
    for dtype, unit in (("float32", 1.0), ("float64", 0.03125)):
        tensors = {"logits": _array(steps * unit + offsets, dtype), "labels": _ints(1, 2, 1, 0, 2)}
        words = "Offsets of 1e8 and more, which the softmax does not depend on."
        yield _call(f"offsets-{dtype}", words, tensors)


def _one_above_many() -> Iterator[Fixture]:
    words = "One class above many equal small ones, the label among them or not; all equal."
    gaps = np.array([4.0, 17.0, 40.0, 0.0])
    x = np.where(np.arange(300) == 123, gaps[:, None], 0.0) + 0.1
    tensors = {"logits": _array(x, "float64"), "labels": _ints(123, 123, 7, 299)}
    yield _call("one-above-many-c300-float64", words, tensors)
    x = np.where(np.arange(5000) == 4500, np.array([[17.0], [6.0]]), 0.0)
    tensors = {"logits": _array(x), "labels": _ints(4500, 31)}
    words = "One class above 4,999 equal small ones, the label it or one of them."
    yield _call("one-above-many-c5000-float32", words, tensors, outputs=SHORT)


def _not_finite() -> Iterator[Fixture]:
    rows = [[-INF, 0.5, 2.0], [1.0, -INF, -INF], [0.25, -INF, 1.5]]
    tensors = {"logits": _array(rows), "labels": _ints(1, 0, 1)}
    words = "Logits of -inf, in the last row at the label: its loss is inf, its gradient finite."
    yield _call("minus-infinity-float32", words, tensors, non_finite="propagate")
    rows = [[NAN, 1, 2], [INF, 0, 1], [-INF, -INF, -INF], [0.5, 1, 2], [NAN, 0, 0]]
    tensors = {"logits": _array(rows, "float64"), "labels": _ints(1, 0, 1, 2, -100)}
    words = "Rows of NaN and infinities beside an ordinary one, and an ignored row of NaN."
    yield _call("not-a-number-float64", words, tensors, non_finite="propagate")


def _soft() -> Iterator[Fixture]:
    yield from _dense()
    for tail, dtype in (("renormalize", "float32"), ("bucket", "float64"), ("none", "float16")):
        name = f"top-k-{tail}-{dtype}"
        words = f"The five largest of a teacher's log-probabilities, tail={tail}; some are pads."
        yield _call(name, words, _top_k(name, 5, 33, dtype), tail=tail)


def _tails() -> Iterator[Fixture]:
    logits = _array([[50, 0, 1, -2], [0, 50, 1, -2]] * 3, "float64")
    sure = [-1e-3, -1e-8, -1e-13, -1e-17, 0.0, 2.0**-20]
    tensors = _entries(logits, [[0]] * 6, [[v] for v in sure])
    words = "Sure teachers, who leave 1e-3 to 1e-17, or nothing, to a bucket."
    yield _call("top-k-sure-bucket-float64", words, tensors, tail="bucket")
    tensors = _entries(
        _array(logits), [[0, 2]] * 6, [[v, v - 26] for v in (-10.0, -36.0, -300.0)] * 2
    )
    words = "Teachers that name next to nothing: a bucket is owed nearly all."
    yield _call("top-k-unsure-bucket-float32", words, tensors, tail="bucket")
    indices = [[0, 1, 2], [2, 1, 0], [-1, -1, -1], [0, -1, -1]]
    logs = [[-0.35668945, -1.609375, -2.3027344]] * 2 + [[NAN] * 3] + [[-0.5, NAN, NAN]]
    tensors = _entries(_array([[2, 1, 0]] * 4, "float64"), indices, logs)
    tensors["logits"][2] = NAN
    words = "Every class named: nothing is left; and a row without an entry, which does not count."
    yield _call("top-k-empty-bucket-float64", words, tensors, tail="bucket", reduction="mean")
    raw = [[2.0, 1.0, 0.5], [700.0, 100.0, -300.0], [-INF, -INF, -INF], [-0.1, -1.2, -0.9]]
    tensors = _entries(_array([[2, 1, 0, -1]] * 4), [[0, 1, 2]] * 4, raw)
    words = (
        "A teacher's logits and tempered log-probabilities, renormalised; a row of -inf is ignored."
    )
    yield _call("top-k-logits-renormalize-float32", words, tensors, tail="renormalize")


def _entries(logits: Array, indices: list[list[int]], logs: Sequence[Sequence[float]]) -> Tensors:
    return {
        "logits": logits,
        "target_indices": np.array(indices, np.int64),
        "target_log_probabilities": np.array(logs, np.float64),
    }


def _dense() -> Iterator[Fixture]:
    name = "probabilities-float32"
    tensors = _probabilities(name, 5, 10, "float32")
    tensors["row_weights"] = _array([1.0, 0.1, 0.0, 3.7, 0.5])
    yield _call(name, "Target probabilities and row weights, one of them 0.", tensors)
    name = "probabilities-one-hot-float64"
    tensors = _logits(name, 5, 10, "float64", spread=20.0)
    tensors["target_probabilities"] = np.eye(10)[tensors["logits"].argmax(1)]
    words = "One-hot probabilities of confident rows: as exact as labels."
    yield _call(name, words, tensors)
    name = "student-equals-teacher-float32"
    tensors = _logits(name, 4, 33, "float32")
    tensors["target_probabilities"] = _softmax(tensors["logits"])
    words = "Targets equal to the student's own probabilities, rounded: gradients cancel."
    yield _call(name, words, tensors)


def _mixed() -> Iterator[Fixture]:
    name = "mixture-probabilities-others-float32"
    tensors = _probabilities(name, 5, 10, "float32") | _some_labels(name, 5, 10)
    words = "0.3 of a label and 0.7 of probabilities, smoothed over the other classes."
    smoothing: dict[str, Any] = {"label_smoothing": 0.1, "smoothing": "others"}
    yield _call(name, words, tensors, hard_weight=0.3, **smoothing)
    name = "mixture-top-k-bucket-bfloat16"
    tensors = _top_k(name, 4, 33, "bfloat16") | _some_labels(name, 4, 33)
    words = "Half a label and half a top-k target with its bucket, at temperature 2."
    yield _call(name, words, tensors, hard_weight=0.5, tail="bucket", temperature=2.0)


def _weighted() -> Iterator[Fixture]:
    name = "smoothed-float64"
    words = "Label smoothing over all classes."
    yield _call(name, words, _labelled(name, 5, 10, "float64"), label_smoothing=0.1)
    name = "smoothed-others-class-weights-float32"
    tensors = _labelled(name, 5, 10) | {"class_weights": _weights(name, 10)}
    words = "Label smoothing over the other classes, and class weights."
    yield _call(name, words, tensors, label_smoothing=0.2, smoothing="others")
    yield from _reduced()
    yield from _masked()


def _reduced() -> Iterator[Fixture]:
    name = "mean-float32"
    tensors = _labelled(name, 6, 10) | {"class_weights": _weights(name, 10)}
    tensors["row_weights"] = _array([1.0, 0.0, 2.5, 0.1, 1.0, 1.0])
    tensors["labels"][4] = -100
    words = "A mean over class and row weights; a row is ignored, another has weight 0."
    yield _call(name, words, tensors, reduction="mean")
    name = "mean-over-rows-bfloat16"
    words = "A mean over rows, scaled by 65536."
    options: dict[str, Any] = {"reduction": "mean", "mean_over": "rows", "scale": 65536.0}
    yield _call(name, words, _labelled(name, 5, 33, "bfloat16"), **options)
    name = "sum-ignore-index-float64"
    tensors = _labelled(name, 6, 3, "float64", spread=9.0)
    tensors["labels"] = _ints(0, 2, 1, 2, 0, 1).astype(np.int32)
    words = "A sum that leaves out label 2, with a negative scale."
    yield _call(name, words, tensors, reduction="sum", ignore_index=2, scale=-0.37)


def _masked() -> Iterator[Fixture]:
    name = "mask-shared-float32"
    tensors = _labelled(name, 5, 33)
    tensors["class_mask"] = np.arange(33) % 3 != 1
    tensors["labels"] -= tensors["labels"] % 3
    yield _call(name, "Every third class takes no part.", tensors)
    name = "mask-per-row-float64"
    tensors = _labelled(name, 5, 10, "float64")
    mask = Generator.named(f"{name} mask").below(4, 5, 10) > 0
    tensors["class_mask"] = mask | (np.arange(10) == tensors["labels"][:, None])
    tensors["logits"][~tensors["class_mask"]] = NAN
    words = "A mask for each row; the logits it hides are NaN and not read."
    yield _call(name, words, tensors, label_smoothing=0.1)


def _transformed() -> Iterator[Fixture]:
    name = "z-loss-mean-float32"
    tensors = _labelled(name, 5, 10)
    words = "z_loss, and a mean with a denominator of its own."
    options: dict[str, Any] = {"z_loss": 0.01, "reduction": "mean", "denominator": 7.3}
    yield _call(name, words, tensors, **options)
    name = "softcap-float32"
    tensors = _labelled(name, 5, 10, spread=25.0)
    words = "Logits capped at 30, then divided by 2."
    yield _call(name, words, tensors, softcap=30.0, temperature=2.0)
    for name, tau in (("temperature-low-float64", 0.01), ("temperature-high-float32", 100.0)):
        tensors = _labelled(name, 5, 10, name.rpartition("-")[2])
        yield _call(name, f"Temperature {tau:g}.", tensors, temperature=tau)


def _evaluations() -> Iterator[Fixture]:
    name = "softmax-float32"
    tensors = _logits(name, 4, 33, "float32", spread=9.0)
    many: dict[str, Any] = {"outputs": SOFTMAX_OUTPUTS}
    yield _call(name, "Softmax without a target.", tensors, "softmax", **many)
    name = "softmax-mask-float64"
    tensors = _logits(name, 4, 10, "float64") | {"class_mask": np.arange(10) != 4}
    words = "Softmax with a masked class, at temperature 0.3."
    yield _call(name, words, tensors, "softmax", temperature=0.3, **many)
    yield from _products()


def _products() -> Iterator[Fixture]:
    name, evaluation = "product-labels-float32", "hessian_vector_product"
    words = "The Hessian times a vector, row by row."
    yield _call(name, words, _with_vectors(name, _labelled(name, 4, 10)), evaluation)
    name = "product-probabilities-float64"
    tensors = _probabilities(name, 4, 33, "float64")
    tensors["row_weights"] = _array([1.0, 0.5, 3.0, 0.25])
    words = "The Hessian of a mean over weighted rows times a vector, at temperature 2."
    options = {"reduction": "mean", "temperature": 2.0}
    yield _call(name, words, _with_vectors(name, tensors), evaluation, **options)


def _call(
    name: str,
    description: str,
    tensors: Tensors,
    evaluation: str = "cross_entropy",
    **options: Any,
) -> Fixture:
    """Return a call with every output that there is for it, unless it chooses."""
    given = dict(tensors)
    vectors = given.pop("vectors", None)
    if evaluation == "hessian_vector_product":
        options["outputs"] = (evaluation,)
    options.setdefault("outputs", tuple(_legal(given, options)))
    return Fixture(name, description, Case(given, options, vectors), evaluation)


def _legal(tensors: Tensors, options: dict[str, Any]) -> Iterator[str]:
    for output in EVERY_OUTPUT:
        without_label = output in ("correct", "rank") and "labels" not in tensors
        capped = output == "hessian_diagonal" and "softcap" in options
        if not without_label and not capped:
            yield output


def _array(values: Any, dtype: str = "float32") -> Array:
    return np.asarray(values, np.float64).astype(DTYPES[dtype])


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _logits(name: str, rows: int, classes: int, dtype: str, spread: float = 3.0) -> Tensors:
    return {"logits": _array(Generator.named(name).bell(rows, classes) * spread, dtype)}


def _some_labels(name: str, rows: int, classes: int) -> Tensors:
    return {"labels": Generator.named(f"{name} labels").below(classes, rows)}


def _labelled(
    name: str, rows: int, classes: int, dtype: str = "float32", spread: float = 3.0
) -> Tensors:
    return _logits(name, rows, classes, dtype, spread) | _some_labels(name, rows, classes)


def _weights(name: str, classes: int) -> Array:
    """Return positive float32 numbers, whose products with others are exact in float64."""
    return _array(Generator.named(f"{name} weights").below(1000, classes) / 500 + 0.1)


def _with_vectors(name: str, tensors: Tensors) -> Tensors:
    x = tensors["logits"]
    vectors = Generator.named(f"{name} vectors").bell(*x.shape) + 3
    return tensors | {"vectors": vectors.astype(x.dtype)}


def _softmax(logits: Array) -> Array:
    rows = [outputs(Row(tuple(x)), ["probabilities"]) for x in logits.astype(np.float64).tolist()]
    return np.array([row["probabilities"].high for row in rows]).astype(logits.dtype)


def _probabilities(name: str, rows: int, classes: int, dtype: str) -> Tensors:
    teacher = _logits(f"{name} teacher", rows, classes, dtype)["logits"]
    return _logits(name, rows, classes, dtype) | {"target_probabilities": _softmax(teacher)}


def _top_k(name: str, rows: int, classes: int, dtype: str) -> Tensors:
    """Return logits and the five largest of a teacher; a fourth or fifth of them may be a pad."""
    teacher = _logits(f"{name} teacher", rows, classes, "float64")["logits"]
    exact = [outputs(Row(tuple(x)), ["log_probabilities"]) for x in teacher.tolist()]
    logs = np.array([row["log_probabilities"].high for row in exact])
    indices = np.argsort(-logs, axis=1, kind="stable")[:, :5]
    kept = np.take_along_axis(logs, indices, 1).astype(DTYPES[dtype])
    indices[::2, 3], indices[1, 4] = -1, -1
    return _logits(name, rows, classes, dtype) | {
        "target_indices": indices,
        "target_log_probabilities": kept,
    }
