"""Whole calls of one large batch, the kernel included, on blocking connections."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import http_forms as forms
import ml_dtypes
import numpy as np
from http_candidates import OURS, Servers
from http_forms import Arrays, Form
from http_goals import Goals
from raw import HEAD_BYTES, RawConnection
from servers import HOST, PEERS, python_of
from tables import print_table
from timing import medians, progress

import softxent
from softxent_client import Client

RAW = "raw sockets, echo"
CLIENT = f"{OURS}, called by softxent_client.Client"
HALF = f"{OURS}, bfloat16"
THREADS = (1, 2)
"""Of torch; which is faster depends on the peer, and the faster one counts."""

LARGE, MEDIUM = (1_024, 32_000), (256, 32_000)
PEER_GOALS = {LARGE: 4.0, MEDIUM: 3.0}
"""How many times as long as ours the fastest peer takes."""
RAW_GOAL, RAW_MOONSHOT, HALF_GOAL = 1.2, 1.0, 0.6
"""The same of the large batch, over raw sockets; in bfloat16, over float32."""

Work = Callable[[], Any]


def check(name: str, answer: forms.Answer, tensors: Arrays) -> None:
    """Compare an answer with the library's.

    Raises:
        AssertionError: they differ by more than torch's error.
    """
    ours = softxent.cross_entropy(tensors["logits"], tensors["labels"])
    for got, expected in zip(answer, (ours.loss, ours.gradient), strict=True):
        np.testing.assert_allclose(got, np.asarray(expected), 1e-5, 1e-5, err_msg=name)


class Bulk:
    """The calls to be measured for one batch, by name."""

    def __init__(self, servers: Servers, shape: tuple[int, int], stack: ExitStack) -> None:
        self.works: dict[str, Work] = {}
        self._servers, self._shape, self._stack = servers, shape, stack
        self._tensors = forms.batch(*shape)
        size = 16 * shape[0] + 4 * shape[0] * shape[1] + HEAD_BYTES
        self._buffer = memoryview(bytearray(size))

    def connection(self, name: str) -> RawConnection:
        """Return a connection to a server; all of them receive in one buffer."""
        made = RawConnection(self._servers.port(name), self._buffer)
        return self._stack.enter_context(closing(made))

    def post(self, name: str, server: str, form: Form, threads: int = 1) -> None:
        """Add calls of a server in a form, once its answer is seen to be right."""
        work = partial(self.connection(server).post, form.request(self._tensors, threads))
        check(name, form.decode(work(), self._shape), self._tensors)
        self.works[name] = work

    def echoes(self) -> None:
        """Add servers that send back what they are sent: the same bytes, and no kernel."""
        request = forms.OURS.request(self._tensors, path="/")
        self.works[RAW] = partial(self.connection("raw-echo").echo, request[1:])
        for name, title in (
            ("asgi-echo", "bare ASGI under uvicorn, echo"),
            ("fastapi-echo", "FastAPI Request.body(), echo"),
        ):
            self.works[title] = partial(self.connection(name).post, request)

    def ours(self) -> None:
        """Add the service: float32, bfloat16, and by its client."""
        self.post(OURS, OURS, forms.OURS)
        half = {**self._tensors, "logits": self._tensors["logits"].astype(ml_dtypes.bfloat16)}
        self.works[HALF] = partial(self.connection(OURS).post, forms.OURS.request(half))
        client = self._stack.enter_context(Client(f"http://{HOST}:{self._servers.port(OURS)}"))
        self.works[CLIENT] = partial(
            client.cross_entropy, self._tensors["logits"], self._tensors["labels"]
        )

    def peers(self) -> None:
        """Add every peer on each number of threads, and Triton by its own client too."""
        for name, peer in self._servers.peers().items():
            for threads in THREADS:
                title = threaded(peer.title, threads)
                progress(f"{self._shape[0]:,} x {self._shape[1]:,}: checking {title}")
                self.post(title, name, peer.binary, threads)
                if name == "triton":
                    own = threaded(f"{peer.title}, its own client", threads)
                    port = self._servers.port(name)
                    self.works[own] = self._stack.enter_context(
                        triton_client(port, self._shape, f"cross_entropy_{threads}")
                    )


def threaded(title: str, threads: int) -> str:
    """Return a peer's name with its number of threads."""
    return f"{title}, {threads} thread{'s' * (threads > 1)}"


@contextmanager
def triton_client(port: int, shape: tuple[int, int], model: str) -> Iterator[Work]:
    """Start Triton's own client, which calls when told to; end it."""
    command = [python_of("triton"), "triton_client.py", "--port", str(port)]
    command += ["--model", model, "--shape", *map(str, shape)]
    with subprocess.Popen(
        command, cwd=PEERS, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_client, from_client = process.stdin, process.stdout

        def call() -> None:
            to_client.write(b"\n")
            if not from_client.readline():
                raise RuntimeError("Triton's own client ended")

        yield call


def fastest(seconds: Mapping[str, float], peers: list[str]) -> str | None:
    """Return the peer that takes the least time."""
    return min(peers, key=lambda name: seconds[name], default=None)


def table(servers: Servers, shape: tuple[int, int], rounds: int, goals: Goals) -> None:
    """Measure every call of one batch, print the table, and hold the figures against goals."""
    with ExitStack() as stack:
        bulk = Bulk(servers, shape, stack)
        bulk.echoes()
        bulk.ours()
        before = set(bulk.works)
        bulk.peers()
        progress(f"{shape[0]:,} x {shape[1]:,}: {len(bulk.works)} servers, {rounds} rounds")
        seconds = medians(bulk.works, rounds)
    peers = [name for name in seconds if name not in before]
    _print(servers, shape, rounds, seconds)
    _judge(shape, seconds, fastest(seconds, peers), goals)


def _print(
    servers: Servers, shape: tuple[int, int], rounds: int, seconds: Mapping[str, float]
) -> None:
    size = sum(map(len, forms.OURS.request(forms.batch(*shape))[1:])) / 1e6
    print_table(
        f"{shape[0]:,} x {shape[1]:,} float32, {size:.1f} MB each way, medians of {rounds}",
        ["server", "whole call, ms", "over raw sockets", f"over {OURS}"],
        [
            [name, f"{t * 1e3:.1f}", f"{t / seconds[RAW]:.2f}x", f"{t / seconds[OURS]:.2f}x"]
            for name, t in seconds.items()
        ]
        + servers.missing_rows(4),
    )


def _judge(
    shape: tuple[int, int], seconds: Mapping[str, float], best: str | None, goals: Goals
) -> None:
    what, ours = f"{shape[0]:,} x {shape[1]:,} float32", seconds[OURS]
    if best:
        goals.at_least(f"{what}: {best}, over {OURS}", seconds[best] / ours, PEER_GOALS[shape])
    if shape == LARGE:
        goals.at_most(f"{what}, over raw sockets", ours / seconds[RAW], RAW_GOAL, RAW_MOONSHOT)
        goals.at_most(f"{what}: bfloat16 over it", seconds[HALF] / ours, HALF_GOAL)
