"""From whatever the caller passed to a checked batch: shapes, dtypes and contiguity settled."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softxent._interop import as_numpy
from softxent.errors import LabelError, TensorError, WeightError, named_rows
from softxent.evaluations import CROSS_ENTROPY, DTYPES, PRODUCT, Evaluation
from softxent.hints import unknown
from softxent.results import Floats

PER_ROW = (
    "logits",
    "labels",
    "target_probabilities",
    "target_indices",
    "target_log_probabilities",
    "row_weights",
    "class_mask",
    "vectors",
)
"""The tensors that are cut with the rows; of class masks those of two dimensions."""

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
_INT64 = np.dtype(np.int64)
_NONE = np.empty(0)
_NO_INTEGERS = np.empty(0, np.int64)
_NO_MASK = np.empty(0, np.uint8)
_MOST_MASS = 1.0 + 2.0**-7

_TARGETS = frozenset({"labels", "target_probabilities", "target_indices"})


class Layout(NamedTuple):
    """What a plan depends on: all of a batch but its rows and values.

    Attributes:
        dtype: of the logits.
        columns: how many the logits have; 0 without rows.
        classes: C; more than columns where the logits are a block of them.
        entries: K of a top-k target, else 0.
        given: the tensors that are given, in order.
        masks_rows: whether each row has a mask of its own.
        most_mass: what the probabilities of a top-k row may add up to, for all their rounding.
    """

    dtype: np.dtype[Any]
    columns: int
    classes: int
    entries: int
    given: tuple[str, ...]
    masks_rows: bool
    most_mass: float

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the dtype of computation."""
        return computed_dtype(self.dtype)

    @property
    def kinds(self) -> frozenset[str]:
        """Return which targets are given."""
        return _TARGETS.intersection(self.given)

    @property
    def is_soft(self) -> bool:
        """Whether there is a target beside or instead of labels."""
        return self.kinds != {"labels"}


