"""What test_forks runs in a process of its own for each threading layer: `fork_script.py CASE`."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from fork_support import answer, in_child
from softxent.serving import threading_layer


def _pool(method: str) -> list[tuple[bytes, float]]:
    context = multiprocessing.get_context(method)
    # A process that starts anew loads the kernels, which takes seconds.
    with context.Pool(2 if method == "fork" else 1) as pool:
        return pool.map(answer, range(6))


def after_a_parallel_call() -> None:
    """A child of a process whose kernel threads have started, as of gunicorn --preload."""
    wanted = [answer(seed) for seed in range(4)]
    assert threading_layer() is not None
    for seed in range(4):
        assert in_child(partial(answer, seed)) == wanted[seed]
    assert [answer(seed) for seed in range(4)] == wanted


def before_a_parallel_call() -> None:
    """A child that starts kernel threads of its own, and its parent after it."""
    found = in_child(lambda: answer(0))
    assert found == answer(0) == in_child(lambda: answer(0))


def nested() -> None:
    """A child of a child, which evaluated before and after it forked."""
    wanted = answer(1)

    def child() -> bool:
        return bool(answer(1) == in_child(lambda: answer(1)) == answer(1) == wanted)

    assert in_child(child)


def pools() -> None:
    """multiprocessing's own pools, as data loaders have them, by every start method."""
    wanted = [answer(seed) for seed in range(6)]
    for method in ("fork", "forkserver", "spawn"):
        assert _pool(method) == wanted, method
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=fork) as executor:
        assert list(executor.map(answer, range(6))) == wanted


def while_threads_evaluate() -> None:
    """Forks of one thread while others are in the kernels, and hold their locks."""
    wanted = [answer(seed) for seed in range(3)]
    stop, wrong = threading.Event(), []

    def evaluate(seed: int) -> None:
        while not stop.is_set():
            if answer(seed) != wanted[seed]:
                wrong.append(seed)

    threads = [threading.Thread(target=evaluate, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: answer(2)) == wanted[2]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def child_with_threads() -> None:
    """Threads of a child evaluate at once, as those of a worker do."""
    wanted = [answer(seed) for seed in range(4)]

    def child() -> list[tuple[bytes, float]]:
        found: dict[int, tuple[bytes, float]] = {}
        threads = [
            threading.Thread(target=lambda seed=seed: found.update({seed: answer(seed)}))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[seed] for seed in range(4)]

    assert in_child(child) == wanted


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        after_a_parallel_call,
        before_a_parallel_call,
        nested,
        pools,
        while_threads_evaluate,
        child_with_threads,
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
