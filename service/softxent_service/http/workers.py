"""Supervisor of several worker processes on one listening socket.

The first takes connections at once and compiles or loads the kernels, alone. The others, and any
that takes the place of one that died, take their first connection when theirs are loaded, so that
no client meets an unready process where a ready one listens.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Thread
from types import FrameType
from typing import Any

from softxent_service.settings import Settings

logger = logging.getLogger("softxent")

LEAST_SECONDS = 1.0
"""A place is filled again no sooner than this after it was filled last."""

LOOK_SECONDS = 1.0
"""How often the supervisor of a stop looks at the clock."""

GRACE_SECONDS = 10.0
"""Beyond `drain_seconds` and `shutdown_seconds`, after which a worker that was told to stop is
killed: its idle connections have a second of it, its last threads five."""

FAILED = 1
"""The exit status of a worker that would fail the same way again."""


Work = Callable[[Settings, socket.socket, Connection, bool], None]
"""Serves on a listener; closes the connection when it is ready; takes connections before that if
the flag says so. It is looked up by its name in another process."""


@dataclass
class _Worker:
    """One process; `ready` becomes readable once it is, or has ended."""

    process: SpawnProcess
    ready: Connection
    began: float

    def ending(self) -> str:
        """Return how the process ended, in a word."""
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"status {code}"


class Supervisor:
    """Supervisor: it starts workers, replaces those that die, and passes on signals."""

    def __init__(self, work: Work, settings: Settings, listener: socket.socket) -> None:
        self._work = work
        self._settings = settings
        self._listener = listener
        self._workers: list[_Worker] = []
        self._stopping = False
        self._kill_at = math.inf
        self._status = 0
        # OpenMP does not survive a fork, and spawned processes read the environment afresh.
        self._context = get_context("spawn")

    def run(self) -> int:
        """Work until a signal or a failure; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._start(at_once=True)
        while self._workers:
            handles = [w.process.sentinel for w in self._workers]
            warming = [w.ready for w in self._workers if not w.ready.closed]
            found = connection.wait([*handles, *warming], LOOK_SECONDS)
            for handle in found:
                self._look_after(handle)
            if time.monotonic() > self._kill_at:
                self._kill()
        return self._status

    def _kill(self) -> None:
        """End workers that do not end by themselves, whatever holds their interpreters."""
        for worker in self._workers:
            logger.error("worker %d does not stop and is killed", worker.process.pid)
            worker.process.kill()
        self._kill_at = math.inf

    def _look_after(self, handle: object) -> None:
        for worker in list(self._workers):
            if handle is worker.ready:
                worker.ready.close()
                self._fill()
            elif handle == worker.process.sentinel:
                self._workers.remove(worker)
                self._bury(worker)

    def _fill(self) -> None:
        while len(self._workers) < self._settings.workers and not self._stopping:
            self._start(at_once=False)

    def _start(self, *, at_once: bool) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        given = (self._work, self._settings, self._listener, theirs, at_once)
        process = self._context.Process(target=_begin, args=given)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic()))
        if self._stopping:
            # The signal came while it was started, and did not reach it.
            process.terminate()

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        worker.ready.close()
        if self._stopping:
            return
        if worker.process.exitcode == FAILED:
            self._status = FAILED
            self._stop()
            return
        pid, ending = worker.process.pid, worker.ending()
        logger.error("worker %d ended with %s; another takes its place", pid, ending)
        time.sleep(max(0.0, worker.began + LEAST_SECONDS - time.monotonic()))
        self._start(at_once=not self._workers)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        settings = self._settings
        bound = settings.drain_seconds + settings.shutdown_seconds + GRACE_SECONDS
        self._kill_at = min(self._kill_at, time.monotonic() + bound)
        for worker in list(self._workers):
            worker.process.terminate()


def _begin(work: Work, *given: Any) -> None:
    """Be one worker, in a group of its own: a terminal's Ctrl-C is for the supervisor alone."""
    os.setpgrp()
    Thread(target=_end_with_supervisor, daemon=True).start()
    work(*given)


def _end_with_supervisor() -> None:
    supervisor = parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
