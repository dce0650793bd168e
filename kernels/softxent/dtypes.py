"""Dtypes of logits: their names, and the dtypes they are computed in."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


def computed_dtype(logits: np.dtype[Any]) -> np.dtype[Any]:
    """Return what logits of a dtype are computed in."""
    return _FLOAT64 if logits == _FLOAT64 else _FLOAT32


@functools.lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return a dtype's name, whatever its byte order; numpy takes 3 us to make it up."""
    return dtype.newbyteorder("=").name
