"""A program whose processes use one client; run as `forked.py CASE URL`, it fails at a wrong loss.

The loss of logits [k, 0] and label 0 is log(1 + exp(-k)), another one for each process and call.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import httpx
import numpy as np

from softxent_client import AsyncClient, Client, ForkError
from softxent_client.jobs import Jobs

CALLS = 125
CHILDREN = 4


def check(loss: float, k: float) -> None:
    exact = math.log1p(math.exp(-k))
    assert abs(loss - exact) < 1e-6 * exact, (loss, exact)


def logits_of(process: int, call: int) -> list[list[float]]:
    return [[1 + process + call / CALLS, 0.0]]


def call_often(client: Client, process: int, calls: int = CALLS) -> None:
    for call in range(calls):
        logits = np.array(logits_of(process, call), np.float32)
        loss = client.cross_entropy(logits, [0]).loss
        check(float(np.asarray(loss)[0]), float(logits[0, 0]))


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return the child's id."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_for(*children: int) -> None:
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def several(url: str) -> None:
    """Parent and children call at once through a client that has connections already."""
    with Client(url) as client:
        call_often(client, 0, 1)
        children = [
            in_child(lambda process=n: call_often(client, process))  # type: ignore[misc]
            for n in range(1, CHILDREN + 1)
        ]
        call_often(client, 0, CALLS * CHILDREN)
        wait_for(*children)


def threads(url: str) -> None:
    """Children are forked while threads of the parent call; a child's lock is nobody's."""
    with Client(url) as client:
        busy = [
            threading.Thread(target=call_often, args=(client, n, 2 * CALLS)) for n in range(1, 4)
        ]
        for thread in busy:
            thread.start()
        children = [in_child(lambda: call_often(client, 9, 20)) for _ in range(8)]
        wait_for(*children)
        for thread in busy:
            thread.join()


def grandchildren(url: str) -> None:
    with Client(url) as client:
        call_often(client, 0, 1)

        def child() -> None:
            call_often(client, 1, 5)
            wait_for(in_child(lambda: call_often(client, 2, 5)))
            call_often(client, 1, 5)

        wait_for(in_child(child))
        call_often(client, 0, 5)


def closed_by_the_child(url: str) -> None:
    """A child's end of `with` closes nothing of the parent's; one connection lasts."""
    with Client(url) as client:
        call_often(client, 0, 1)
        wait_for(in_child(client.close))

        def call_and_close() -> None:
            call_often(client, 1, 2)
            client.close()

        wait_for(in_child(call_and_close))
        call_often(client, 0, 5)


def asynchronous(url: str) -> None:
    client = AsyncClient(url)

    async def calls(process: int) -> None:
        for call in range(CALLS):
            logits = np.array(logits_of(process, call), np.float32)
            loss = (await client.cross_entropy(logits, [0])).loss
            check(float(np.asarray(loss)[0]), float(logits[0, 0]))

    async def both() -> None:
        await calls(0)
        child = in_child(lambda: asyncio.run(calls(1)))
        await calls(0)
        wait_for(child)
        await calls(0)
        await client.aclose()

    asyncio.run(both())


def refused(ask: Callable[[], object], error: type[Exception], message: str) -> None:
    try:
        ask()
    except error as raised:
        if message not in str(raised):
            raise
    else:
        raise AssertionError(f"{error.__name__} was not raised")


def passed_transport(url: str) -> None:
    message = "make the transport and the client after the fork"
    with Client(url, transport=httpx.HTTPTransport()) as client:
        client.info()
        wait_for(in_child(lambda: refused(client.info, ForkError, message)))
        client.info()


def watch(_: str) -> None:
    """A watch goes on in the process that began it, on the connection that the child leaves."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))
    with Jobs(f"http://127.0.0.1:{listener.getsockname()[1]}") as jobs:
        events = jobs.watch("1")
        states: list[str] = []
        begin = threading.Thread(target=lambda: states.append(next(events)["state"]))
        begin.start()
        connection, _address = listener.accept()
        connection.recv(65_536)
        connection.sendall(head + b'id: 1\ndata: {"state": "running"}\n\n')
        begin.join()
        message = "this watch belongs to the parent process"
        wait_for(in_child(lambda: refused(lambda: next(events), ForkError, message)))
        connection.sendall(b'id: 2\ndata: {"state": "succeeded"}\n\n')
        states += [job["state"] for job in events]
        assert states == ["running", "succeeded"]
        connection.close()
        listener.close()


def jobs(url: str) -> None:
    with Jobs(url) as jobs:
        jobs.list()

        def list_often() -> None:
            for _ in range(20):
                assert jobs.list()["jobs"] == []

        children = [in_child(list_often) for _ in range(3)]
        list_often()
        wait_for(*children)


POOLED: list[Client] = []


def pooled_call(process: int) -> None:
    call_often(POOLED[0], process, 10)


def pool(url: str) -> None:
    """A client made before the workers of a pool are forked."""
    with Client(url) as client:
        call_often(client, 0, 1)
        POOLED.append(client)
        with multiprocessing.get_context("fork").Pool(3) as workers:
            workers.map(pooled_call, range(1, 13), chunksize=1)
        call_often(client, 0, 5)


def make_pooled(url: str) -> None:
    POOLED.append(Client(url))


def sent(url: str) -> None:
    """Nothing sends a client to another process; each worker makes its own."""
    clients = (Client(url), AsyncClient(url), Jobs(url))
    for client in clients:
        message = "cannot be copied or sent to a process"
        refused(lambda client=client: pickle.dumps(client), TypeError, message)  # type: ignore[misc]
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2, make_pooled, (url,)) as workers:
            workers.map(pooled_call, range(4), chunksize=1)


def cases() -> Iterator[Callable[[str], None]]:
    yield from (several, threads, grandchildren, closed_by_the_child, asynchronous)
    yield from (passed_transport, watch, jobs, pool, sent)


if __name__ == "__main__":
    {case.__name__: case for case in cases()}[sys.argv[1]](sys.argv[2])
