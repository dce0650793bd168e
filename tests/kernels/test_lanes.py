"""Loads and stores of part of a vector touch their own elements only."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from oracle import Array

from softxent._kernels.build.compilation import shared
from softxent._kernels.simd.lanes import LANES
from softxent._kernels.simd.memory import load, load_first, store, store_first


@shared
def copy_first(source: Array, begin: int, count: int, target: Array) -> None:
    store_first(target, begin, count, load_first(source, begin, count, 5.0))


@shared
def spread_first(source: Array, begin: int, count: int, target: Array) -> None:
    store(target, 0, load_first(source, begin, count, 5.0))


@shared
def copy_lanes(source: Array, begin: int, target: Array) -> None:
    store(target, begin, load(source, begin))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", range(LANES + 3))
def test_first_lanes(count: int, dtype: Any) -> None:
    source = np.arange(3 * LANES, dtype=dtype)
    target = np.full(3 * LANES, -1, dtype)
    copy_first(source, 11, count, target)
    taken = min(count, LANES)
    wanted = np.full(3 * LANES, -1, dtype)
    wanted[11 : 11 + taken] = source[11 : 11 + taken]
    np.testing.assert_array_equal(target, wanted)
    lanes = np.empty(LANES, dtype)
    spread_first(source, 11, count, lanes)
    np.testing.assert_array_equal(lanes[:taken], source[11 : 11 + taken])
    assert (lanes[taken:] == 5).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_lanes(dtype: Any) -> None:
    source = np.arange(3 * LANES, dtype=dtype)
    target = np.full(3 * LANES, -1, dtype)
    copy_lanes(source, 5, target)
    np.testing.assert_array_equal(np.flatnonzero(target >= 0), np.arange(5, 5 + LANES))


GUARDED = """
import ctypes, mmap
import numpy as np
import softxent

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def before_a_wall(array):
    '''Return a copy whose last byte is the last before a page that may not be touched.'''
    pages = -(-array.nbytes // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    wall = ctypes.c_void_p(start + pages * page)
    assert libc.mprotect(wall, ctypes.c_size_t(page), 0) == 0
    view = np.frombuffer(memory, np.uint8)[pages * page - array.nbytes : pages * page]
    view = view.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view

rng = np.random.default_rng(0)
for classes in [*range(1, 70), 100, 127, 1000, 4095, 4096, 4097, 4160, 9001]:
    for dtype in ("f4", "f8"):
        x = rng.standard_normal((3, classes)).astype(dtype)
        y = rng.integers(0, classes, 3)
        w = np.linspace(0.5, 1, classes)
        names = ("loss", "gradient", "log_normalizer", "probabilities")
        for smoothing in (0.0, 0.1):
            r = softxent.cross_entropy(
                x, y, class_weights=w, label_smoothing=smoothing, outputs=names)
            out = {n: before_a_wall(np.zeros_like(getattr(r, n))) for n in names}
            g = softxent.cross_entropy(
                before_a_wall(x), before_a_wall(y), class_weights=before_a_wall(w),
                row_weights=before_a_wall(np.ones(3)), label_smoothing=smoothing, outputs=names,
                out=out)
            for n in names:
                assert getattr(g, n).tobytes() == getattr(r, n).tobytes(), (classes, dtype, n)
            place = before_a_wall(x)
            softxent.cross_entropy(
                place, y, class_weights=w, label_smoothing=smoothing, out={"gradient": place})
            assert place.tobytes() == r.gradient.tobytes()
print("whole")
"""


def test_kernels_stay_within_the_memory_of_their_arrays() -> None:
    """A page that faults when touched lies right behind every array."""
    done = subprocess.run(
        [sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr
