"""Documents read block by block: what reading them whole gives, and the same errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_support import Array

from softxent.errors import SoftxentError
from softxent_client.wire import REQUEST, Limits, json_blocks, json_form

relaxed = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])

WHOLE_LIMITS = Limits()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks so small that every document has several; no value is longer than one."""
    monkeypatch.setattr(json_blocks, "BLOCK_BYTES", 32)


def nothing(_size: int) -> None:
    """Reserve nothing."""


def in_blocks(text: bytes) -> dict[str, Array]:
    return json_blocks.read(text, REQUEST(), WHOLE_LIMITS, nothing)


def outcome(read: Callable[[], dict[str, Array]]) -> Any:
    """Return what reading gives, or its error, in a form that can be compared."""
    try:
        tensors = read()
    except SoftxentError as error:
        return type(error), error.message, error.details()
    return {name: (t.dtype, t.shape, t.tobytes()) for name, t in tensors.items()}


def assert_the_same(text: bytes, *, alike: bool = False) -> None:
    """Compare with reading the whole document; of `alike` errors the reasons may be others."""
    whole = outcome(lambda: json_form._read_whole(text, REQUEST(), WHOLE_LIMITS, nothing))
    # A view, as the service has it.
    for body in (text, memoryview(bytearray(text))):
        found = outcome(partial(json_blocks.read, body, REQUEST(), WHOLE_LIMITS, nothing))
        assert found == whole or (alike and isinstance(whole, tuple) and isinstance(found, tuple))


def document(rows: int, classes: int, space: str = "", **more: Any) -> bytes:
    logits = np.random.default_rng(rows).normal(size=(rows, classes)).astype(np.float32)
    members = {"logits": logits.tolist(), "labels": [0] * rows, **more}
    return json.dumps(members, separators=(f"{space},{space}", f"{space}:{space}")).encode()


@pytest.mark.parametrize("space", ["", " ", "\n\t "])
@pytest.mark.parametrize("shape", [(2, 2), (2, 1), (30, 3), (3, 30), (1, 50)])
@pytest.mark.usefixtures("small_blocks")
def test_plain_documents_are_read_in_blocks(shape: tuple[int, int], space: str) -> None:
    assert_the_same(document(*shape, space))


@pytest.mark.usefixtures("small_blocks")
def test_every_nested_array_is_cut_and_words_are_read() -> None:
    logits = [[1.5, "NaN", 3], ["-Infinity", 2, 1], [0, 0, 1e30], [1, 2, 3]]
    soft = [[0.25, 0.25, 0.5]] * 4
    for order in (("logits", "target_probabilities"), ("target_probabilities", "logits")):
        members = {"logits": logits, "target_probabilities": soft}
        text = json.dumps({name: members[name] for name in order}).encode()
        tensors = in_blocks(text)
        assert np.array_equal(tensors["logits"], np.array(logits, np.float32), equal_nan=True)
        assert np.array_equal(tensors["target_probabilities"], np.array(soft, np.float32))


@pytest.mark.usefixtures("small_blocks")
def test_more_dimensions() -> None:
    logits = np.arange(4 * 5 * 3).reshape(4, 5, 3)
    text = json.dumps({"logits": logits.tolist(), "labels": [[0] * 5] * 4}).encode()
    tensors = in_blocks(text)
    assert np.array_equal(tensors["logits"], logits)
    assert tensors["labels"].shape == (4, 5)


FAULTY = [
    '{"logits":[[1,2],[3],[4,5]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6],[7,8,9]],"labels":[0,0,0,0]}',
    '{"logits":[[1,2],[3,4],,[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6],],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4] [5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0],}',
    '{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]} x',
    '{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]',
    '{"logits":[[1,2],[3,4],[5,6]] "labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"logits":7,"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,[4]],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,{}],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,"],["],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,"]]"],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,1e999],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,1e39],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,NaN],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,true],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],\f[3,4],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],\v"labels":[0,0,0]}',
    '{"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"classes":[0,0,0]}',
    '{"logits":[[],[],[],[],[],[],[]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"labels":["]",0,0]}',
    '{"logits":[[1,2],[3,4],[5,6]],"labels":{"a":[1]}}',
    '[{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]}]',
    '{"a":{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]}}',
    '\ufeff{"logits":[[1,2],[3,4],[5,6]],"labels":[0,0,0]}',
    '{"logits":[[[1],[2]],[[3]],[[4],[5]]],"labels":[[0,0],[0,0],[0,0]]}',
    '{"logits":[[[1,2],[3,4]],[[5,6],[7]],[[8,9],[1]]],"labels":[[0,0],[0,0],[0,0]]}',
    '{"logits":[[1,2],3,[4,5],6,[7,8]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3],4,[5,6],[7,8],[9,1]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[],[],[3,4],[5,6],[7,8]],"labels":[0,0,0]}',
    '{"logits":[[],[],[1],[],[],[],[],[],[],[]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,null],[null,null],[1e39,true]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,1e39],[-1e39,1e40],[5,1e39]],"labels":[0,0,0]}',
    '{"logits":[[1,2],[3,4]],"labels":[0,0.5,1,1.5,true,null,"a",7,8,9,10,11,12,13,1.0,1.0,1.0]}',
    '{"logits":[[1,2],[3,4]],"labels":[0,[1],1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}',
    '{"logits":[[1,2],[3,4]],"class_mask":[true,false,1,0,null,true,true,true,true,true,true]}',
]
"""Bodies with faults that reading in blocks names as reading whole does, wherever they are cut."""


@pytest.mark.parametrize("text", FAULTY)
@pytest.mark.usefixtures("small_blocks")
def test_what_is_wrong_is_refused(text: str) -> None:
    assert_the_same(text.encode(), alike=True)


@pytest.fixture
def plain_text() -> bytes:
    return document(6, 3, class_weights=[1, 2, 3], row_weights=[1] * 6)


@relaxed
@given(at=st.integers(0, 500), patch=st.text('[]{},:"1ae. \n', max_size=4), cut=st.integers(0, 9))
@pytest.mark.usefixtures("small_blocks")
def test_any_damage_gives_what_the_other_reader_gives(
    plain_text: bytes, at: int, patch: str, cut: int
) -> None:
    at %= len(plain_text)
    assert_the_same(plain_text[:at] + patch.encode() + plain_text[at + cut :], alike=True)


def test_what_is_reserved_in_the_end_is_what_the_arrays_take() -> None:
    held = highest = 0

    def reserve(size: int) -> None:
        nonlocal held, highest
        held += size
        highest = max(highest, held)

    text = document(300, 1_000)
    tensors = json_form.decode(text, REQUEST(), WHOLE_LIMITS, reserve)
    arrays = sum(tensor.nbytes for tensor in tensors.values())
    assert held == arrays
    assert highest < arrays + 2 * 16 * json_blocks.BLOCK_BYTES


def test_an_error_of_reserving_is_not_taken_for_one_of_the_document() -> None:
    class FullError(SoftxentError):
        pass

    def full(size: int) -> None:
        if size > 0:
            raise FullError("no memory")

    with pytest.raises(FullError):
        json_form.decode(document(300, 1_000), REQUEST(), WHOLE_LIMITS, full)
