"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from load.figures import BUSY_CLIENT, QUANTILES, Figures, Objective, by_case, figures
from load.loops import Load
from load.plots import plot

WINDOWS = 60
"""Points of a curve over time."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 780px; margin: 2rem auto; padding: 0 1rem;
  color: #1f2328; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #d0d7de; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; margin: .6rem 0; } svg text { font-size: 11px; fill: #57606a; }
svg .title { font-size: 13px; fill: #1f2328; } svg .grid { stroke: #eaeef2; }
.holds { color: #1a7f37; } .missed { color: #cf222e; font-weight: 600; }
"""


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked for, what was found, and whether that will do."""

    asked: str
    found: str
    holds: bool

    @property
    def word(self) -> str:
        """Return what is said of it."""
        return "holds" if self.holds else "missed"


def verdicts(objectives: Iterable[Objective], found: Figures) -> list[Verdict]:
    """Return what became of objectives, and of the one that is always asked for."""
    stated = [
        Verdict(goal.text, f"{found.value(goal.name):.4g}", goal.holds(found))
        for goal in objectives
    ]
    wrong = found.failures.get("wrong bits", 0)
    return [*stated, Verdict("every answer holds the library's bits", f"{wrong} wrong", not wrong)]


def windows(load: Load) -> dict[str, list[tuple[float, float]]]:
    """Return p50 and p99 in milliseconds, and answers a second, over the time of a run."""
    edges = np.linspace(0, load.seconds, WINDOWS + 1)
    places = np.searchsorted(edges, [sample.intended for sample in load.samples], side="right") - 1
    curves: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": [], "answers": []}
    for number in range(WINDOWS):
        inside = [load.samples[i] for i in np.flatnonzero(places == number)]
        if not inside:
            continue
        found, middle = figures(inside, edges[1]), float(edges[number] + edges[1] / 2)
        curves["p50"].append((middle, found.latency["p50"] * 1e3))
        curves["p99"].append((middle, found.latency["p99"] * 1e3))
        curves["answers"].append((middle, found.rate))
    return curves


def spectrum(load: Load) -> list[tuple[float, float]]:
    """Return latency in milliseconds by how many of ten, a hundred and so on are no slower."""
    latencies = [sample.latency for sample in load.samples if not sample.failure]
    if not latencies:
        return []
    nines = np.linspace(0, np.log10(len(latencies) + 1), 60)
    values = np.quantile(latencies, 1 - 10.0**-nines)
    return [(float(nine), float(value) * 1e3) for nine, value in zip(nines, values, strict=True)]


def table(found: Mapping[str, Figures]) -> str:
    """Return the figures of several things as rows."""
    names = [*QUANTILES, "max"]
    head = ["", "requests", "answers/s", *(f"{name}, ms" for name in names), "failed"]
    rows = [
        [name, f"{f.requests:,}", f"{f.rate:,.1f}"]
        + [f"{f.latency[quantile] * 1e3:,.2f}" for quantile in names]
        + [", ".join(f"{count} {what}" for what, count in f.failures.items()) or "0"]
        for name, f in found.items()
    ]
    return _html_table(head, rows)


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{body}</table>"


def limits_of_the_client(load: Load, found: Figures) -> str:
    """Say whether the client, and not the service, was what was measured."""
    share = f"The client took {load.client_share:.0%} of a processor"
    late = f"99 % of requests were sent within {found.late * 1e3:.2f} ms of their time"
    if load.client_share < BUSY_CLIENT:
        return f"{share}; {late}."
    return (
        f"{share}, so that it is the client that was measured, and the service can do more; {late}."
    )


def page(title: str, load: Load, judged: Sequence[Verdict], more: Sequence[str] = ()) -> str:
    """Return the report as HTML; `more` plots follow the usual ones."""
    whole = figures(load.samples, load.seconds)
    curves = windows(load)
    answers = {"right": curves.pop("answers")}
    verdict_rows = "".join(
        f"<tr><td>{escape(v.asked)}</td><td>{escape(v.found)}</td>"
        f'<td class="{v.word}">{v.word}</td></tr>'
        for v in judged
    )
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, client on {platform.platform()}"
    return "".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(made)}.</p>",
            f"<table><tr><th>asked for</th><th>found</th><th></th></tr>{verdict_rows}</table>",
            table({"all": whole, **by_case(load)}),
            f"<p>Latency counts from when a request was to be sent. "
            f"{escape(limits_of_the_client(load, whole))}</p>",
            plot("Latency over time", "s", "ms", curves, log=True),
            plot("Answers a second", "s", "1/s", answers),
            plot("Latency by share", "nines", "ms", {"all": spectrum(load)}, log=True),
            *more,
            "</html>",
        ]
    )


def write(path: Path, text: str) -> None:
    """Write a report, and say where."""
    path.write_text(text, encoding="utf-8")
    print(f"load: report in {path}")
