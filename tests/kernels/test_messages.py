"""What refusals say: every exception prints and travels, every sentence is true and grammatical."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import softxent
from softxent import (
    EmptyReductionError,
    LabelError,
    NonFiniteError,
    OptionError,
    Options,
    OutputBufferError,
    RowsError,
    SoftxentError,
    TensorError,
    WeightError,
    class_cross_entropy,
    class_partials,
    combine_partials,
    cross_entropy,
    explain,
    hessian_vector_product,
    softmax,
)
from softxent.evaluations import SOFTMAX


def subclasses(cls: type[SoftxentError]) -> Iterator[type[SoftxentError]]:
    """Yield a class and all below it that the library has."""
    if cls.__module__.startswith("softxent."):
        yield cls
    for below in cls.__subclasses__():
        yield from subclasses(below)


CLASSES = sorted(set(subclasses(SoftxentError)), key=lambda cls: cls.__name__)


def made(cls: type[SoftxentError], **rest: Any) -> SoftxentError:
    if issubclass(cls, RowsError):
        rest = {"rows": (3, 5), "values": ("NaN", -1.0), "total": 7, **rest}
    return cls("labels are wrong", field="labels", **rest)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exception_prints_and_travels(cls: type[SoftxentError]) -> None:
    error = made(cls)
    error.__cause__ = ValueError("why")
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own
        assert type(same) is cls
        assert str(same).startswith("labels are wrong")
        assert repr(same) == f"{cls.__name__}('labels are wrong')"
        assert same.details() == error.details()
        assert (same.message, same.field) == ("labels are wrong", "labels")
    if issubclass(cls, RowsError):
        assert str(error) == "labels are wrong; rows 3 (NaN), 5 (-1.0), ..."


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, RowsError)])
@pytest.mark.parametrize("total", ["7", None, 1.5, [], 0])
def test_errors_of_a_strange_service_print_too(cls: type[RowsError], total: Any) -> None:
    assert "rows 3 (NaN), 5 (-1.0)" in str(made(cls, total=total))


def test_every_class_has_a_slug_of_its_own() -> None:
    assert len({cls.slug for cls in CLASSES}) == len(CLASSES)


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
Y = [0, 1, 2, 0]
TOP = {"target_indices": [[0, 1]] * 4, "target_log_probabilities": [[-1.0, -2.0]] * 4}
HALVES = np.full((4, 3), 1 / 3)


def changed(array: Any, *places: tuple[Any, Any]) -> Any:
    """Return a copy with values at some places."""
    copied = np.array(array)
    if any(isinstance(value, float) for _, value in places):
        copied = copied.astype(float)
    for place, value in places:
        copied[place] = value
    return copied


def call(*args: Any, **given: Any) -> Callable[[], object]:
    return lambda: cross_entropy(*args, **given)


def partials(**given: Any) -> Any:
    return class_partials(X[:, :2], Y, first_class=0, classes=3, **given)


REFUSALS: list[tuple[type[SoftxentError], str, str, tuple[int, ...], Callable[[], object]]] = [
    # Each with its class, field, the whole of what it says, the rows, and the call.
    (TensorError, "logits", "the tensor logits is required", (), call(None, Y)),
    (
        TensorError,
        "labels",
        "a target is required: labels, target_probabilities, or target_indices with"
        " target_log_probabilities",
        (),
        call(X),
    ),
    (
        TensorError,
        "labels",
        "labels have the logits' shape [4, 3], and are one class for each row; give one-hot or"
        " soft labels as target_probabilities",
        (),
        call(X, np.eye(3)[Y]),
    ),
    (
        TensorError,
        "labels",
        "the shape of labels is [3]; the logits ask for [4]",
        (),
        call(X, Y[:3]),
    ),
    (
        TensorError,
        "target_indices",
        "the tensor target_indices is required for a top-k target",
        (),
        call(X, target_log_probabilities=[[-1.0]] * 4),
    ),
    (
        LabelError,
        "labels",
        "labels must lie in [0, 3) or be -100; 1 does not",
        (2,),
        call(X, [0, 1, 3, 0]),
    ),
    (
        LabelError,
        "labels",
        "labels must lie in [0, 3); 2 do not",
        (0, 2),
        call(X, [-1, 1, 3, 0], ignore_index=None),
    ),
    (
        LabelError,
        "labels",
        "labels must be below 2^63; 1 is not",
        (1,),
        call(X, np.array([0, 2**63, 0, 0], np.uint64)),
    ),
    (
        WeightError,
        "row_weights",
        "row_weights must be finite and not negative; 1 is not",
        (1,),
        call(X, Y, row_weights=[1, -1, 1, 1]),
    ),
    (
        WeightError,
        "class_weights",
        "class_weights must be finite and not negative; 2 are not",
        (0, 2),
        call(X, Y, class_weights=[math.nan, 1, math.inf]),
    ),
    (
        RowsError,
        "target_probabilities",
        "target_probabilities must be finite and not negative; 1 row at fault",
        (1,),
        call(X, target_probabilities=changed(HALVES, ((1, 2), -0.5))),
    ),
    (
        RowsError,
        "target_probabilities",
        "target_probabilities must be finite and not negative; 2 rows at fault",
        (0, 3),
        call(X, target_probabilities=changed(HALVES, ((0, 2), math.nan), ((3, 0), math.inf))),
    ),
    (
        LabelError,
        "target_indices",
        "target_indices must lie in [0, 3) or be -1; 1 row at fault",
        (2,),
        call(X, **{**TOP, "target_indices": changed(TOP["target_indices"], ((2, 1), 3))}),
    ),
    (
        LabelError,
        "target_indices",
        "target_indices name a class twice in a row; 1 row at fault",
        (2,),
        call(X, **{**TOP, "target_indices": changed(TOP["target_indices"], ((2, 1), 0))}),
    ),
    (
        LabelError,
        "target_indices",
        "target_indices name classes that class_mask leaves out; 4 rows at fault",
        (0, 1, 2, 3),
        call(X, **TOP, class_mask=[True, False, True]),
    ),
    (
        LabelError,
        "labels",
        "labels name classes that class_mask leaves out; 1 row at fault",
        (2,),
        call(X, Y, class_mask=[True, True, False]),
    ),
    (
        RowsError,
        "vectors",
        "vectors must be finite; 1 row at fault",
        (3,),
        lambda: hessian_vector_product(X, changed(X, ((3, 0), math.nan)), Y),
    ),
    (
        NonFiniteError,
        "logits",
        "the loss of 1 row is not finite: a logit of row 1 is NaN; non_finite=propagate returns"
        " such rows",
        (1,),
        call(changed(X, ((1, 0), math.nan)), Y),
    ),
    (
        NonFiniteError,
        "logits",
        "2 rows have no softmax: a logit of row 1 is NaN; non_finite=propagate returns such rows",
        (1, 2),
        lambda: softmax(changed(X, ((1, 0), math.nan), ((2, 0), math.nan))),
    ),
    (
        NonFiniteError,
        "logits",
        "1 row has no softmax: the largest logit of row 1 is Infinity; non_finite=propagate"
        " returns such rows",
        (1,),
        lambda: softmax(changed(X, ((1, 0), math.inf))),
    ),
    (
        EmptyReductionError,
        "reduction",
        "the mean divides by 0: no row is left, or none has weight",
        (),
        call(X, [-100] * 4, reduction="mean", empty="error"),
    ),
    (
        OutputBufferError,
        "loss",
        "out['loss'] overlaps labels; give it memory of its own",
        (),
        lambda: _labels_as_loss(),
    ),
    (
        OutputBufferError,
        "gradient",
        "out['gradient'] overlaps logits; give it memory of its own, or exactly the memory of"
        " logits that are C-contiguous and of its dtype",
        (),
        lambda: _shifted_logits(),
    ),
    (
        OutputBufferError,
        "gradient",
        "out['gradient'] is a list, not a numpy array",
        (),
        call(X, Y, out={"gradient": []}),
    ),
    (
        OptionError,
        "targets",
        f"unknown option 'targets'; known are {', '.join(Options.__dataclass_fields__)};"
        " did you mean labels or target_probabilities?",
        (),
        call(X, targets=Y),
    ),
    (
        OptionError,
        "weight",
        f"unknown option 'weight'; known are {', '.join(Options.__dataclass_fields__)};"
        " did you mean class_weights or row_weights?",
        (),
        call(X, Y, weight=[1, 1, 1]),
    ),
    (
        OptionError,
        "reduktion",
        f"unknown option 'reduktion'; known are {', '.join(Options.__dataclass_fields__)};"
        " did you mean reduction?",
        (),
        call(X, Y, reduktion="mean"),
    ),
    (
        OptionError,
        "outputs",
        f"unknown output 'entropi'; known are {', '.join(softxent.OUTPUTS)}; did you mean entropy?",
        (),
        call(X, Y, outputs="entropi"),
    ),
    (
        OptionError,
        "outputs",
        "outputs names loss more than once",
        (),
        call(X, Y, outputs=("loss", "loss")),
    ),
    (
        OptionError,
        "rank",
        "the output rank needs labels, which are not given",
        (),
        call(X, target_probabilities=HALVES, outputs="rank"),
    ),
    (
        OptionError,
        "reduction",
        "reduction must be one of none, mean, sum, not 'median'",
        (),
        call(X, Y, reduction="median"),
    ),
    (
        OptionError,
        "softcap",
        "softcap must be finite and > 0, not 0.0",
        (),
        call(X, Y, softcap=0),
    ),
    (
        OptionError,
        "scale",
        "scale must be a number that is finite, not 'two'",
        (),
        call(X, Y, scale="two"),
    ),
    (
        OptionError,
        "ignore_index",
        "ignore_index must lie in [-2^63, 2^63), not 9223372036854775808",
        (),
        call(X, Y, ignore_index=2**63),
    ),
    (
        OptionError,
        "num_threads",
        "num_threads must be an integer of at least 1, not 0",
        (),
        call(X, Y, num_threads=0),
    ),
    (
        TensorError,
        "first_class",
        "the block of columns [2, 5) does not lie in the classes [0, 3)",
        (),
        lambda: class_partials(X, Y, first_class=2, classes=3),
    ),
    (
        TensorError,
        "partials",
        "the partials cover the classes [0, 2), not all of [0, 3); combine those of every block",
        (),
        lambda: class_cross_entropy(X[:, :2], Y, partials(), first_class=0),
    ),
    (
        TensorError,
        "partials",
        "the partials were made with other temperature: 1.0, here 2.0",
        (),
        lambda: combine_partials(
            [partials(), class_partials(X[:, 2:], Y, first_class=2, classes=3, temperature=2)]
        ),
    ),
    (LabelError, "label", "label 3 lies outside [0, 3)", (0,), lambda: explain([1, 2, 3], 3)),
    (
        NonFiniteError,
        "logits",
        "logits are not finite in 1 of 3 classes, first in class 1",
        (1,),
        lambda: explain([1, math.nan, 3], 0),
    ),
    (
        TensorError,
        "logits",
        "logits have 257 classes; explain takes 1 to 256",
        (),
        lambda: explain(np.zeros(257), 0),
    ),
]


def _labels_as_loss() -> object:
    memory = np.zeros(4, np.int64)
    return cross_entropy(X.astype(float), memory, out={"loss": memory.view(np.float64)})


def _shifted_logits() -> object:
    memory = np.zeros(13, np.float32)
    return cross_entropy(memory[:12].reshape(4, 3), Y, out={"gradient": memory[1:].reshape(4, 3)})


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case[2][:60])
def test_what_a_refusal_says(
    case: tuple[type[SoftxentError], str, str, tuple[int, ...], Callable[[], object]],
) -> None:
    cls, field, says, rows, refused = case
    with pytest.raises(SoftxentError) as caught:
        refused()
    error = caught.value
    assert type(error) is cls
    assert error.message == says
    assert error.field == field
    if isinstance(error, RowsError):
        assert error.rows == rows
        assert error.total == len(rows) == len(error.values)
    assert str(error).startswith(says)
    # One thing is singular, and no sentence repeats what a client may send without bound.
    assert not re.search(r"\b1 (rows|classes|labels)\b|\b[2-9] (row|class)\b", str(error))


def test_every_class_of_exception_is_among_the_refusals() -> None:
    abstract = {"SoftxentError", "InputError"}
    named = {cls.__name__ for cls, *_ in REFUSALS}
    assert {cls.__name__ for cls in CLASSES} - abstract == named


LONG = "x" * 100_000


@pytest.mark.parametrize("name", ["reduction", "temperature", "ignore_index", "outputs", LONG])
def test_a_long_text_is_not_repeated(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        Options.from_text([(name, LONG)])
    assert len(str(caught.value)) < 600
    assert len(str(caught.value.field)) <= 64


def test_a_name_that_an_evaluation_lacks_is_told_where_it_belongs() -> None:
    with pytest.raises(OptionError, match="labels is a tensor: tensors stand in the body"):
        Options.from_text([("labels", "1")])
    with pytest.raises(OptionError, match="unknown option 'reduction'; known are"):
        Options.from_keywords({"reduction": "mean"}, SOFTMAX)
