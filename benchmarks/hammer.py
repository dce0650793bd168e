"""A client that sends one large batch over and over, until it is told to end or time is over."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import http_forms as forms
from raw import HEAD_BYTES, RawConnection

LONGEST = 600.0
"""Seconds after which a client ends by itself."""


@contextmanager
def hammered(port: int, clients: int, shape: tuple[int, int]) -> Iterator[None]:
    """Have clients send large batches while the block runs; each has had an answer before."""
    command = [sys.executable, __file__, str(port), *map(str, shape)]
    with ExitStack() as stack:
        processes = []
        for _ in range(clients):
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            if not process.stdout.readline():
                raise RuntimeError("a client of large batches ended")
        yield


def main() -> None:
    """Send batches; say when the first has been answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("shape", type=int, nargs=2)
    given = parser.parse_args()
    request = forms.OURS.request(forms.batch(*given.shape))
    buffer = memoryview(bytearray(sum(map(len, request)) + HEAD_BYTES))
    end = time.monotonic() + LONGEST
    with closing(RawConnection(given.port, buffer)) as connection:
        connection.post(request)
        print("answered", flush=True)
        while time.monotonic() < end:
            connection.post(request)


if __name__ == "__main__":
    main()
