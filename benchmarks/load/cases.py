"""What is sent, and whether what comes back is what the library says, to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import softxent
from softxent_client.wire import JSON, MEDIA_TYPES, RESPONSE, SAFETENSORS, Limits

PATH = "/v1/cross_entropy"
FORMS = {"json": JSON, "binary": SAFETENSORS}
MIXED = "1x10:json:40,1x10:binary:20,32x1000:json:10,32x1000:binary:20,256x32000:binary:1"
"""Many small calls and few large ones, in both forms."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Case:
    """One request, and the arrays that its answer must hold.

    Attributes:
        weight: how often it is sent, beside the others' weights.
        answer: the body that was found right last; the next one is most likely the same bytes.
    """

    name: str
    form: str
    weight: float
    body: bytes
    expected: Arrays
    answer: bytes = field(default=b"", repr=False)

    def is_right(self, body: bytes) -> bool:
        """Tell whether an answer holds the library's bits."""
        if body != self.answer:
            if not self._holds(body):
                return False
            self.answer = body
        return True

    def _holds(self, body: bytes) -> bool:
        try:
            found = MEDIA_TYPES[self.form].decode(body, RESPONSE(), Limits(binary_bytes=1 << 40))
        except softxent.SoftxentError:
            return False
        return all(
            name in found and found[name].astype(wanted.dtype).tobytes() == wanted.tobytes()
            for name, wanted in self.expected.items()
        )


def make_case(text: str) -> Case:
    """Return the case that `ROWSxCLASSES:FORM[:WEIGHT]` describes, such as 32x1000:binary:2.

    Raises:
        ValueError: it describes none.
    """
    shape, form, *weight = text.split(":")
    rows, classes = map(int, shape.split("x"))
    if form not in FORMS or min(rows, classes) < 1 or len(weight) > 1:
        raise ValueError(f"{text!r} is not ROWSxCLASSES:json or :binary, and perhaps :WEIGHT")
    generator = np.random.default_rng(rows * 1_000_003 + classes)
    logits = generator.standard_normal((rows, classes), np.float32) * np.float32(5)
    tensors: Arrays = {"logits": logits, "labels": generator.integers(0, classes, rows)}
    body = b"".join(MEDIA_TYPES[FORMS[form]].encode(tensors))
    result = softxent.cross_entropy(logits, tensors["labels"])
    expected = {"loss": np.asarray(result.loss), "gradient": np.asarray(result.gradient)}
    factor = float(weight[0]) if weight else 1.0
    return Case(f"{shape} {form}", FORMS[form], factor, body, expected)


def make_cases(text: str) -> list[Case]:
    """Return the cases of a mix, described with commas between."""
    return [make_case(part) for part in text.split(",")]


def picks(cases: Sequence[Case], seed: int = 0) -> Iterator[int]:
    """Yield which case comes next, for ever: as its weight says, and the same in every run."""
    chance = random.Random(seed)
    weights = [case.weight for case in cases]
    while True:
        yield from chance.choices(range(len(cases)), weights, k=1000)