@dataclass(eq=False, slots=True)
class Batch:
    """A batch whose shapes and dtypes fit together; values of targets and weights are unchecked.

    What is not given is empty.

    Attributes:
        logits: [N, C] of one of `DTYPES`, C-contiguous; the caller's own memory where it was so.
        labels: [N] int64.
        target_probabilities: [N, C], of the logits' dtype where that has 16 bits and they have
            it too, else of the dtype of computation.
        target_indices: [N, K] int64, -1 for no entry.
        target_log_probabilities: [N, K] of one of `DTYPES`, as they are stored.
        class_weights: [C] float64, or empty where every class weighs 1.
        row_weights: [N] float64, or empty where every row weighs 1.
        class_mask: uint8 [C], the same for every row, or [N, C]; 0 where a class takes no part.
        vectors: [N, C] in the dtype of computation.
        classes: C; more than logits have columns where they are a block of them.
        leading: the shape that [N] stands for.
        given: the tensors as arrays before they were converted, views of the caller's own memory
            wherever NumPy can see into it.
    """

    logits: Floats
    labels: npt.NDArray[np.int64]
    target_probabilities: Floats
    target_indices: npt.NDArray[np.int64]
    target_log_probabilities: Floats
    class_weights: npt.NDArray[np.float64]
    row_weights: npt.NDArray[np.float64]
    class_mask: npt.NDArray[np.uint8]
    vectors: Floats
    classes: int
    leading: tuple[int, ...]
    given: Mapping[str, npt.NDArray[Any]]

    @property
    def rows(self) -> int:
        """Return N."""
        return len(self.logits)

    def part(self, rows: slice) -> Batch:
        """Return some rows, as a batch of [n, C]."""
        cut = {
            name: array[rows]
            for name in PER_ROW
            if (array := getattr(self, name)).size and (name != "class_mask" or array.ndim == 2)
        }
        return replace(self, **cut, leading=(rows.stop - rows.start,))

    @property
    def is_half(self) -> bool:
        """Whether logits have 16 bits and are computed in float32."""
        return self.logits.dtype.itemsize == 2

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the dtype of computation, which results of one value a row have."""
        return computed_dtype(self.logits.dtype)

    @property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """Return those of a top-k target in the type they are evaluated in."""
        return self.target_log_probabilities.astype(np.float64, copy=False)

    @property
    def most_mass(self) -> float:
        """Return what the probabilities of a top-k row may add up to, for all their rounding."""
        if not self.target_log_probabilities.size:
            return _MOST_MASS
        stored = dtype_name(self.target_log_probabilities.dtype)
        return 1.0 + 2.0**-5 if stored == "bfloat16" else _MOST_MASS

    def lacks_target(self, tail: str) -> npt.NDArray[np.bool_]:
        """Return which rows [N] are ignored because their top-k target has no entry.

        With `tail=renormalize` an entry must be above -inf; a label is a target.
        """
        if self.kinds != {"target_indices"}:
            return np.zeros(self.rows, np.bool_)
        entries = self.target_indices != -1
        if tail == "renormalize":
            entries = entries & (self.log_probabilities > -np.inf)
        return np.asarray(~entries.any(axis=1))

    @property
    def kinds(self) -> frozenset[str]:
        """Return which targets were given."""
        return _TARGETS.intersection(self.given)

    @property
    def is_soft(self) -> bool:
        """Whether there is a target beside or instead of labels."""
        return self.kinds != {"labels"}

    def layout(self) -> Layout:
        """Return what a plan depends on."""
        rows, columns = self.logits.shape
        if not rows:
            # Without rows, the number of classes costs no bytes and bounds nothing.
            columns = classes = entries = 0
        else:
            classes = self.classes
            entries = self.target_indices.shape[1] if self.target_indices.ndim == 2 else 0
        masks_rows, given = self.class_mask.ndim == 2, tuple(self.given)
        return Layout(
            self.logits.dtype, columns, classes, entries, given, masks_rows, self.most_mass
        )


def check_batch(
    tensors: Mapping[str, Any],
    evaluation: Evaluation = CROSS_ENTROPY,
    *,
    classes: int | None = None,
) -> Batch:
    """Check and normalise the tensors of a batch.

    Args:
        tensors: array-likes by name. `logits` [..., C]; a target: `labels` [...],
            `target_probabilities` [..., C], or `target_indices` and `target_log_probabilities`
            [..., K], or labels and one of the others; optionally `class_weights` [C],
            `row_weights` [...] and `class_mask` [C] or [..., C]; `vectors` [..., C] for a
            Hessian-vector product. None counts as absent.
        evaluation: says which of them there may be.
        classes: C, where `logits` are a block of columns; class weights and mask are whole.

    Raises:
        TensorError: a tensor is missing or unknown, or has the wrong dtype or shape.
        LabelError: an unsigned label does not fit int64.
        WeightError: a class weight is negative or not finite.
    """
    given = {
        name: value if type(value) is np.ndarray else _array(name, as_numpy(name, value))
        for name, value in tensors.items()
        if value is not None
    }
    _check_names(tuple(tensors), tuple(given), evaluation)
    logits = _logits(given["logits"])
    leading, columns = logits.shape[:-1], logits.shape[-1]
    classes = columns if classes is None else classes
    others = _others(given, logits, classes)
    return Batch(
        logits=logits if len(leading) == 1 else logits.reshape(math.prod(leading), columns),
        labels=_labels(given["labels"], logits.shape) if "labels" in given else _NO_INTEGERS,
        **others,
        classes=classes,
        leading=leading,
        given=given,
    )


@functools.lru_cache(maxsize=256)
def _check_names(names: tuple[str, ...], given: tuple[str, ...], evaluation: Evaluation) -> None:
    """Refuse tensors that an evaluation does not have, and the lack of those that it needs."""
    for name in names:
        if name not in evaluation.tensors:
            raise TensorError(unknown("tensor", name, evaluation.tensors), field=name)
    if "logits" not in given:
        raise TensorError("the tensor logits is required", field="logits")
    if evaluation.name == PRODUCT and "vectors" not in given:
        raise TensorError("the tensor vectors is required", field="vectors")
    _check_kinds(given, evaluation)


def _others(given: Mapping[str, npt.NDArray[Any]], logits: Floats, classes: int) -> dict[str, Any]:
    """Return all arrays of a batch but logits and labels, empty where they are not given."""
    empty = empties(computed_dtype(logits.dtype))
    if given.keys() <= {"logits", "labels"}:
        return empty
    leading = logits.shape[:-1]
    indices, log_probabilities = _top_k(given, leading)
    return {
        "target_probabilities": _per_logit("target_probabilities", given, logits),
        "target_indices": indices,
        "target_log_probabilities": log_probabilities,
        "class_weights": _class_weights(given, classes),
        "row_weights": _weights("row_weights", given, leading),
        "class_mask": _mask(given, (*leading, classes)),
        "vectors": _vectors(given, logits),
    }


@functools.lru_cache(maxsize=2)
def empties(computed: np.dtype[Any]) -> dict[str, Any]:
    """Return what stands for each array of a batch that is not given."""
    return {
        "target_probabilities": np.empty(0, computed),
        "target_indices": _NO_INTEGERS,
        "target_log_probabilities": _NONE,
        "class_weights": _NONE,
        "row_weights": _NONE,
        "class_mask": _NO_MASK,
        "vectors": np.empty(0, computed),
    }


def _check_kinds(given: tuple[str, ...], evaluation: Evaluation) -> None:
    kinds = _TARGETS.intersection(given)
    missing = {"target_indices", "target_log_probabilities"}.difference(given)
    if len(missing) == 1:
        (name,) = missing
        raise TensorError(f"the tensor {name} is required for a top-k target", field=name)
    if not kinds and evaluation.has_target:
        raise TensorError(
            "a target is required: labels, target_probabilities, or target_indices with"
            " target_log_probabilities",
            field="labels",
        )
    if kinds >= {"target_probabilities", "target_indices"}:
        raise TensorError(
            "target_indices cannot stand beside target_probabilities", field="target_indices"
        )


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return a tensor as an array, without a copy where its memory can be seen."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TensorError(f"{name} is not a rectangular array: {error}", field=name) from None
    # An empty list says nothing of its type; NumPy takes it for floats.
    is_empty = array.size == 0 and name in ("labels", "target_indices")
    return array.astype(np.int64) if is_empty and array.dtype == np.float64 else array


def _logits(logits: npt.NDArray[Any]) -> Floats:
    if logits.dtype.kind in "iu":
        logits = _exact_floats(logits)
    if dtype_name(logits.dtype) not in DTYPES:
        raise TensorError(
            f"logits must be one of {', '.join(DTYPES)}, not {logits.dtype}", field="logits"
        )
    if logits.ndim < 2:
        raise TensorError(
            f"logits must have at least 2 dimensions [..., C], not {logits.ndim}", field="logits"
        )
    if logits.shape[-1] == 0 and logits.shape[:-1] != (0,) * (logits.ndim - 1):
        raise TensorError(
            f"logits of shape {list(logits.shape)} have rows but no classes", field="logits"
        )
    if logits.flags.c_contiguous and logits.dtype.isnative:
        return logits
    return np.ascontiguousarray(logits, logits.dtype.newbyteorder("="))


def _exact_floats(integers: npt.NDArray[Any]) -> Floats:
    """Return integer logits as float64; those that it does not hold are refused."""
    floats = integers.astype(np.float64)
    if integers.dtype.itemsize == 8 and (np.abs(floats) >= 2.0**53).any():
        raise TensorError(
            "logits hold integers of 2^53 or more, which float64 may lack; pass floats",
            field="logits",
        )
    return floats


def _integers(
    name: str, integers: npt.NDArray[Any], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    if integers.dtype == _INT64 and integers.shape == shape and integers.flags.c_contiguous:
        return integers
    if integers.dtype.kind not in "iub":
        raise TensorError(f"{name} must be integers, not {integers.dtype}", field=name)
    _check_shape(name, integers.shape, shape)
    if integers.dtype.kind == "u" and integers.dtype.itemsize == 8:
        too_large = integers.reshape(-1) > np.iinfo(np.int64).max
        if too_large.any():
            raise LabelError(
                f"{name} must be below 2^63; {_fail(int(too_large.sum()), 'are')} not",
                field=name,
                **named_rows(too_large, integers),
            )
    return np.ascontiguousarray(integers, np.int64)


def _labels(labels: npt.NDArray[Any], logits: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return labels flat, for logits of a shape."""
    if labels.shape == logits:
        raise TensorError(
            f"labels have the logits' shape {list(logits)}, and are one class for each row;"
            " give one-hot or soft labels as target_probabilities",
            field="labels",
        )
    return _integers("labels", labels, logits[:-1]).reshape(-1)


