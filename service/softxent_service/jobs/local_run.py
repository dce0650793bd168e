"""Run of one job in this process, for a person at a terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import run_job
from softxent_service.jobs.job import Job
from softxent_service.jobs.progress import Progress
from softxent_service.jobs.result import Result
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def url_of(text: str) -> str:
    """Return the URL of an array that is named by its path or its URL."""
    return text if "://" in text else "file://" + quote(os.path.abspath(text))


def accept_anywhere(specification: Specification, block_bytes: int) -> Job:
    """Accept a job of someone who may read and write here anyway: its own URLs are its roots.

    Raises:
        As `accept`, and what `Result.check` raises.
    """
    urls = [url for _, url in specification.tensors] + [specification.output]
    buckets = {f"s3://{urlsplit(url).netloc}" for url in urls if url.startswith("s3://")}
    job = accept(specification, Roots(["file:///", *sorted(buckets)]), block_bytes)
    if not Result(job).done():
        Result(job).check()
    return job


def evaluate(job: Job, cluster: Cluster) -> dict[str, Any]:
    """Run a job with a progress bar on standard error; return the attributes of the result.

    Raises:
        JobFailedError, StoppedError.
    """
    with _signals() as stops, _bar(job.plan.rows) as report:
        return run_job(job, cluster, report, stops)


@contextmanager
def _bar(rows: int) -> Iterator[Callable[[Progress], None]]:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rows)
        yield lambda progress: bar.update(task, completed=progress.rows_done)


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Yield whether a signal has come; a second one ends the process as it would have."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def take(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, take)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
