"""What a terminal shows while a load runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from load.figures import figures
from load.loops import Load

SHOWN_SECONDS = 0.25
LAST_SAMPLES = 1_000
"""Of these the figures shown are; a report has those of all."""


class Shown:
    """Shows progress now and then; called after each answer."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        self._progress = progress
        self._task = progress.add_task("load", total=seconds, text="")
        self._next = 0.0

    def __call__(self, load: Load) -> None:
        """Show how far a load has come."""
        if load.seconds < self._next:
            return
        self._next = load.seconds + SHOWN_SECONDS
        last = load.samples[-LAST_SAMPLES:]
        span = last[-1].ended - last[0].intended
        found = figures(last, span)
        text = (
            f"{len(load.samples):,} requests, {found.rate:,.0f}/s, p50 "
            f"{found.latency['p50'] * 1e3:.2f} ms, p99 {found.latency['p99'] * 1e3:.2f} ms, "
            f"{load.failed} failed"
        )
        self._progress.update(self._task, completed=load.seconds, text=text)


@contextmanager
def shown(seconds: float) -> Iterator[Shown]:
    """Yield what shows a load of so many seconds, on standard error."""
    columns = [BarColumn(bar_width=24), TimeRemainingColumn(), TextColumn("{task.fields[text]}")]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Shown(progress, seconds)