def _reals(name: str, reals: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if dtype_name(reals.dtype) in DTYPES:
        return reals
    if reals.dtype.kind not in "iu":
        raise TensorError(f"{name} must be real numbers, not {reals.dtype}", field=name)
    return reals


def _per_logit(name: str, given: Mapping[str, Any], logits: Floats) -> Floats:
    """Return values in the dtype of computation; those of 16-bit logits' own dtype as they are."""
    computed = computed_dtype(logits.dtype)
    if name not in given:
        return np.empty(0, computed)
    values = _reals(name, given[name])
    _check_shape(name, values.shape, logits.shape)
    same_half = values.dtype == logits.dtype and logits.dtype.itemsize == 2
    # What float32 cannot hold becomes infinite and is refused by row, as any infinity is.
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(values, logits.dtype if same_half else computed)
    return flat.reshape(math.prod(logits.shape[:-1]), logits.shape[-1])


def _vectors(given: Mapping[str, Any], logits: Floats) -> Floats:
    return _per_logit("vectors", given, logits).astype(computed_dtype(logits.dtype), copy=False)


def _top_k(
    given: Mapping[str, Any], leading: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], Floats]:
    names = ("target_indices", "target_log_probabilities")
    if names[0] not in given:
        return _NO_INTEGERS, _NONE
    logs = _reals(names[1], given[names[1]])
    if logs.ndim != len(leading) + 1:
        raise TensorError(
            f"{names[1]} has {logs.ndim} dimensions; the logits ask for {len(leading) + 1},"
            " one value for each entry of a row",
            field=names[1],
        )
    _check_shape(names[1], logs.shape[:-1], leading)
    indices = _integers(names[0], given[names[0]], logs.shape)
    rows = math.prod(leading)
    if rows and not logs.shape[-1]:
        raise TensorError("a top-k target needs at least one entry a row", field=names[0])
    floats = logs.dtype if dtype_name(logs.dtype) in DTYPES else _FLOAT64
    return (
        indices.reshape(rows, logs.shape[-1]),
        np.ascontiguousarray(logs, floats.newbyteorder("=")).reshape(rows, logs.shape[-1]),
    )


