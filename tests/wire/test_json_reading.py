"""What is read from JSON: literal bodies, and the dtypes and shapes they become."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from wire_support import LIMITS, batch, read

from softxent.errors import RowsError
from softxent_client.wire import (
    REQUEST,
    RESPONSE,
    Limits,
)
from softxent_client.wire.json_form import decode


def test_a_literal_body_is_read() -> None:
    tensors = read('{"labels": [1], "logits": [[1.5, -2e0]], "class_weights": [1, 0.1]}')
    assert tensors["logits"].tolist() == [[1.5, -2.0]]
    assert tensors["logits"].dtype == np.float32
    assert tensors["labels"].tolist() == [1]
    assert tensors["labels"].dtype == np.int64
    assert tensors["class_weights"].tolist() == [1, 0.1]
    assert tensors["class_weights"].dtype == np.float64


def test_logits_take_the_dtype_asked_for() -> None:
    assert read(batch("[[0.1]]", "[0]"), "float64")["logits"][0, 0] == 0.1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_targets_take_the_dtypes_of_the_computation(dtype: str) -> None:
    tensors = read(
        '{"logits":[[1,2]],"target_probabilities":[[0.1,0.9]],"target_indices":[[1]],'
        '"target_log_probabilities":[[-0.1]]}',
        dtype,
    )
    computed = np.float64 if dtype == "float64" else np.float32
    assert tensors["target_probabilities"].dtype == computed
    assert tensors["target_probabilities"].tolist() == [[computed(0.1), computed(0.9)]]
    assert tensors["target_indices"].dtype == np.int64
    assert tensors["target_log_probabilities"].dtype == np.float64
    assert tensors["target_log_probabilities"].tolist() == [[-0.1]]


@pytest.mark.parametrize("mask", ["[true,false]", "[[true,true],[false,true]]"])
def test_masks_are_booleans(mask: str) -> None:
    tensors = read(f'{{"logits":[[1,2],[3,4]],"class_mask":{mask}}}')
    assert tensors["class_mask"].dtype == np.bool_
    assert tensors["class_mask"].tolist() == json.loads(mask)


def test_targets_of_no_rows_have_the_shape_of_the_logits() -> None:
    names = ("logits", "target_probabilities", "target_indices", "target_log_probabilities")
    tensors = read(json.dumps({name: [] for name in names}))
    assert all(tensors[name].shape == (0, 0) for name in names)


def test_bytearrays_and_memoryviews_are_read() -> None:
    body = batch("[[1]]", "[0]").encode()
    for buffer in (bytearray(body), memoryview(body)):
        assert decode(buffer, REQUEST(), LIMITS)["logits"].tolist() == [[1.0]]


def test_batches_of_sequences_are_read() -> None:
    tensors = read(batch("[[[1,2],[3,4],[5,6]]]", "[[0,1,0]]"))
    assert (tensors["logits"].shape, tensors["labels"].shape) == ((1, 3, 2), (1, 3))


@pytest.mark.parametrize(
    ("logits", "labels", "shape"),
    [("[]", "[]", (0, 0)), ("[[],[]]", "[[],[]]", (2, 0, 0)), ("[[],[]]", "[0,0]", (2, 0))],
)
def test_rows_of_nothing_have_a_shape(logits: str, labels: str, shape: tuple[int, ...]) -> None:
    assert read(batch(logits, labels))["logits"].shape == shape


def test_words_are_numbers_that_json_lacks() -> None:
    logits = read(batch('[["NaN","Infinity"],["-Infinity",1]]', "[0,0]"))["logits"]
    assert np.array_equal(logits, [[math.nan, math.inf], [-math.inf, 1]], equal_nan=True)


def test_integers_beyond_64_bits_are_numbers_as_javascript_writes_them() -> None:
    logits = read(batch("[[100000000000000000000,-1,18446744073709551615]]", "[0]"))["logits"]
    assert logits.tolist() == np.array([[1e20, -1, 2**64]], np.float32).tolist()


def test_arrays_longer_than_the_parser_counts() -> None:
    count = 0xFFFFFF + 2
    body = b'{"logits":[[' + b"0," * (count - 1) + b'1]],"labels":[0]}'
    limits = Limits(json_bytes=1 << 26)
    assert read(body, limits=limits)["logits"].shape == (1, count)
    with pytest.raises(RowsError, match="ragged"):
        read(body.replace(b"1]]", b"1],[1]]"), limits=limits)


def test_answers_are_read_with_scalars_in_double_precision() -> None:
    body = b'{"loss":0.1,"gradient":[[0.1]],"loss_sum":"NaN","weight_sum":1,"count":2}'
    tensors = decode(body, RESPONSE("float32"), LIMITS)
    assert tensors["loss"].shape == ()
    assert tensors["loss"].dtype == np.float64
    assert tensors["gradient"].dtype == np.float32
    assert math.isnan(float(tensors["loss_sum"]))
    assert tensors["count"].shape == ()
    assert tensors["count"].dtype == np.int64
