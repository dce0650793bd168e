"""Figures that the tests measure on their way, written into the runbook where that is asked for."""

from __future__ import annotations

import os

from containers import ROOT

RUNBOOK = ROOT / "deploy" / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
_FIGURES: dict[str, str] = {}


def figure(name: str, value: str) -> None:
    """Keep a figure, and print it."""
    _FIGURES[name] = value
    print(f"figure: {name}: {value}")  # noqa: T201


def table() -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in _FIGURES.items())
    return f"| what | measured |\n| --- | --- |\n{rows}"


def write() -> None:
    """Put the table between its marks; only WRITE_FIGURES=1 asks for that."""
    if os.environ.get("WRITE_FIGURES") != "1" or not _FIGURES:
        return
    before, _, rest = RUNBOOK.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    RUNBOOK.write_text(f"{before}{BEGIN}{table()}{END}{after}")