def _weights(
    name: str, given: Mapping[str, Any], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    if name not in given:
        return _NONE
    weights = _reals(name, given[name])
    _check_shape(name, weights.shape, shape)
    return np.ascontiguousarray(weights, np.float64).reshape(-1)


def _class_weights(given: Mapping[str, Any], classes: int) -> npt.NDArray[np.float64]:
    weights = _weights("class_weights", given, (classes,))
    if weights.size:
        refuse_bad_weights("class_weights", weights)
    return weights


def _mask(given: Mapping[str, Any], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if "class_mask" not in given:
        return _NO_MASK
    mask = given["class_mask"]
    if mask.dtype != np.bool_:
        raise TensorError(f"class_mask must be booleans, not {mask.dtype}", field="class_mask")
    if mask.shape != shape[-1:]:
        _check_shape("class_mask", mask.shape, shape)
        mask = mask.reshape(math.prod(shape[:-1]), shape[-1])
    return np.ascontiguousarray(mask).view(np.uint8)


def refuse_bad_weights(name: str, weights: npt.NDArray[np.float64]) -> None:
    """Raise WeightError where a weight is negative or not finite."""
    bad = ~((weights >= 0) & (weights < np.inf))
    if bad.any():
        raise WeightError(
            f"{name} must be finite and not negative; {_fail(int(bad.sum()), 'are')} not",
            field=name,
            **named_rows(bad, weights),
        )


def refuse_bad_labels(batch: Batch, ignore_index: int | None) -> None:
    """Raise LabelError where a label of a row that takes part names no class."""
    classes = batch.classes
    bad = (batch.labels < 0) | (batch.labels >= classes)
    if ignore_index is not None:
        bad &= batch.labels != ignore_index
    if batch.row_weights.size:
        bad &= batch.row_weights > 0
    if bad.any():
        ignored = "" if ignore_index is None else f" or be {ignore_index}"
        raise LabelError(
            f"labels must lie in [0, {classes}){ignored}; {_fail(int(bad.sum()), 'do')} not",
            field="labels",
            **named_rows(bad, batch.labels),
        )


def _fail(number: int, verb: str) -> str:
    """Return how many values fail: "1 is", "2 are"; "1 does", "2 do"."""
    return f"{number} {verb if number != 1 else {'are': 'is', 'do': 'does'}[verb]}"


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise TensorError(
            f"the shape of {name} is {list(shape)}; the logits ask for {list(expected)}", field=name
        )


def computed_dtype(logits: np.dtype[Any]) -> np.dtype[Any]:
    """Return what logits of a dtype are computed in."""
    return _FLOAT64 if logits == _FLOAT64 else _FLOAT32


@functools.lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return a dtype's name, whatever its byte order; numpy takes 3 us to make it up."""
    return dtype.newbyteorder("=").name


@functools.lru_cache(maxsize=64)
def tile_sizes(classes: int, tile: int) -> npt.NDArray[np.float64]:
    """Return how many columns each tile of a row has, as float64 [tiles]."""
    firsts = np.arange(0, classes, tile)
    sizes = np.minimum(tile, classes - firsts).astype(np.float64)
    sizes.flags.writeable = False
    return sizes
