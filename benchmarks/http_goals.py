"""Goals, and whether the figures reach them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tables import print_table
from timing import against


@dataclass
class Goals:
    """What is aimed at, held against what was measured."""

    rows: list[list[str]] = field(default_factory=list)

    def at_most(
        self, what: str, ratio: float, goal: float | None, moonshot: float | None = None
    ) -> None:
        """Note a ratio that is to be at most its goal."""
        self._note(what, ratio, goal, moonshot, at_most=True)

    def at_least(
        self, what: str, ratio: float, goal: float | None, moonshot: float | None = None
    ) -> None:
        """Note a ratio that is to be at least its goal."""
        self._note(what, ratio, goal, moonshot, at_most=False)

    def _note(
        self, what: str, ratio: float, goal: float | None, moonshot: float | None, *, at_most: bool
    ) -> None:
        beyond = "" if moonshot is None else against(ratio, moonshot, at_most=at_most)
        self.rows.append([what, against(ratio, goal, at_most=at_most), beyond])

    def print(self) -> None:
        """Print them all."""
        print_table("Goals", ["figure", "measured (goal)", "moonshot"], self.rows)
