"""The commands `serve` and `info`; their flags are the fields of `Settings`."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

import softxent
from softxent_service.keys import KeysError, new_key
from softxent_service.runtime_tuning import tell_numba
from softxent_service.settings import ENV_PREFIX, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Frames and columns leave too little of 80 characters for the names of variables.
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"softxent {softxent.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Softmax cross-entropy, loss and gradient, as a service."""


def _takes_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give `command` a flag for each field of `Settings`, with its variable, default and help."""

    def run(**given: Any) -> None:
        command(checked(given))

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.get_default(call_default_factory=True),
            annotation=flag(name, field),
        )
        for name, field in Settings.model_fields.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def flag(name: str, field: FieldInfo) -> Any:
    """Return the annotation of one flag; the words of a choice are left to `Settings`."""
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    option = typer.Option(
        help=field.description,
        envvar=variable(name),
        metavar=f"[{'|'.join(words)}]" if words else None,
    )
    return Annotated[str if words else field.annotation, option]


def variable(name: str) -> str:
    """Return the name of the environment variable of a setting."""
    return ENV_PREFIX + name.upper()


CLIENT_VARIABLES = ("SOFTXENT_KEY", "SOFTXENT_KEY_FILE", "SOFTXENT_URL")
"""What commands that call a service read of the environment."""


RENAMED = {
    "SOFTXENT_CALLS": "SOFTXENT_MAX_CONCURRENT_CALLS",
    "SOFTXENT_KERNELS": "SOFTXENT_MAX_CONCURRENT_KERNELS",
    "SOFTXENT_QUEUE": "SOFTXENT_MAX_QUEUED_CALLS",
}
"""Settings by the names that they had before."""


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Refuse variables that look like settings and are none: a limit that is misspelt is no limit.

    Raises:
        BadParameter: there is one; it names what may have been meant.
    """
    known = {*map(variable, Settings.model_fields), *CLIENT_VARIABLES}
    for name in sorted(environment):
        if not name.upper().startswith(ENV_PREFIX) or name.upper() in known:
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
        meant = f"; did you mean {close[0]}?" if close else ""
        if name.upper() in RENAMED:
            meant = f"; it is called {RENAMED[name.upper()]} now"
        if re.search(r"_(SERVICE_|PORT_\d+_)", name):
            meant = "; Kubernetes sets it for a Service: enableServiceLinks: false ends that"
        raise typer.BadParameter(f"the environment variable {name} is no setting{meant}")


def checked(given: dict[str, Any]) -> Settings:
    """Return settings of the flags given; one that is refused is a wrong use of the command."""
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise typer.BadParameter(first["msg"]) from None
        name = str(first["loc"][0])
        hint = f"'--{name.replace('_', '-')}' (env var: '{variable(name)}')"
        raise typer.BadParameter(first["msg"], param_hint=hint) from None


@app.command()
@_takes_settings
def serve(settings: Settings) -> None:
    """Serve evaluations over HTTP until SIGTERM or SIGINT."""
    tell_numba(os.environ, settings.worker_threads)
    from softxent_service.http.server import serve as run_server

    run_server(settings)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Who the key is for; the log shows this name.")],
    scopes: Annotated[str, typer.Option(help="What it is good for, with commas between.")] = (
        "evaluate"
    ),
) -> None:
    """Make a key: print it, which nothing keeps, and the line for the file of keys."""
    try:
        text, kept = new_key(name, scopes.split(","))
    except KeysError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"key   {text}")
    typer.echo(f"line  {kept.line()}")


@app.command()
@_takes_settings
def info(settings: Settings) -> None:
    """Show versions, numerics, threading and limits that hold here."""
    tell_numba(os.environ, settings.threads)
    from softxent_service.http.readiness import KernelsError
    from softxent_service.info import report

    try:
        lines = report(settings)
    except KernelsError as error:
        sys.exit(f"softxent: {error}")
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{name:<{width}}  {value}")
