"""The commands `serve` and `info`; their flags are the fields of `Settings`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from softxent_service.machine import tell_numba
from softxent_service.settings import ENV_PREFIX, Settings

app = typer.Typer(
    help="Softmax cross-entropy, loss and gradient, as a service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _takes_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give `command` a flag for each field of `Settings`, with its variable, default and help."""

    def run(**given: Any) -> None:
        command(_checked(given))

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.get_default(call_default_factory=True),
            annotation=Annotated[
                field.annotation,
                typer.Option(help=field.description, envvar=ENV_PREFIX + name.upper()),
            ],
        )
        for name, field in Settings.model_fields.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _checked(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"], param_hint=flag) from None


@app.command()
@_takes_settings
def serve(settings: Settings) -> None:
    """Serve evaluations over HTTP until SIGTERM or SIGINT."""
    tell_numba(os.environ, settings.threads)
    from softxent_service.http.server import serve as run_server

    run_server(settings)


@app.command()
@_takes_settings
def info(settings: Settings) -> None:
    """Show versions, numerics, threading and limits, as `serve` would have them here."""
    tell_numba(os.environ, settings.threads)
    from softxent_service.report import report

    table = Table(show_header=False, box=None)
    for name, value in report(settings).items():
        table.add_row(name, value)
    Console().print(table)
