"""Processes of a cluster: the runner, which takes jobs, and the workers, which compute."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import Any

import dask.config
import distributed

from softxent_service.jobs.cluster import HERE
from softxent_service.jobs.errors import JobsUnavailableError
from softxent_service.jobs.service import make_runner
from softxent_service.settings import Settings

logger = logging.getLogger("softxent.jobs")

WAIT_SECONDS = 1.0
"""How long to wait before a scheduler, a database or a lock is looked for again."""

DEATH_SECONDS = 20
"""How long a worker looks for its scheduler before it begins anew."""


def run_runner(settings: Settings) -> None:
    """Take jobs until SIGTERM or SIGINT, then end with status 0; with 1 where the id is taken."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    runner = make_runner(settings)
    try:
        while not _started(runner, settings):
            if stopping.wait(WAIT_SECONDS):
                return
        while not stopping.is_set():
            if not runner.watch(WAIT_SECONDS):
                logger.error("another runner has the id %s now", settings.runner_id)
                logging.shutdown()
                # Its jobs are the other's: nothing is given back.
                os._exit(1)
    finally:
        runner.stop()
    logging.shutdown()
    os._exit(0)


def _started(runner: Any, settings: Settings) -> bool:
    try:
        if runner.start():
            return True
    except JobsUnavailableError as error:
        logger.warning("%s", error)
        return False
    sys.exit(f"softxent: a runner with the id {settings.runner_id} is running already")


def run_worker(settings: Settings) -> None:
    """Compute blocks until SIGTERM or SIGINT; a scheduler that is gone is waited for."""
    if settings.dask_scheduler is None:
        sys.exit("softxent: a worker needs a scheduler; name it with --dask-scheduler")
    logging.getLogger("distributed").setLevel(logging.WARNING)
    logging.getLogger("distributed.worker").setLevel(logging.ERROR)
    asyncio.run(_work(settings.dask_scheduler, settings.threads))


async def _work(scheduler: str, threads: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stopped = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        session = asyncio.create_task(_one_session(scheduler, threads, stopped))
        await asyncio.wait({session, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            await asyncio.wait({stopped}, timeout=WAIT_SECONDS)
    await asyncio.wait({session}, timeout=WAIT_SECONDS)


async def _one_session(scheduler: str, threads: int, stopped: asyncio.Task[Any]) -> None:
    """Work for a scheduler until it is gone."""
    try:
        with dask.config.set({"distributed.worker.http.routes": []}):
            worker = distributed.Worker(
                scheduler,
                nthreads=threads,
                dashboard_address=HERE,
                memory_limit=0,
                death_timeout=DEATH_SECONDS,
            )
        async with worker:
            logger.info("worker at %s has %d threads for %s", worker.address, threads, scheduler)
            gone = asyncio.create_task(worker.finished())
            await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
    except (OSError, TimeoutError, asyncio.CancelledError) as error:
        logger.warning("no scheduler answers at %s: %s", scheduler, error)
    else:
        logger.info("the scheduler at %s is gone, or the worker stops", scheduler)
