"""The clients beside lean ones that send the same bytes: time, processor time, peak memory.

A lean client sends bytes made in advance and reads the answer's bytes; ours also checks the batch,
encodes it and decodes the answer. One run on a shared machine says little of microseconds: compare
the ratios, first those of processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from servers import service
from tables import print_table
from timing import against, progress

from softxent_client import AsyncClient, Client
from softxent_client.wire import SAFETENSORS, safetensors_form

PATH = "/v1/cross_entropy"
HEADERS = {"content-type": SAFETENSORS, "accept": SAFETENSORS}
THREADS = 8
TASKS = 100

Batch = dict[str, Any]
Work = Callable[[], object]


def batch(rows: int, classes: int) -> Batch:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((rows, classes), np.float32)
    return {"logits": logits, "labels": rng.integers(0, classes, rows)}


def encoded(tensors: Batch) -> bytes:
    return b"".join(safetensors_form.encode(tensors))


class Lean:
    """The standard library's connection."""

    def __init__(self, url: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._body = body

    def call(self) -> bytes:
        self._connection.request("POST", PATH, self._body, HEADERS)
        return self._connection.getresponse().read()

    def call_into(self) -> npt.NDArray[np.uint8]:
        """Receive into one buffer of the announced size."""
        self._connection.request("POST", PATH, self._body, HEADERS)
        response = self._connection.getresponse()
        whole = np.empty(int(response.headers["content-length"]), np.uint8)
        at = 0
        while count := response.readinto(whole.data[at:]):
            at += count
        response.read()
        return whole

    def close(self) -> None:
        self._connection.close()


class LeanTasks:
    """asyncio's own streams, one connection a task."""

    def __init__(self, url: str, body: bytes) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        lines = [f"POST {PATH} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        self._request = "\r\n".join([*lines, "\r\n"]).encode() + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self) -> bytes:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(*self._address)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return body

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()


def compared(ours: Work, lean: Work, rounds: int, calls: int) -> tuple[float, float, float, float]:
    """Return medians of seconds and of processor seconds a call, by turns: ours, lean, both."""
    found: list[list[float]] = [[], [], [], []]
    for work in (ours, lean):
        work()
    for _ in range(rounds):
        for place, work in enumerate((ours, lean)):
            began, used = time.perf_counter(), time.process_time()
            for _ in range(calls):
                work()
            found[place].append((time.perf_counter() - began) / calls)
            found[place + 2].append((time.process_time() - used) / calls)
    first, second, third, fourth = (statistics.median(values) for values in found)
    return first, second, third, fourth


def row(name: str, times: Sequence[float], goal: float, *, rate: bool = False) -> list[str]:
    ours, lean, ours_used, lean_used = times
    ratio = lean / ours if rate else ours / lean
    return [
        name,
        f"{ours * 1e6:,.0f} us",
        f"{lean * 1e6:,.0f} us",
        against(ratio, goal, at_most=not rate),
        f"{ours_used / lean_used:.2f}x",
    ]


def small(url: str, rounds: int) -> list[str]:
    tensors = batch(1, 10)
    lean = Lean(url, encoded(tensors))
    with Client(url) as client:
        times = compared(lambda: client.cross_entropy(**tensors), lean.call, rounds, 200)
    lean.close()
    return row("Client, 1 x 10, time", times, 0.9)


def threads(url: str, rounds: int) -> list[str]:
    tensors = batch(1, 10)
    leans = [Lean(url, encoded(tensors)) for _ in range(THREADS)]
    with Client(url) as client:

        def ours(_: Lean) -> None:
            for _call in range(100):
                client.cross_entropy(**tensors)

        def theirs(lean: Lean) -> None:
            for _ in range(100):
                lean.call()

        def at_once(work: Callable[[Lean], None]) -> None:
            started = [threading.Thread(target=work, args=(lean,)) for lean in leans]
            for thread in started:
                thread.start()
            for thread in started:
                thread.join()

        times = compared(lambda: at_once(ours), lambda: at_once(theirs), rounds, 1)
    for lean in leans:
        lean.close()
    calls = THREADS * 100
    return row(
        "Client, 1 x 10, 8 threads, calls a second", [t / calls for t in times], 1.1, rate=True
    )


def tasks(url: str, rounds: int) -> list[str]:
    tensors = batch(1, 10)
    with asyncio.Runner() as runner:
        lean = LeanTasks(url, encoded(tensors))
        client = AsyncClient(url)

        async def ours() -> None:
            await asyncio.gather(*(client.cross_entropy(**tensors) for _ in range(TASKS)))

        async def theirs() -> None:
            await asyncio.gather(*(lean.call() for _ in range(TASKS)))

        times = compared(lambda: runner.run(ours()), lambda: runner.run(theirs()), rounds, 3)
        runner.run(client.aclose())
        runner.run(lean.close())
    return row("AsyncClient, 1 x 10, 100 at once, time", [t / TASKS for t in times], 1.5)


def bulk(url: str, rounds: int, shape: tuple[int, int]) -> list[str]:
    tensors = batch(*shape)
    lean = Lean(url, encoded(tensors))
    with Client(url) as client:
        times = compared(lambda: client.cross_entropy(**tensors), lean.call_into, rounds, 1)
    lean.close()
    return row(f"Client, {shape[0]:,} x {shape[1]:,}, time", times, 1.15)


def peak(url: str, shape: tuple[int, int]) -> str:
    """Return the peak of traced memory during a call, over the answer's bytes."""
    tensors = batch(*shape)
    with Client(url) as client:
        client.info()
        tracemalloc.start()
        result = client.cross_entropy(**tensors)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result.gradient is not None
    return against(most / result.gradient.nbytes, 1.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shape", type=int, nargs=2, default=(1024, 32_000))
    parser.add_argument("--url", help="a service that runs, in place of one that is started")
    given = parser.parse_args()
    if given.url is not None:
        measure(given.url, given.rounds, tuple(given.shape))
        return
    progress("starting the service")
    with service() as server:
        measure(f"http://127.0.0.1:{server.port}", given.rounds, tuple(given.shape))


def measure(url: str, rounds: int, shape: tuple[int, int]) -> None:
    rows = []
    for name, work in (("one thread", small), ("8 threads", threads), ("100 tasks", tasks)):
        progress(name)
        rows.append(work(url, rounds))
    progress("bulk")
    rows.append(bulk(url, rounds, shape))
    header = ("figure", "ours, a call", "lean, a call", "beside its goal", "processor time")
    print_table("Clients beside lean ones with the same bytes", header, rows)
    print(f"\nPeak memory of a bulk call over its answer: {peak(url, shape)}")


if __name__ == "__main__":
    main()
