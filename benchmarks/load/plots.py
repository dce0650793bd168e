"""Plots as SVG that stands in a page: nothing is fetched, nothing runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 40
COLOURS = ("#1f6feb", "#d1480f", "#2a8f4f", "#8250df", "#6e7781")
TICKS = 5

Points = Sequence[tuple[float, float]]


def plot(title: str, x: str, y: str, lines: Mapping[str, Points], *, log: bool = False) -> str:
    """Return a plot of some lines; `log` draws y, which has to be positive, in decades."""
    kept = {
        name: [(a, b) for a, b in points if math.isfinite(b) and (b > 0 or not log)]
        for name, points in lines.items()
    }
    across = [a for points in kept.values() for a, _ in points] or [0.0, 1.0]
    up = [b for points in kept.values() for _, b in points] or [1.0]
    floor = min(up) if log else 0.0
    axis_x = _Axis(min(across), max(across), LEFT, WIDTH - RIGHT)
    axis_y = _Axis(floor, max(up), HEIGHT - BOTTOM, TOP, log=log)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>',
        *(_across(axis_y, value) for value in axis_y.ticks()),
        *(_mark(axis_x, value) for value in axis_x.ticks()),
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x)}</text>',
        f'<text x="6" y="{TOP - 2}">{escape(y)}</text>',
        *(_line(n, points, axis_x, axis_y) for n, points in enumerate(kept.values())),
        *(_legend(number, name) for number, name in enumerate(kept)),
        "</svg>",
    ]
    return "".join(parts)


class _Axis:
    """Where values lie between two pixels."""

    def __init__(
        self, low: float, high: float, first: float, last: float, *, log: bool = False
    ) -> None:
        self._log = log
        self._low, self._high = self._scaled(low), self._scaled(high)
        if self._low == self._high:
            self._high = self._low + 1.0
        self._first, self._last = first, last

    def place(self, value: float) -> float:
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return round(self._first + share * (self._last - self._first), 1)

    def ticks(self) -> list[float]:
        steps = [self._low + n * (self._high - self._low) / (TICKS - 1) for n in range(TICKS)]
        return [10**step if self._log else step for step in steps]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _across(axis: _Axis, value: float) -> str:
    y = axis.place(value)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>'
    )


def _mark(axis: _Axis, value: float) -> str:
    return (
        f'<text x="{axis.place(value)}" y="{HEIGHT - 22}" text-anchor="middle">{value:.3g}</text>'
    )


def _line(number: int, points: Points, axis_x: _Axis, axis_y: _Axis) -> str:
    colour = COLOURS[number % len(COLOURS)]
    if len(points) == 1:
        a, b = points[0]
        return f'<circle cx="{axis_x.place(a)}" cy="{axis_y.place(b)}" r="3" fill="{colour}"/>'
    places = " ".join(f"{axis_x.place(a)},{axis_y.place(b)}" for a, b in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _legend(number: int, name: str) -> str:
    x, colour = WIDTH - RIGHT - 110 * (number + 1), COLOURS[number % len(COLOURS)]
    return (
        f'<rect x="{x}" y="9" width="10" height="10" fill="{colour}"/>'
        f'<text x="{x + 14}" y="18">{escape(name)}</text>'
    )
