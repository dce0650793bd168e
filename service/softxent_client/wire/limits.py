"""Limits on the size of a message."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Ceilings that are checked before anything is allocated.

    Attributes:
        binary_bytes: size of a safetensors body.
        json_bytes: size of a JSON body.
        tensors: how many tensors a body may hold.
        header_bytes: size of a safetensors header.
        json_depth: how deep arrays and objects may be nested in JSON, the outer object included.
    """

    binary_bytes: int = 256 * MIB
    json_bytes: int = 32 * MIB
    tensors: int = 16
    header_bytes: int = 64 << 10
    json_depth: int = 64
