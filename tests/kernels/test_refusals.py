"""What is refused, by which error, with which fields; and that nothing was written by then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from softxent import (
    InputError,
    LabelError,
    OptionError,
    OutputBufferError,
    SoftxentError,
    TensorError,
    WeightError,
    cross_entropy,
)

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
Y = np.array([0, 1, 2, 0])


def refused(error: type[SoftxentError], field: str, *args: Any, **options: Any) -> SoftxentError:
    """Evaluate in place; expect the error and the logits as they were."""
    logits, *rest = args
    if isinstance(logits, np.ndarray) and logits.dtype.kind == "f" and "out" not in options:
        outputs = options.get("outputs", "gradient")
        if outputs == "gradient":
            options = {**options, "out": {"gradient": logits}}
    before = logits.tobytes() if isinstance(logits, np.ndarray) else b""
    with pytest.raises(error) as caught:
        cross_entropy(logits, *rest, **options)
    assert type(caught.value) is error
    assert caught.value.field == field
    assert caught.value.details()["field"] == field
    assert isinstance(caught.value, ValueError)
    if isinstance(logits, np.ndarray):
        assert logits.tobytes() == before
    return caught.value


@pytest.mark.parametrize(
    ("logits", "labels", "field"),
    [
        (np.full((4, 3), 2**53 + 1), Y, "logits"),
        (X.astype(np.longdouble), Y, "logits"),
        (X.astype(np.complex64), Y, "logits"),
        (np.full((4, 3), 2**64 - 1, np.uint64), Y, "logits"),
        (X > 0, Y, "logits"),
        (X.astype(object), Y, "logits"),
        (X.astype(str), Y, "logits"),
        ([["1", "2"]], [0], "logits"),
        ([[1.0, None]], [0], "logits"),
        ([[1.0, 2.0], [3.0]], [0, 0], "logits"),
        (X[0], 0, "logits"),
        (np.float32(1), 0, "logits"),
        (None, Y, "logits"),
        (np.zeros((4, 0), np.float32), Y, "logits"),
        (X, Y.astype(np.float64), "labels"),
        (X, Y.astype(str), "labels"),
        (X, Y.astype(object), "labels"),
        (X, None, "labels"),
        (X, Y[:3], "labels"),
        (X, Y[:, None], "labels"),
        (X, [[0], [1, 2]], "labels"),
        (X, 0, "labels"),
        (X.reshape(2, 2, 3), Y, "labels"),
    ],
    ids=repr,
)
def test_tensors(logits: Any, labels: Any, field: str) -> None:
    refused(TensorError, field, logits, labels, outputs="loss")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_weights", np.ones(4)),
        ("class_weights", np.ones((1, 3))),
        ("class_weights", ["a", "b", "c"]),
        ("class_weights", [1, 2, None]),
        ("class_weights", np.ones(3, complex)),
        ("class_weights", 1.0),
        ("row_weights", np.ones(3)),
        ("row_weights", np.ones((4, 1))),
        ("row_weights", [[1], [1, 2]]),
        ("row_weights", Y > 0),
    ],
    ids=repr,
)
def test_weight_tensors(name: str, value: Any) -> None:
    refused(TensorError, name, X.copy(), Y, **{name: value})


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("threads", [1, None])
def test_labels_out_of_range_name_ten_rows_and_the_total(classes: int, threads: Any) -> None:
    logits = np.zeros((2000, classes), np.float32)
    labels = np.zeros(2000, np.int64)
    bad = np.arange(100, 115)
    labels[bad] = np.where(bad % 2 == 0, classes, -1)
    error = refused(LabelError, "labels", logits, labels, num_threads=threads)
    assert isinstance(error, LabelError)
    assert error.rows == tuple(range(100, 110))
    assert error.values == (classes, -1) * 5
    assert error.total == 15
    assert "15" in str(error)


def test_default_ignore_index_is_a_bad_label_once_it_is_changed() -> None:
    error = refused(LabelError, "labels", X.copy(), [0, -100, 1, 2], ignore_index=-1)
    assert isinstance(error, LabelError)
    assert (error.rows, error.values, error.total) == ((1,), (-100,), 1)
    refused(LabelError, "labels", X.copy(), [0, -100, 1, 2], ignore_index=None)


@pytest.mark.parametrize("ignore_index", [-100, None])
def test_unsigned_labels_beyond_int64(ignore_index: Any) -> None:
    labels = np.array([0, 2**63, 1, 2**64 - 100], np.uint64)
    error = refused(LabelError, "labels", X.copy(), labels, ignore_index=ignore_index)
    assert isinstance(error, LabelError)
    assert (error.rows, error.values, error.total) == ((1, 3), (2**63, 2**64 - 100), 2)


def test_row_number_is_flat_over_the_leading_dimensions() -> None:
    error = refused(LabelError, "labels", X.reshape(2, 2, 3).copy(), [[0, 1], [3, 0]])
    assert isinstance(error, LabelError)
    assert error.rows == (2,)


@pytest.mark.parametrize(
    ("value", "word"),
    [(-1.0, -1.0), (np.nan, "NaN"), (np.inf, "Infinity"), (-5e-324, -5e-324)],
)
@pytest.mark.parametrize("name", ["class_weights", "row_weights"])
def test_bad_weights(name: str, value: float, word: float | str) -> None:
    weights = np.ones(3 if name == "class_weights" else 4)
    weights[2] = value
    error = refused(WeightError, name, X.copy(), Y, **{name: weights})
    assert isinstance(error, WeightError)
    assert (error.rows, error.values, error.total) == ((2,), (word,), 1)


def test_bad_weight_of_an_ignored_row_is_refused() -> None:
    refused(WeightError, "row_weights", X.copy(), [0, -100, 1, 2], row_weights=[1, -1, 1, 1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outputs", ()),
        ("outputs", "perplexity"),
        ("outputs", "hessian_vector_product"),
        ("outputs", ("gradient", "gradient")),
        ("reduction", "median"),
        ("ignore_index", 0.5),
        ("label_smoothing", 1.5),
        ("label_smoothing", -0.1),
        ("label_smoothing", float("nan")),
        ("denominator", 2.0),
        ("scale", float("inf")),
        ("non_finite", "ignore"),
        ("empty", None),
        ("num_threads", 0),
        ("num_threads", True),
        ("num_threads", 1.0),
        ("heat", 1.0),
    ],
)
def test_options(field: str, value: Any) -> None:
    error = refused(OptionError, field, X.copy(), Y, **{field: value})
    assert isinstance(error, InputError)


@pytest.mark.parametrize(
    "buffer",
    [
        np.empty((4, 3)),
        np.empty((4, 3), ">f4"),
        np.empty((4, 4), np.float32),
        np.empty(12, np.float32),
        np.empty((3, 4), np.float32).T,
        np.empty((4, 6), np.float32)[:, ::2],
        np.empty((4, 3), np.int32),
        np.broadcast_to(np.float32(0), (4, 3)),
        [[0.0] * 3] * 4,
        memoryview(bytearray(48)),
        None,
    ],
    ids=lambda b: type(b).__name__,
)
@pytest.mark.parametrize("name", ["gradient", "probabilities"])
def test_output_buffers_that_do_not_fit(name: str, buffer: Any) -> None:
    refused(OutputBufferError, name, X.copy(), Y, outputs=name, out={name: buffer})


def test_read_only_output_buffer() -> None:
    buffer = np.empty((4, 3), np.float32)
    buffer.flags.writeable = False
    refused(OutputBufferError, "gradient", X.copy(), Y, out={"gradient": buffer})
    logits = X.copy()
    logits.flags.writeable = False
    refused(OutputBufferError, "gradient", logits, Y, out={"gradient": logits})


def test_outputs_that_have_no_buffer() -> None:
    buffer = np.empty((4, 3), np.float32)
    row = np.empty(4, np.float32)
    for name, options in [
        ("probabilities", {}),
        ("entropy", {}),
        ("loss", {"reduction": "mean"}),
        ("loss", {"outputs": "gradient"}),
    ]:
        out = {name: row if name == "loss" else buffer}
        refused(OutputBufferError, name, X.copy(), Y, out=out, **options)


def test_overlapping_output_buffers() -> None:
    """Only the whole logits may be replaced; anything else that overlaps is refused."""
    memory = np.arange(40, dtype=np.float32)
    logits = memory[:12].reshape(4, 3)
    shifted = memory[1:13].reshape(4, 3)
    refused(OutputBufferError, "gradient", logits, Y, out={"gradient": shifted})
    refused(OutputBufferError, "loss", logits, Y, out={"loss": memory[:4]})
    both: dict[str, Any] = {"gradient": logits, "probabilities": logits}
    refused(OutputBufferError, "probabilities", logits, Y, outputs=tuple(both), out=both)
    crossing = {"loss": memory[22:26], "gradient": memory[14:26].reshape(4, 3)}
    refused(OutputBufferError, "gradient", logits, Y, out=crossing)
    assert memory.tolist() == list(range(40))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("labels", np.int64),
        ("labels", np.int32),
        ("labels", np.uint8),
        ("row_weights", np.float64),
        ("row_weights", np.float32),
    ],
)
def test_output_buffer_over_labels_or_weights(name: str, dtype: Any) -> None:
    """Also where they are converted: the caller's array would be overwritten all the same."""
    logits, memory = X.astype(np.float64), np.ones(12)
    tensors: dict[str, Any] = {"labels": Y, name: memory.view(dtype)[4:8]}
    tensors[name][:] = 1
    before = memory.tobytes()
    with pytest.raises(OutputBufferError) as caught:
        cross_entropy(logits, **tensors, out={"gradient": memory.reshape(4, 3)})
    assert caught.value.field == "gradient"
    assert memory.tobytes() == before


