"""Options that stand among the tensors of a body are told where they belong."""

from __future__ import annotations

import json

import pytest
from wire_support import read

from softxent.errors import TensorError

WRITTEN = {
    "reduction": ("mean", "?reduction=mean"),
    "label_smoothing": (0.1, "?label_smoothing=0.1"),
    "ignore_index": (None, "?ignore_index=none"),
    "outputs": (["loss", "gradient"], "?outputs=loss,gradient"),
    "logits_dtype": ("float64", "?logits_dtype=float64"),
    "non_finite": ("propagate & more", "?non_finite=propagate%20%26%20more"),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("rows", [1, 70_000])
def test_an_option_in_the_body_is_told_to_be_a_query_parameter(name: str, rows: int) -> None:
    value, written = WRITTEN[name]
    body = json.dumps({"logits": [[1, 2]] * rows, name: value, "labels": [0] * rows})
    with pytest.raises(TensorError, match="options are query parameters") as refused:
        read(body)
    assert refused.value.field == name
    assert (name == "outputs" and rows > 1) or f"write {written} behind" in str(refused.value)
