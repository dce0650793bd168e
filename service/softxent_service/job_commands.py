"""The commands about jobs; their flags are the tensors and options of a job, and settings."""

from __future__ import annotations

import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from softxent import Options
from softxent.errors import SoftxentError
from softxent.evaluations import TENSORS
from softxent_service.commands import app, checked, flag
from softxent_service.http.openapi_options import TEXTS
from softxent_service.machine import tell_numba
from softxent_service.settings import Settings

__all__ = ["app"]

STOPPED = 130
"""The exit status of a command that a signal stopped."""

_LOGITS = Annotated[str, typer.Argument(help="Path or URL of the logits, .npy or Zarr v3.")]
_LABELS = Annotated[str | None, typer.Argument(help="Path or URL of the labels.")]
_OUTPUT = Annotated[str, typer.Option(help="Path or URL of the Zarr group to be made.")]
_ON_ERROR = Annotated[
    str,
    typer.Option(metavar="[fail|skip]", help="What rows that are refused do: end the job, or not."),
]


def _job_flags(settings: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Return annotation and default of each flag of a command that takes a job."""
    from softxent_service.jobs.specification import JOB

    tensors = {
        name: (Annotated[str | None, typer.Option(help=f"Path or URL of {name}.")], None)
        for name in TENSORS[2:]
    }
    defaults = dict.fromkeys(JOB.options) | {"outputs": "loss"}
    options = {
        name: (Annotated[str | None, typer.Option(help=_help(name), show_default=False)], None)
        for name in defaults
    }
    fields = {name: Settings.model_fields[name] for name in settings}
    own = {n: (flag(n, f), f.get_default(call_default_factory=True)) for n, f in fields.items()}
    return {
        "logits": (_LOGITS, inspect.Parameter.empty),
        "labels": (_LABELS, None),
        "output": (_OUTPUT, inspect.Parameter.empty),
        "on_error": (_ON_ERROR, "fail"),
        **tensors,
        **options,
        **own,
    }


def _help(name: str) -> str:
    from softxent_service.jobs.specification import JOB

    default = "loss" if name == "outputs" else Options.__dataclass_fields__[name].default
    assert name in JOB.options
    return f"{TEXTS[name]}  [default: {'none' if default is None else default}]"


def _takes_job(
    *settings: str, **extra: tuple[Any, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of a job, those of some settings, and some of its own."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            own = {name: given.pop(name) for name in settings}
            rest = {name: given.pop(name) for name in extra}
            try:
                specification = _specification(given)
                if own:
                    rest["settings"] = checked(own)
                command(specification, **rest)
            except SoftxentError as error:
                raise _refusal(error) from None

        return _with_flags(run, {**_job_flags(settings), **extra}, command)

    return decorate


def _with_flags(
    run: Callable[..., None], flags: dict[str, tuple[Any, Any]], command: Callable[..., None]
) -> Callable[..., None]:
    """Return a function that has flags, and the name and help of a command."""
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (annotation, default) in flags.items()
        ]
    )
    run.__annotations__ = {name: annotation for name, (annotation, _) in flags.items()}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _specification(given: dict[str, Any]) -> Any:
    from softxent_service.jobs.console import url_of
    from softxent_service.jobs.specification import JOB, Specification

    pairs = [(name, given[name]) for name in JOB.options if given[name] is not None]
    tensors = {name: url_of(given[name]) for name in TENSORS if given[name] is not None}
    options = Options.from_text(pairs, JOB)
    return Specification.checked(tensors, url_of(given["output"]), options, given["on_error"])


def _refusal(error: SoftxentError) -> typer.BadParameter:
    hint = f"'{(error.field or '').replace('_', '-')}'" if error.field else None
    return typer.BadParameter(str(error), param_hint=hint)


@app.command()
@_takes_job("threads", "dask_scheduler", "block_bytes")
def evaluate(specification: Any, settings: Settings) -> None:
    """Evaluate arrays at rest in this process, without a server.

    The same command again goes on where one that was stopped or failed has ended.
    """
    tell_numba(os.environ, settings.threads)
    from softxent_service.jobs import console
    from softxent_service.jobs.cluster import Cluster
    from softxent_service.jobs.engine import StoppedError
    from softxent_service.jobs.failure import JobFailedError

    job = console.accept_anywhere(specification, settings.block_bytes)
    try:
        with Cluster(settings.dask_scheduler, settings.threads) as cluster:
            attributes = console.evaluate(job, cluster)
    except JobFailedError as failure:
        sys.exit(_told(failure.problem))
    except StoppedError:
        typer.echo("softxent: stopped; the same command goes on from here", err=True)
        sys.exit(STOPPED)
    shown = ("rows", "count", "skipped", "loss_sum", "weight_sum", "mean", "perplexity", "accuracy")
    for name in shown:
        typer.echo(f"{name:<10}  {attributes[name]}")
    typer.echo(f"{'result':<10}  {job.output.url}")


def _told(problem: dict[str, Any]) -> str:
    """Return the line that tells why a job failed."""
    rows = ", ".join(
        f"{row} ({value})"
        for row, value in zip(problem.get("rows", ()), problem.get("values", ()), strict=False)
    )
    return f"softxent: {problem['detail']}{f'; rows {rows}' if rows else ''}"


def _takes(*settings: str) -> Callable[[Callable[[Settings], None]], Callable[..., None]]:
    """Give a command the flags of some settings."""

    def decorate(command: Callable[[Settings], None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            command(checked(given))

        fields = {name: Settings.model_fields[name] for name in settings}
        flags = {
            n: (flag(n, f), f.get_default(call_default_factory=True)) for n, f in fields.items()
        }
        return _with_flags(run, flags, command)

    return decorate


@app.command()
@_takes(
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
@_takes("dask_scheduler", "threads", "log_level")
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
_KEY = Annotated[
    str | None, typer.Option(help="Idempotency key: the same key with the same job is one job.")
]
_AT = "http://127.0.0.1:8000"


@job_app.command("submit")
@_takes_job(url=(_URL, _AT), key=(_KEY, None))
def submit(specification: Any, url: str, key: str | None) -> None:
    """Submit a job over arrays below the service's roots, and print its id."""
    with _jobs(url) as jobs:
        typer.echo(jobs.submit(specification.to_json(), key=key)["id"])


@job_app.command("show")
def show(job: _ID, url: _URL = _AT) -> None:
    """Show a job as JSON."""
    with _jobs(url) as jobs:
        _print_job(jobs.show(job))


@job_app.command("list")
def list_jobs(
    url: _URL = _AT,
    state: Annotated[str, typer.Option(help="Only these states, separated by commas.")] = "",
    limit: Annotated[int, typer.Option(help="Most jobs that are listed.", min=1)] = 50,
) -> None:
    """List jobs, the newest first: id, state, when it came, rows done, output."""
    cursor = None
    with _jobs(url) as jobs:
        while limit > 0:
            page = jobs.list(states=state, limit=min(limit, 500), cursor=cursor)
            for job in page["jobs"]:
                typer.echo(_line(job))
            limit -= len(page["jobs"])
            cursor = page["next"]
            if cursor is None:
                return


@job_app.command("watch")
def watch(job: _ID, url: _URL = _AT) -> None:
    """Follow a job until it ends; the exit status is 0 where it succeeded, else 1."""
    with _jobs(url) as jobs:
        for news in jobs.watch(job):
            typer.echo(_line(news))
    if news["error"]:
        sys.exit(_told(news["error"]))
    sys.exit(0 if news["state"] == "succeeded" else 1)


@job_app.command("cancel")
def cancel(job: _ID, url: _URL = _AT) -> None:
    """Cancel a job; what of its result is finished stays."""
    with _jobs(url) as jobs:
        typer.echo(_line(jobs.cancel(job)))


@contextmanager
def _jobs(url: str) -> Iterator[Any]:
    from softxent_client.jobs import Jobs

    try:
        with Jobs(url) as jobs:
            yield jobs
    except (SoftxentError, ValueError) as error:
        sys.exit(f"softxent: {error}")


def _print_job(job: dict[str, Any]) -> None:
    typer.echo(json.dumps(job, indent=2))


def _line(job: dict[str, Any]) -> str:
    progress = job["progress"]
    rows = f"{progress['rows_done']}/{progress['rows']}" if progress else "-"
    return f"{job['id']}  {job['state']:<9}  {job['created']}  {rows}  {job['job']['output']}"
