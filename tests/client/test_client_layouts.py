"""Arrays of any layout arrive as their values, and the safetensors library's own do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from client_support import ENCODINGS, assert_same
from service_support import BINARY, post

import softxent
import softxent.errors
from softxent_client import Client

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")

Array = npt.NDArray[Any]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(np.swapaxes(a, 0, -1)).swapaxes(0, -1),
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "rows reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "repeated": lambda a: np.broadcast_to(a[:1], a.shape),
}
VALUES = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)
LABELS = np.arange(6) % 4


def tensors(layout: str) -> dict[str, Array]:
    return {"logits": LAYOUTS[layout](VALUES), "labels": LAYOUTS[layout](LABELS)}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_client_sends_an_arrays_values(service_url: str, layout: str, encoding: Any) -> None:
    given: Any = tensors(layout)
    straight: Any = {name: np.array(value, order="C") for name, value in given.items()}
    with Client(service_url, encoding=encoding) as client:
        assert_same(client.cross_entropy(**given), softxent.cross_entropy(**straight))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contiguous_arrays_are_what_the_safetensors_library_sends(
    service_url: str, layout: str
) -> None:
    line = re.search(r"^body = (safetensors\.numpy\.save.*)$", README, re.MULTILINE)
    assert line is not None
    names = {"safetensors": safetensors, "np": np, "tensors": tensors(layout)}
    answer = post(service_url, eval(line[1], names), BINARY)
    assert answer.status_code == 200
    got = safetensors.numpy.load(answer.content)["gradient"]
    straight: Any = {name: np.array(value, order="C") for name, value in tensors(layout).items()}
    want = softxent.cross_entropy(**straight).gradient
    assert want is not None
    assert got.tobytes() == want.tobytes()


def test_the_warning_is_needed() -> None:
    """When this fails, the library has been mended and README's warning can go."""
    given = np.asfortranarray(VALUES)
    sent = safetensors.numpy.load(safetensors.numpy.save({"logits": given}))["logits"]
    assert sent.shape == given.shape
    assert not np.array_equal(sent, given)


@pytest.mark.parametrize("unknown", ["weight", "weights", "targets", "target", "colour"])
@pytest.mark.parametrize("name", ["cross_entropy", "softmax", "hessian_vector_product"])
def test_an_unknown_argument_gets_the_librarys_own_hint(name: str, unknown: str) -> None:
    given: Any = [np.zeros((1, 2), np.float32)]
    if name == "hessian_vector_product":
        given.append(np.zeros((1, 2), np.float32))
    option: Any = {unknown: 1}
    with pytest.raises(softxent.errors.OptionError) as ours:
        getattr(softxent, name)(*given, **option)
    with (
        Client("http://127.0.0.1:1", retries=0) as client,
        pytest.raises(softxent.errors.OptionError) as theirs,
    ):
        getattr(client, name)(*given, **option)
    assert str(theirs.value) == str(ours.value)
    assert unknown in str(theirs.value)
