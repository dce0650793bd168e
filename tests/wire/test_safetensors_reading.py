"""What is read from the binary form: literal bodies and the views they become."""

from __future__ import annotations

import numpy as np
import pytest
from wire_support import LABELS, LIMITS, LOGITS, body, request

from softxent_client.wire import (
    REQUEST,
)
from softxent_client.wire.safetensors_form import decode


def test_a_literal_body_is_read() -> None:
    data = np.array([1.5, -2], "<f4").tobytes() + np.array([1], "<i8").tobytes()
    tensors = request(data=data)
    assert tensors["logits"].tolist() == [[1.5, -2.0]]
    assert tensors["logits"].dtype == np.float32
    assert tensors["labels"].tolist() == [1]


def test_names_stand_in_any_order() -> None:
    tensors = decode(body(f"{{{LABELS},{LOGITS}}}"), REQUEST(), LIMITS)
    assert set(tensors) == {"logits", "labels"}


def test_metadata_of_strings_is_accepted() -> None:
    metadata = '"__metadata__":{"made_by":"someone"}'
    assert set(decode(body(f"{{{metadata},{LOGITS},{LABELS}}}"), REQUEST(), LIMITS)) == {
        "logits",
        "labels",
    }


def test_arrays_are_views_and_as_writable_as_the_buffer() -> None:
    sent = body(f"{{{LOGITS},{LABELS}}}")
    buffer = bytearray(sent)
    tensors = decode(buffer, REQUEST(), LIMITS)
    tensors["logits"][0, 0] = 7
    assert np.frombuffer(buffer[-16:-12], "<f4")[0] == 7
    assert not decode(sent, REQUEST(), LIMITS)["logits"].flags.writeable


@pytest.mark.parametrize(("name", "one"), [("F16", b"\0\x3c"), ("BF16", b"\x80\x3f")])
def test_half_precision(name: str, one: bytes) -> None:
    logits = f'"logits":{{"dtype":"{name}","shape":[1,2],"data_offsets":[0,4]}}'
    labels = '"labels":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}'
    tensors = request(logits, labels, one + bytes(10))
    assert tensors["logits"].dtype.name == {"F16": "float16", "BF16": "bfloat16"}[name]
    assert tensors["logits"].astype(np.float32).tolist() == [[1, 0]]
