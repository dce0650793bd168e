"""The commands about jobs; their flags are the tensors and options of a job, and settings."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from softxent.errors import SoftxentError
from softxent_service.commands import app
from softxent_service.explain_command import explain
from softxent_service.job_flags import line_of, takes, takes_job
from softxent_service.runtime_tuning import tell_numba
from softxent_service.settings import Settings

__all__ = ["app", "explain"]

STOPPED = 130
"""The exit status of a command that a signal stopped."""


@app.command()
@takes_job("threads", "dask_scheduler", "block_bytes")
def evaluate(specification: Any, settings: Settings) -> None:
    """Evaluate arrays at rest in this process, without a server.

    The same command again goes on where one that was stopped or failed has ended, begins anew if an
    array has changed since, and shows the totals of a result that is finished.
    """
    tell_numba(os.environ, settings.threads)
    from softxent_service.jobs import local_run
    from softxent_service.jobs.cluster import Cluster
    from softxent_service.jobs.engine import StoppedError
    from softxent_service.jobs.failure import JobFailedError

    job = local_run.accept_anywhere(specification, settings.block_bytes)
    try:
        with Cluster(settings.dask_scheduler, settings.threads) as cluster:
            attributes = local_run.evaluate(job, cluster)
    except JobFailedError as failure:
        sys.exit(line_of(failure.problem))
    except StoppedError:
        typer.echo("softxent: stopped; the same command goes on from here", err=True)
        sys.exit(STOPPED)
    shown = ("rows", "count", "skipped", "loss_sum", "weight_sum", "mean", "perplexity", "accuracy")
    for name in shown:
        reason = attributes.get(f"{name}_reason")
        note = f" ({reason})" if reason else ""
        typer.echo(f"{name:<10}  {attributes[name]}{note}")
    typer.echo(f"{'result':<10}  {job.output.url}")


@app.command()
@takes(
    "data",
    "roots",
    "database",
    "runner_id",
    "running_jobs",
    "dask_scheduler",
    "threads",
    "log_level",
)
def runner(settings: Settings) -> None:
    """Run the jobs that services take, until SIGTERM or SIGINT.

    Several runners share the queue of one database; each has an id of its own.
    """
    _run_role("run_runner", settings)


@app.command()
@takes("dask_scheduler", "threads", "log_level")
def worker(settings: Settings) -> None:
    """Compute blocks of jobs for a Dask scheduler, until SIGTERM or SIGINT."""
    _run_role("run_worker", settings)


def _run_role(name: str, settings: Settings) -> None:
    tell_numba(os.environ, settings.threads)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    from softxent_service.jobs import roles

    getattr(roles, name)(settings)


job_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(job_app, name="job", help="Submit, show, list, watch and cancel jobs of a service.")

_URL = Annotated[str, typer.Option(envvar="SOFTXENT_URL", help="Where the service is.")]
_ID = Annotated[str, typer.Argument(help="The id of the job.")]
_KEY_FILE = Annotated[
    Path | None,
    typer.Option(
        envvar="SOFTXENT_KEY_FILE",
        help="File of the key that the service lets in; without one SOFTXENT_KEY is the key itself."
        " No flag takes a key, which everyone here could read in the list of processes.",
    ),
]
_IDEMPOTENCY_KEY = Annotated[
    str | None, typer.Option(help="The same word with the same job is one job.")
]
_AT = "http://127.0.0.1:8000"


@job_app.command("submit")
@takes_job(url=(_URL, _AT), key_file=(_KEY_FILE, None), idempotency_key=(_IDEMPOTENCY_KEY, None))
def submit(
    specification: Any, url: str, key_file: Path | None, idempotency_key: str | None
) -> None:
    """Submit a job over arrays below the service's roots, and print its id."""
    with _jobs(url, key_file) as jobs:
        typer.echo(jobs.submit(specification.to_json(), key=idempotency_key)["id"])


@job_app.command("show")
def show(job: _ID, url: _URL = _AT, key_file: _KEY_FILE = None) -> None:
    """Show a job as JSON."""
    with _jobs(url, key_file) as jobs:
        _print_job(jobs.show(job))


@job_app.command("list")
def list_jobs(
    url: _URL = _AT,
    key_file: _KEY_FILE = None,
    state: Annotated[str, typer.Option(help="Only these states, separated by commas.")] = "",
    limit: Annotated[int, typer.Option(help="Most jobs that are listed.", min=1)] = 50,
) -> None:
    """List jobs, the newest first: id, state, when it came, rows done, output."""
    cursor = None
    with _jobs(url, key_file) as jobs:
        while limit > 0:
            page = jobs.list(states=state, limit=min(limit, 500), cursor=cursor)
            for job in page["jobs"]:
                typer.echo(_line(job))
            limit -= len(page["jobs"])
            cursor = page["next"]
            if cursor is None:
                return


@job_app.command("watch")
def watch(job: _ID, url: _URL = _AT, key_file: _KEY_FILE = None) -> None:
    """Follow a job until it ends; the exit status is 0 where it succeeded, else 1."""
    with _jobs(url, key_file) as jobs:
        for news in jobs.watch(job):
            typer.echo(_line(news))
    if news["error"]:
        sys.exit(line_of(news["error"]))
    sys.exit(0 if news["state"] == "succeeded" else 1)


@job_app.command("cancel")
def cancel(job: _ID, url: _URL = _AT, key_file: _KEY_FILE = None) -> None:
    """Cancel a job; what of its result is finished stays."""
    with _jobs(url, key_file) as jobs:
        typer.echo(_line(jobs.cancel(job)))


@contextmanager
def _jobs(url: str, key_file: Path | None) -> Iterator[Any]:
    from softxent_client.jobs import Jobs

    try:
        with Jobs(url, key=_key(key_file)) as jobs:
            yield jobs
    except (SoftxentError, ValueError) as error:
        sys.exit(f"softxent: {error}")


def _key(file: Path | None) -> str | None:
    """Return the key that is sent, None without one."""
    if file is None:
        return os.environ.get("SOFTXENT_KEY") or None
    try:
        return file.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        # Its own message shows what it could not decode.
        raise ValueError(f"{file}: it holds no key") from None
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None


def _print_job(job: dict[str, Any]) -> None:
    typer.echo(json.dumps(job, indent=2))


def _line(job: dict[str, Any]) -> str:
    progress = job["progress"]
    rows = f"{progress['rows_done']}/{progress['rows']}" if progress else "-"
    return f"{job['id']}  {job['state']:<9}  {job['created']}  {rows}  {job['job']['output']}"
