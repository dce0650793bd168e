"""The commands about jobs; their flags are the tensors and options of a job, and settings."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
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


def _takes_job(*settings: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of a job, and those of some settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            own = {name: given.pop(name) for name in settings}
            try:
                command(_specification(given), checked(own))
            except SoftxentError as error:
                raise _refusal(error) from None

        flags = _job_flags(settings)
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

    return decorate


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