def test_output_buffer_over_logits_that_are_copied() -> None:
    memory = np.arange(12, dtype=np.float32)
    backwards = memory[::-1].reshape(4, 3)
    with pytest.raises(OutputBufferError) as caught:
        cross_entropy(backwards, Y, out={"gradient": memory.reshape(4, 3)})
    assert caught.value.field == "gradient"
    assert memory.tolist() == list(range(12))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_integer_logits_are_taken_as_float64(dtype: str) -> None:
    logits = np.array([[1, 2, 3], [100, 0, 7]], dtype)
    found, wanted = (cross_entropy(x, [0, 1]) for x in (logits, logits.astype(np.float64)))
    assert found.gradient is not None
    assert found.gradient.tobytes() == wanted.gradient.tobytes()  # type: ignore[union-attr]
    assert found.loss_sum == wanted.loss_sum


@pytest.mark.parametrize("name", ["logits", "labels", "row_weights", "class_weights"])
def test_values_that_a_mask_hides_are_refused(name: str) -> None:
    """They would be evaluated like the rest; arrays that hide none are taken as they are."""
    call: dict[str, Any] = {
        "logits": X,
        "labels": Y,
        "row_weights": np.ones(4),
        "class_weights": np.ones(3),
    }
    plain: Any = cross_entropy(**call).loss
    masked = np.ma.array(call[name], mask=False)
    loss: Any = cross_entropy(**{**call, name: masked}).loss
    assert np.array_equal(loss, plain)
    masked[1] = np.ma.masked
    hidden = 3 if name == "logits" else 1
    with pytest.raises(TensorError, match=f"{name} are a masked array, {hidden} of") as caught:
        cross_entropy(**{**call, name: masked})
    assert caught.value.field == name
