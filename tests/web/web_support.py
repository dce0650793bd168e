"""What the tests of every view ask of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

AXE = (Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js").read_text()

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def assert_accessible(page: Page) -> None:
    """Check that axe finds nothing."""
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate("rules => axe.run(document, rules)", RULES)
    shown = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in found["violations"]
    ]
    assert not shown, shown
    assert len(found["passes"]) > 20


def number(text: str) -> float:
    """Return the number that a page shows."""
    return float(text.replace("−", "-").replace("∞", "inf"))


def plain(text: str) -> str:
    """Return digits with the minus sign that Python writes."""
    return text.replace("−", "-")
