"""Flags of commands that take a job: its tensors, its options, and settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from softxent import Options
from softxent.errors import OptionError, SoftxentError
from softxent.evaluations import TENSORS
from softxent.options import DECLARED
from softxent_service.commands import checked, flag
from softxent_service.jobs.errors import SpecificationError
from softxent_service.settings import Settings

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
    return f"{DECLARED[name].sentence}  [default: {'none' if default is None else default}]"


def takes_job(
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
            except (OptionError, SpecificationError) as error:
                raise _wrong_use(error) from None
            except SoftxentError as error:
                # The arrays are at fault, not the command line.
                typer.echo(line_of({**error.details(), "detail": error.message}), err=True)
                raise typer.Exit(1) from None

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
    from softxent_service.jobs.local_run import url_of
    from softxent_service.jobs.specification import JOB, Specification

    pairs = [(name, given[name]) for name in JOB.options if given[name] is not None]
    tensors = {name: url_of(given[name]) for name in TENSORS if given[name] is not None}
    options = Options.from_text(pairs, JOB)
    return Specification.checked(tensors, url_of(given["output"]), options, given["on_error"])


def line_of(problem: Mapping[str, Any]) -> str:
    """Return the line that tells of a problem document: what is wrong, and in which rows."""
    told = zip(problem.get("rows", ()), problem.get("values", ()), strict=False)
    rows = ", ".join(f"{row} ({value})" for row, value in told)
    return f"softxent: {problem['detail']}{f'; rows {rows}' if rows else ''}"


def _wrong_use(error: SoftxentError) -> typer.BadParameter:
    hint = f"'{(error.field or '').replace('_', '-')}'" if error.field else None
    return typer.BadParameter(str(error), param_hint=hint)


def takes(*settings: str) -> Callable[[Callable[[Settings], None]], Callable[..., None]]:
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
