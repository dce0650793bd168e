"""When the parallel loops may be entered, and on how many threads.

numba's `workqueue` layer aborts the process when two threads enter parallel loops at once; the
OpenMP and TBB layers do not. Which layer there is shows after the first parallel loop, so that
one, and all of them on `workqueue`, are guarded by a lock.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numba
from numba.np.ufunc import threading_layer

_guard = threading.Lock()
_concurrent = False


def layer() -> str | None:
    """Return numba's threading layer ("omp", "tbb", "workqueue"); None before the first loop."""
    try:
        return str(threading_layer())
    except ValueError:
        return None


def available_threads() -> int:
    """Return how many threads a parallel loop started from here may use."""
    return int(numba.get_num_threads())


@contextlib.contextmanager
def parallel_loop(num_threads: int) -> Iterator[None]:
    """Hold what a parallel loop needs: its number of threads and, where it must be, the lock."""
    global _concurrent
    before = numba.get_num_threads()
    numba.set_num_threads(num_threads)
    try:
        if _concurrent:
            yield
        else:
            with _guard:
                yield
            _concurrent = layer() in ("omp", "tbb")
    finally:
        numba.set_num_threads(before)
