"""The command `explain`: the derivation of one row, step by step, in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from softxent import explain as explain_row
from softxent.errors import SoftxentError
from softxent.explanation_steps import Step, steps_of
from softxent_service.commands import app

_Logits = Annotated[list[str], typer.Argument(help="Logits of one row, as 2 1 0.1.")]
_Label = Annotated[int | None, typer.Option(help="The class that is right, from 0.")]
_Target = Annotated[
    str | None, typer.Option(help="Target probabilities instead, as 0.5,0.25,0.25.")
]


# Without it -800 would be taken for an option.
@app.command(context_settings={"ignore_unknown_options": True})
def explain(logits: _Logits, label: _Label = None, target_probabilities: _Target = None) -> None:
    """Show every step from one row of logits to the gradient of its loss."""
    target = target_probabilities
    shares = None if target is None else numbers(target.split(","), "--target-probabilities")
    try:
        found = explain_row(numbers(logits, "LOGITS"), label, target_probabilities=shares)
    except SoftxentError as error:
        sys.exit(f"softxent: {error}")
    typer.echo("\n\n".join(text_of(n, step) for n, step in enumerate(steps_of(found), 1)))


def numbers(texts: Sequence[str], name: str) -> list[float]:
    """Return the numbers that `texts` are.

    Raises:
        typer.BadParameter: one is none.
    """
    found = []
    for text in texts:
        try:
            found.append(float(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"'{name}'") from None
    return found


def text_of(n: int, step: Step) -> str:
    """Return one step as lines of text, its columns aligned."""
    lines = [f"{n}. {step.title}: {step.formula}"]
    if step.lines:
        lines += _aligned([step.header, *step.lines])
    if step.remark:
        lines.append(f"   {step.remark.removeprefix('; ')}")
    return "\n".join(lines)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "   "
        + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
