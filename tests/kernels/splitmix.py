"""Integers and floats from a counter: the same everywhere, whatever numpy's random streams do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass
class Generator:
    """Steele, Lea and Flood's SplitMix64, as a function of a counter."""

    state: int

    @classmethod
    def named(cls, name: str) -> Generator:
        """Return a generator whose stream belongs to the name."""
        return cls(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))

    def words(self, *shape: int) -> npt.NDArray[np.uint64]:
        """Return the next 64-bit words."""
        count = int(np.prod(shape))
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(self.state)
        self.state = (self.state + count * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))).reshape(shape)

    def below(self, limit: int, *shape: int) -> Integers:
        """Return integers in [0, limit), limit < 2^32."""
        return ((self.words(*shape) >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(
            np.int64
        )

    def bell(self, *shape: int) -> npt.NDArray[np.float64]:
        """Return multiples of 2^-15 that fall nearly like normal numbers of deviation 1.15."""
        words = self.words(*shape)
        fields = [(words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
        total = np.sum(fields, axis=0).astype(np.int64)
        return np.asarray((total - 2 * 0xFFFF) / 2.0**15, np.float64)

    def patterns(self, dtype: str, exponents: int, *shape: int) -> Array:
        """Return numbers of any sign and mantissa with `exponents` binary orders around 1.

        0 orders: subnormal numbers.
        """
        unsigned, fraction, one = (
            (np.uint32, 23, 127) if dtype == "float32" else (np.uint64, 52, 1023)
        )
        mantissa = self.words(*shape) >> np.uint64(64 - fraction)
        sign = self.below(2, *shape).astype(np.uint64) << np.uint64(64 if fraction > 30 else 32) - 1
        biased = np.zeros(shape, np.uint64)
        if exponents:
            lowest = one - exponents // 2
            biased = (self.below(exponents, *shape) + lowest).astype(np.uint64)
        bits = (sign | biased << np.uint64(fraction) | mantissa).astype(unsigned)
        return np.asarray(bits.view(dtype))
