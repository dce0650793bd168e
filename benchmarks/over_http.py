"""What HTTP costs: whole calls of the service beside servers that do next to nothing.

Every server runs in a process of its own, with one uvicorn worker on uvloop and httptools; all
take turns in one run, and figures are medians over the rounds. Not called `http.py`: a script's
own folder comes first on Python's path, where that name would hide the standard library's.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
from raw import Bytes, RawConnection, request_head
from repeater import requests_a_second
from servers import HOST, bare, service
from tables import print_table
from timing import medians

from softxent_client import Client
from softxent_client.wire import JSON, MEDIA_TYPES, SAFETENSORS

PATH = "/v1/cross_entropy"
RAW, CLIENT = "raw sockets, echo", "softxent, called by softxent_client.Client"
SERVICE = "softxent, loss and gradient"
BULK_GOAL = 2.2
DICT_GOAL, READY_GOAL = 0.8, 0.4

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]


def batch(rows: int, classes: int) -> Arrays:
    """Return logits [rows, classes] float32 and labels [rows]."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((rows, classes), np.float32)
    logits *= 3
    return {"logits": logits, "labels": generator.integers(0, classes, rows)}


def request(path: str, media_type: str, tensors: Arrays) -> list[Bytes]:
    """Return a request in pieces; the arrays are not copied."""
    body: list[Bytes] = list(MEDIA_TYPES[media_type].encode(tensors))
    return [request_head(path, media_type, sum(map(len, body))), *body]


def bulk(rows: int, classes: int, rounds: int) -> None:
    """Print the table of one large binary batch."""
    tensors = batch(rows, classes)
    head, *body = request("/", SAFETENSORS, tensors)
    size = sum(map(len, body))
    with ExitStack() as stack:

        def connected(port: int) -> RawConnection:
            return stack.enter_context(closing(RawConnection(port, size)))

        served = stack.enter_context(service())
        client = stack.enter_context(Client(f"http://{HOST}:{served}"))
        asgi, fastapi = (stack.enter_context(bare(f"{name}-echo")) for name in ("asgi", "fastapi"))
        candidates: dict[str, Callable[[], object]] = {
            RAW: partial(connected(stack.enter_context(bare("raw-echo"))).echo, body),
            "bare ASGI under uvicorn, echo": partial(connected(asgi).post, [head, *body]),
            "FastAPI Request.body(), echo": partial(connected(fastapi).post, [head, *body]),
            SERVICE: partial(connected(served).post, request(PATH, SAFETENSORS, tensors)),
            CLIENT: partial(client.cross_entropy, tensors["logits"], tensors["labels"]),
        }
        seconds = medians(candidates, rounds)
    title = f"{rows:,} x {classes:,} float32, {size / 1e6:.1f} MB each way, medians of {rounds}"
    print_table(
        f"{title}; the goal is over raw sockets",
        ["server", "whole call, ms", "over raw sockets", "goal"],
        [
            [name, f"{time * 1e3:.1f}", f"{time / seconds[RAW]:.2f}x", _goal(name)]
            for name, time in seconds.items()
        ],
    )


def _goal(name: str) -> str:
    return f"{BULK_GOAL}x" if name == SERVICE else ""


def small(rounds: int, seconds: float) -> None:
    """Print the table of requests a second for a batch of 1 x 10."""
    tensors = batch(1, 10)
    with ExitStack() as stack:
        served = stack.enter_context(service())
        to_service = partial(request, PATH, tensors=tensors)
        bare_request = b"".join(request("/", JSON, tensors))
        routes = {
            "def, dict": (stack.enter_context(bare("dict-route")), bare_request),
            "async def, Response": (stack.enter_context(bare("ready-route")), bare_request),
            "softxent, JSON": (served, b"".join(to_service(media_type=JSON))),
            "softxent, binary": (served, b"".join(to_service(media_type=SAFETENSORS))),
        }
        rows = [_small_row(routes, connections, rounds, seconds) for connections in (1, 8)]
    print_table(
        f"1 x 10, requests a second, medians of {rounds} rounds of {seconds} s",
        [
            "keep-alive connections",
            *routes,
            f"JSON over dict (goal {DICT_GOAL})",
            f"over Response (goal {READY_GOAL})",
            "binary over dict",
            "over Response",
        ],
        rows,
    )


def _small_row(
    routes: dict[str, tuple[int, bytes]], connections: int, rounds: int, seconds: float
) -> list[str]:
    figures: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, (port, whole) in routes.items():
            figures[name].append(requests_a_second(port, whole, connections, seconds))
    middle = [statistics.median(values) for values in figures.values()]
    as_dict, as_response, json, binary = middle
    ratios = [form / route for form in (json, binary) for route in (as_dict, as_response)]
    return [
        str(connections),
        *(f"{figure:,.0f}" for figure in middle),
        *(f"{ratio:.2f}" for ratio in ratios),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a first look")
    quick = parser.parse_args(arguments).quick
    print(f"{os.cpu_count()} processor cores, shared by client and server")
    bulk(*((128, 32_000, 3) if quick else (1_024, 32_000, 15)))
    small(*((3, 0.3) if quick else (9, 1.0)))


if __name__ == "__main__":
    main()
