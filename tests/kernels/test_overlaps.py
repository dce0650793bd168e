"""Output buffers that share memory with an input, whatever the input is given as."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from softxent import OutputBufferError, TensorError, cross_entropy, hessian_vector_product, softmax

Array = np.ndarray[Any, np.dtype[Any]]


class HasArray:
    """What tensors of other libraries are: an object that shows its memory as an array."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.array


class HasInterface:
    """An object with NumPy's array interface alone."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


GIVEN_AS: dict[str, Callable[[Array], Any]] = {
    "ndarray": lambda a: a,
    "memoryview": lambda a: a.data,
    "array": HasArray,
    "interface": HasInterface,
    "dlpack": np.from_dlpack,
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
    "memmap": lambda a: a.view(np.memmap),
}


@pytest.mark.parametrize("given_as", GIVEN_AS)
@pytest.mark.parametrize(
    "name",
    ["logits", "labels", "target_probabilities", "class_weights", "row_weights", "class_mask"],
)
def test_an_output_over_any_input_is_refused(name: str, given_as: str) -> None:
    memory = np.zeros(400)
    buffer = memory[:12].reshape(4, 3)
    tensors: dict[str, Any] = {"logits": np.ones((4, 3)), "labels": np.zeros(4, np.int64)}
    inputs: dict[str, Array] = {
        "logits": memory[3:15].reshape(4, 3),
        "labels": memory[2:6].view(np.int64),
        "target_probabilities": memory[3:15].reshape(4, 3),
        "class_weights": memory[8:11],
        "row_weights": memory[8:12],
        "class_mask": memory[0:2].view(np.bool_)[:12].reshape(4, 3),
    }
    if name == "target_probabilities":
        del tensors["labels"]
    tensors[name] = GIVEN_AS[given_as](inputs[name])
    before = memory.tobytes()
    with pytest.raises(OutputBufferError, match=rf"out\['gradient'\] overlaps {name}") as caught:
        cross_entropy(**tensors, out={"gradient": buffer})
    assert caught.value.field == "gradient"
    assert memory.tobytes() == before


@pytest.mark.parametrize("given_as", GIVEN_AS)
def test_an_output_over_vectors_is_refused(given_as: str) -> None:
    memory = np.zeros(24)
    vectors = GIVEN_AS[given_as](memory[6:18].reshape(4, 3))
    with pytest.raises(OutputBufferError, match="overlaps vectors"):
        hessian_vector_product(
            np.ones((4, 3)), vectors, [0, 1, 2, 0], out=memory[:12].reshape(4, 3)
        )


@pytest.mark.parametrize("memory", [bytearray(48), mmap.mmap(-1, 48)], ids=["bytearray", "mmap"])
def test_labels_in_raw_bytes_are_seen(memory: Any) -> None:
    loss = np.frombuffer(memory, np.float32)[:4]
    labels = memoryview(memory)[8:12].cast("b")
    with pytest.raises(OutputBufferError, match="overlaps labels"):
        cross_entropy(np.ones((4, 3), np.float32), labels, out={"loss": loss})


@pytest.mark.parametrize("given_as", ["memoryview", "array", "interface"])
@pytest.mark.parametrize("view", ["reversed", "transposed", "wider"])
def test_views_that_are_copied_are_seen(view: str, given_as: str) -> None:
    memory = np.arange(16.0)
    views = {
        "reversed": memory.reshape(4, 4)[::-1, ::-1],
        "transposed": memory.reshape(4, 4).T,
        "wider": memory.astype(">f8").reshape(4, 4),
    }
    given = views[view]
    buffer = memory.reshape(4, 4) if view != "wider" else given.view(np.float64)
    with pytest.raises(OutputBufferError, match="overlaps logits"):
        softmax(GIVEN_AS[given_as](given), out=buffer)


@pytest.mark.parametrize("given_as", GIVEN_AS)
def test_exactly_the_logits_are_replaced(given_as: str) -> None:
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    wanted = cross_entropy(x, [0, 1, 2, 0]).gradient
    result = cross_entropy(GIVEN_AS[given_as](x), [0, 1, 2, 0], out={"gradient": x})
    assert result.gradient is x
    assert x.tobytes() == wanted.tobytes()  # type: ignore[union-attr]


def test_what_numpy_cannot_read_is_refused_by_name() -> None:
    class NoArray:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            raise TypeError("bfloat16 has no array")

    said = "logits, a NoArray, cannot be read as an array: bfloat16 has no array"
    with pytest.raises(TensorError, match=said) as caught:
        cross_entropy(NoArray(), [0])
    assert caught.value.field == "logits"
