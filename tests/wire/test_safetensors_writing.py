"""What is written in the binary form; the safetensors library reads it, and is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from wire_support import LIMITS, Array

from softxent.errors import TensorError
from softxent_client.wire import (
    REQUEST,
    RESPONSE,
    result_tensors,
    results_of,
)
from softxent_client.wire.safetensors_form import decode, encode


def test_data_begins_at_a_multiple_of_64_with_the_largest_array() -> None:
    logits, labels = np.ones((4, 3), np.float32), np.arange(4)
    header, first, _ = encode({"labels": labels, "logits": logits})
    assert header.nbytes % 64 == 0
    assert bytes(first) == logits.tobytes()


def test_every_array_stands_at_a_multiple_of_its_item_size() -> None:
    sent = b"".join(encode({"logits": np.ones((3, 3), np.float32), "labels": np.arange(3)}))
    tensors = decode(np.frombuffer(sent, np.uint8).copy().data, REQUEST(), LIMITS)
    assert all(tensor.flags.aligned for tensor in tensors.values())


def test_encoding_copies_no_array() -> None:
    logits = np.ones((4, 3), np.float32)
    _, first, _ = encode({"logits": logits, "labels": np.arange(4)})
    assert np.shares_memory(np.asarray(first), logits)


def test_strided_and_big_endian_arrays_are_sent_as_their_values() -> None:
    logits = np.arange(12, dtype=">f4").reshape(3, 4).T
    sent = b"".join(encode({"logits": logits, "labels": np.arange(4)}))
    assert np.array_equal(decode(sent, REQUEST(), LIMITS)["logits"], logits)


def test_a_dtype_the_form_lacks_is_refused() -> None:
    with pytest.raises(TensorError, match="logits has dtype complex128"):
        encode({"logits": np.ones(2, complex)})


DTYPES: Any = st.sampled_from([np.dtype("f4"), np.dtype("f8")])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)


@given(hnp.arrays(DTYPES, SHAPES), hnp.integer_dtypes(endianness="<"), st.data())
def test_round_trip_and_the_safetensors_library(
    logits: Array, label_dtype: Any, data: st.DataObject
) -> None:
    labels = data.draw(hnp.arrays(label_dtype, logits.shape[:-1]))
    sent = {"logits": logits, "labels": labels}
    ours = b"".join(encode(sent))
    theirs = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in sent.items()})
    for received in (
        decode(ours, REQUEST(), LIMITS),
        decode(theirs, REQUEST(), LIMITS),
        safetensors.numpy.load(ours),
    ):
        for name, tensor in sent.items():
            assert received[name].dtype == tensor.dtype
            assert received[name].shape == tensor.shape
            assert received[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize("reduced", [False, True])
def test_results_survive_the_wire_and_the_safetensors_library(reduced: bool) -> None:
    loss: Any = 0.1 if reduced else np.array([0.5, np.nan], np.float32)
    gradient = np.array([[1, 2], [3, 4]], np.float32)
    correct = np.array([True, False])
    results = {"loss": loss, "gradient": gradient, "correct": correct}
    results |= {"loss_sum": 0.1, "weight_sum": 2.0, "count": 2}
    sent = b"".join(encode(result_tensors(results)))
    assert safetensors.numpy.load(sent)["count"].shape == ()
    back = results_of(decode(sent, RESPONSE(), LIMITS))
    assert back.keys() == results.keys()
    for name, value in results.items():
        assert type(back[name]) is type(value)
        assert np.array_equal(back[name], value, equal_nan=name == "loss")
