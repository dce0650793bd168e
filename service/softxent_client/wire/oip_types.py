"""Parsed requests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softxent_client.wire.schema import Array

DATATYPES: Mapping[str, str] = {
    "FP64": "F64",
    "FP32": "F32",
    "FP16": "F16",
    "BF16": "BF16",
    "BOOL": "BOOL",
    **{f"INT{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
"""The protocol's names of data types, and those of the binary form."""

NAMES: Mapping[str, str] = {name: datatype for datatype, name in DATATYPES.items()}

PLACE = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
"""The parameters that say where in shared memory a tensor lies."""


@dataclass(frozen=True)
class Region:
    """A stretch of a region of shared memory, by the name it is registered under."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Placed:
    """An input that lies in shared memory."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    region: Region

    @property
    def ndim(self) -> int:
        """Return how many dimensions it has."""
        return len(self.shape)


@dataclass(frozen=True)
class Output:
    """One output that is asked for: as bytes, as JSON, or in shared memory."""

    name: str
    binary: bool
    region: Region | None = None


@dataclass(frozen=True)
class Request:
    """Parsed request.

    Attributes:
        tensors: inputs that came with it, views into its body where they came as bytes.
        placed: inputs that lie in shared memory.
        outputs: what is asked for, in that order.
        parameters: all but those that say how outputs are sent.
        given_id: what the answer repeats.
    """

    tensors: Mapping[str, Array]
    placed: Mapping[str, Placed]
    outputs: tuple[Output, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    given_id: str | None = None

    @property
    def nbytes(self) -> int:
        """Return how many bytes all inputs take."""
        there = sum(placed.region.size for placed in self.placed.values())
        return there + sum(tensor.nbytes for tensor in self.tensors.values())
