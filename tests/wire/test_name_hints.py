"""Names in a body that mean something else: an option, another library's word, a typo."""

from __future__ import annotations

import pytest

from softxent.errors import TensorError
from softxent_client.wire import JSON, MEDIA_TYPES, Limits
from softxent_client.wire.schema import REQUEST

HINTS = {
    "targets": "did you mean labels or target_probabilities?",
    "target": "did you mean labels or target_probabilities?",
    "weight": "did you mean class_weights or row_weights?",
    "weights": "did you mean class_weights or row_weights?",
    "sample_weight": "did you mean row_weights?",
    "label": "did you mean labels?",
    "lables": "did you mean labels?",
    "mask": "did you mean class_mask?",
    "reduction": "write ?reduction=1 behind the path",
    "label_smoothing": "write ?label_smoothing=1 behind the path",
    "logits_dtype": "write ?logits_dtype=1 behind the path",
}


def read(body: bytes) -> None:
    MEDIA_TYPES[JSON].decode(body, REQUEST(), Limits())


@pytest.mark.parametrize("name", HINTS)
def test_a_body_that_holds_it_is_answered_with_what_was_meant(name: str) -> None:
    with pytest.raises(TensorError) as caught:
        read(f'{{"logits":[[1,2]],"labels":[0],"{name}":[1]}}'.encode())
    assert caught.value.field == name
    assert HINTS[name] in str(caught.value)


def test_a_name_like_no_other_has_no_hint() -> None:
    with pytest.raises(TensorError) as caught:
        read(b'{"logits":[[1,2]],"labels":[0],"temperatures_of_oceans":[1]}')
    assert str(caught.value).endswith("class_mask")


def test_one_hot_labels_are_told_apart() -> None:
    with pytest.raises(TensorError, match="one-hot or soft labels are target_probabilities"):
        read(b'{"logits":[[1,2],[3,4]],"labels":[[0,1],[1,0]]}')


def test_a_long_name_is_compared_and_repeated_in_part() -> None:
    name = "labels" * 20_000
    with pytest.raises(TensorError) as caught:
        read(f'{{"logits":[[1,2]],"labels":[0],"{name}":[1]}}'.encode())
    assert len(str(caught.value)) < 400
