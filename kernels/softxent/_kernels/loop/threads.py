"""Thread layer: when parallel loops may be entered, and on how many threads.

numba's `workqueue` layer aborts the process when two threads enter parallel loops at once; the
OpenMP and TBB layers do not. Which layer there is shows after the first parallel loop, so that
one, and all of them on `workqueue`, are guarded by a lock.

A fork copies the memory of a threading layer but not its threads: GNU OpenMP aborts the child at
its first parallel loop. A child that was forked after the layer started therefore evaluates on
its own thread, to the same bits.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import numba
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import threading_layer

_guard = threading.Lock()
_concurrent = False
_forked = False
"""Whether this process was forked after the threading layer had started."""


def layer() -> str | None:
    """Return numba's threading layer ("omp", "tbb", "workqueue"); None before the first loop."""
    try:
        return str(threading_layer())
    except ValueError:
        return None


def available_threads() -> int:
    """Return how many threads a parallel loop started from here may use."""
    return 1 if _forked else int(numba.get_num_threads())


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


def _after_fork_in_child() -> None:
    global _forked
    _forked = _forked or layer() is not None
    global_compiler_lock.release()


# A fork waits until no other thread compiles or loads a kernel: a child in which the compiler's
# lock is held by a thread that does not exist there would wait for it for ever.
os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=_after_fork_in_child,
)
