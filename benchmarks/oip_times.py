"""What a call of the Open Inference Protocol costs beside the native one, and beside Triton's.

One blocking connection a candidate, or eight that are never idle; all take turns in one run, and
figures are medians over the rounds. Triton and its own client take part where `make bench-http` has
set them up.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import http_forms as forms
import httpx
import numpy as np
import orjson
from http_bulk import THREADS, check, threaded, triton_client
from http_candidates import PEERS, is_answering
from http_goals import Goals
from http_small import checked, loads
from raw import HEAD_BYTES, Bytes, RawConnection, request_head
from servers import HOST, is_installed, peer, service
from tables import print_table
from timing import medians

import softxent

SHAPES = ((1, 10), (32, 1_000), (256, 32_000), (1_024, 32_000))
CLIENTS = 8
CALLS = {(1, 10): 200, (32, 1_000): 100}
"""Calls of a round where one is too short to be timed."""

PATH = "/v2/models/cross_entropy/infer"
NATIVE, BINARY, TEXT, SHARED = "/v1, binary", "/v2, binary", "/v2, JSON", "/v2, shared memory"
KERNEL = "the kernel alone, in this process"
BY_CLIENT = "/v2, binary, by tritonclient"
TRITON = PEERS["triton"].title
TRITON_BY_CLIENT = f"{TRITON}, by tritonclient"
TEXT_LOGITS = 1_000_000
"""More logits than this are not sent as JSON."""

Work = Callable[[], Any]


def _tail(body: memoryview, shape: tuple[int, int]) -> forms.Answer:
    """Return loss and gradient, which end an answer."""
    rows, classes = shape
    values = np.frombuffer(body[-4 * rows * (1 + classes) :], np.float32)
    return values[:rows], values[rows:].reshape(shape)


def _text(tensors: forms.Arrays, _threads: int) -> list[Bytes]:
    inputs = [
        {"name": n, "shape": t.shape, "datatype": forms.TYPES[n], "data": t.reshape(-1)}
        for n, t in tensors.items()
    ]
    return [orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY)]


PROTOCOL = replace(forms.TRITON, path=PATH, decode=_tail)
PROTOCOL_JSON = replace(forms.TRITON_JSON, path=PATH, encode=_text)


@contextmanager
def shared(url: str, size: int) -> Iterator[mmap.mmap]:
    """Make an object of shared memory that the service knows as a region called "r"."""
    path = Path(f"/dev/shm/softxent-bench-{os.getpid()}")
    with path.open("x+b") as file:
        file.truncate(size)
        try:
            key = {"key": path.name, "byte_size": size}
            place = f"{url}/v2/systemsharedmemory/region/r"
            httpx.post(f"{place}/register", json=key).raise_for_status()
            yield mmap.mmap(file.fileno(), size)
            httpx.post(f"{place}/unregister").raise_for_status()
        finally:
            path.unlink()


def in_regions(tensors: forms.Arrays) -> list[Bytes]:
    """Return a request whose logits lie in "r" and whose gradient goes behind them."""
    logits, labels = tensors["logits"], tensors["labels"]
    place = {"shared_memory_region": "r", "shared_memory_byte_size": logits.nbytes}
    document = {
        "inputs": [
            _described("logits", logits, place),
            _described("labels", labels, {"binary_data_size": labels.nbytes}),
        ],
        "outputs": [
            {"name": "gradient", "parameters": {**place, "shared_memory_offset": logits.nbytes}},
            {"name": "loss", "parameters": {"binary_data": True}},
        ],
    }
    text = json.dumps(document).encode()
    length = f"{forms.HEADER_LENGTH}: {len(text)}"
    return [request_head(PATH, forms.OCTETS, len(text) + labels.nbytes, length), text, labels.data]


def _described(name: str, array: forms.Array, parameters: Mapping[str, Any]) -> dict[str, Any]:
    shape, datatype = list(array.shape), forms.TYPES[name]
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


class Calls:
    """The calls to be measured for one batch, by name."""

    def __init__(self, shape: tuple[int, int], stack: ExitStack) -> None:
        self.works: dict[str, Work] = {}
        self._shape, self._stack = shape, stack
        self._tensors = forms.batch(*shape)
        self._repeats = range(CALLS.get(shape, 1))
        logits = shape[0] * shape[1]
        longest = 24 if logits <= TEXT_LOGITS else 4
        self._buffer = memoryview(bytearray(32 * shape[0] + longest * logits + HEAD_BYTES))

    def post(self, name: str, port: int, form: forms.Form, threads: int = 1) -> None:
        """Add calls in a form, once the answer is seen to be right."""
        request = form.request(self._tensors, threads)
        connection = self._connect(port)
        check(name, form.decode(connection.post(request), self._shape), self._tensors)
        self.works[name] = partial(self._repeat, connection, request)

    def shared(self, port: int) -> None:
        """Add calls whose logits and gradient lie in shared memory."""
        logits = self._tensors["logits"]
        memory = self._stack.enter_context(shared(f"http://{HOST}:{port}", 2 * logits.nbytes))
        np.ndarray(logits.shape, logits.dtype, memory)[:] = logits
        request, connection = in_regions(self._tensors), self._connect(port)
        connection.post(request)
        ours = softxent.cross_entropy(logits, self._tensors["labels"])
        gradient = np.ndarray(logits.shape, logits.dtype, memory, logits.nbytes)
        np.testing.assert_array_equal(gradient, np.asarray(ours.gradient))
        del gradient
        self.works[SHARED] = partial(self._repeat, connection, request)

    def kernel(self) -> None:
        """Add the evaluation by itself, out of one array into another."""
        logits, labels = self._tensors["logits"], self._tensors["labels"]
        out = {"gradient": np.zeros_like(logits)}

        def evaluate() -> None:
            for _ in self._repeats:
                softxent.cross_entropy(logits, labels, out=out)

        self.works[KERNEL] = evaluate

    def triton(self, ours: int, triton: int) -> None:
        """Add Triton's calls, and calls of either service by Triton's client."""
        for threads in THREADS:
            self.post(threaded(TRITON, threads), triton, forms.TRITON, threads)
        if len(self._repeats) > 1:
            return
        asked = [(BY_CLIENT, ours, "cross_entropy")]
        for threads in THREADS:
            name = threaded(TRITON_BY_CLIENT, threads)
            asked.append((name, triton, f"cross_entropy_{threads}"))
        for name, port, model in asked:
            client = triton_client(port, self._shape, model)
            self.works[name] = self._stack.enter_context(client)

    def _connect(self, port: int) -> RawConnection:
        return self._stack.enter_context(closing(RawConnection(port, self._buffer)))

    def _repeat(self, connection: RawConnection, request: list[Bytes]) -> None:
        for _ in self._repeats:
            connection.post(request)


def measure(shape: tuple[int, int], ours: int, triton: int | None, rounds: int) -> dict[str, float]:
    """Return the median seconds of every call of one batch."""
    with ExitStack() as stack:
        calls = Calls(shape, stack)
        calls.post(NATIVE, ours, forms.OURS)
        calls.post(BINARY, ours, PROTOCOL)
        if shape[0] * shape[1] <= TEXT_LOGITS:
            calls.post(TEXT, ours, PROTOCOL_JSON)
        calls.shared(ours)
        calls.kernel()
        if triton is not None:
            calls.triton(ours, triton)
        repeats = CALLS.get(shape, 1)
        return {name: t / repeats for name, t in medians(calls.works, rounds).items()}


def small(ours: int, triton: int | None, rounds: int, goals: Goals) -> None:
    """Measure answers a second of the smallest batch on eight connections, and print them."""
    asked = {
        NATIVE: checked(NATIVE, ours, forms.OURS, SHAPES[0], 1),
        BINARY: checked(BINARY, ours, PROTOCOL, SHAPES[0], 1),
        TEXT: checked(TEXT, ours, PROTOCOL_JSON, SHAPES[0], 1),
    }
    if triton is not None:
        asked[TRITON] = checked(TRITON, triton, forms.TRITON, SHAPES[0], 1)
    rates = {name: load.a_second for name, load in loads(asked, CLIENTS, rounds, 2).items()}
    print_table(
        f"1 x 10 float32, {CLIENTS} clients, medians of {rounds} rounds of 2 s",
        ["call", "answers a second", f"{NATIVE} over it"],
        [[n, f"{rate:,.0f}", f"{rates[NATIVE] / rate:.2f}x"] for n, rate in rates.items()],
    )
    if triton is not None:
        what = f"1 x 10, {CLIENTS} clients: {BINARY}, over {TRITON}"
        goals.at_least(what, rates[BINARY] / rates[TRITON], 1.2)


def judge(seconds: Mapping[str, float], goals: Goals) -> None:
    """Hold the figures of the largest batch against their goals."""
    goals.at_most(f"{SHARED}, over {KERNEL}", seconds[SHARED] / seconds[KERNEL], 1.3)
    for other, own, goal in ((TRITON, BINARY, 3), (TRITON_BY_CLIENT, BY_CLIENT, 1.6)):
        names = [name for name in seconds if name in [threaded(other, n) for n in THREADS]]
        if names:
            best = min(names, key=lambda name: seconds[name])
            goals.at_least(f"{best}, over {own}", seconds[best] / seconds[own], goal)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small batches only, two rounds")
    quick = parser.parse_args(arguments).quick
    rounds, goals = 2 if quick else 11, Goals()
    with ExitStack() as stack:
        ours = stack.enter_context(service("--shared-memory")).port
        triton = None
        if is_installed("triton"):
            ready = is_answering(PEERS["triton"].binary)
            triton = stack.enter_context(peer("triton", ready)).port
        small(ours, triton, 2 if quick else 5, goals)
        for shape in SHAPES[:2] if quick else SHAPES:
            seconds = measure(shape, ours, triton, rounds)
            print_table(
                f"{shape[0]:,} x {shape[1]:,} float32, medians of {rounds}",
                ["call", "ms", f"over {NATIVE}"],
                [[n, f"{t * 1e3:.3f}", f"{t / seconds[NATIVE]:.2f}x"] for n, t in seconds.items()],
            )
        if not quick:
            judge(seconds, goals)
    goals.print()


if __name__ == "__main__":
    main()
