"""Words of the project: names are terms of the field, and docstrings begin as CONTRIBUTING says."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels/softxent", "service/softxent_client", "service/softxent_service")

PRIVATE = {
    "ahead": "precompile",
    "Arrival": "BodyBuffer",
    "Budget": "MemoryBudget",
    "curvature": "hessian",
    "descriptions": "row_statistics",
    "Direct": "FastPath",
    "Draining": "ShutdownMiddleware",
    "Evaluating": "Evaluator",
    "exposure": "access",
    "folding": "lane_reductions",
    "front": "api",
    "Gate": "ConcurrencyLimiter",
    "Joining": "CoalescingTransport",
    "look_at": "validate",
    "narrow": "cast_down",
    "Pace": "RateLimit",
    "patience": "deadline",
    "Patience": "Deadline",
    "Question": "EvaluationRequest",
    "refuse_illegal": "check_compatible",
    "Reservation": "MemoryReservation",
    "running": "execute",
    "sharding": "blockwise",
    "told": "to_json",
    "Turns": "TimeSlices",
    "Watching": "TelemetryMiddleware",
    "weighing": "validate",
    "widen": "to_float64",
}
"""Words that mean something in this project alone, and what the field calls it."""

QUESTIONS = "Before|Everything|From|How|Lets|That|Those|What|When|Where|Whether|Which|Who|Why"
"""A noun phrase begins with none of these."""

VERBS = "Answers|Assembles|Compiles|Documents|Keeps|Makes|Puts|Reads|Runs|Says|Sends|Takes|Unpacks"


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name.endswith(".py")]


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that others read: of classes, functions and arguments."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_uses_the_words_of_the_field(path: Path) -> None:
    tree = ast.parse(path.read_text())
    declared = {name.lstrip("_") for name in names_in(tree)} | {path.stem.lstrip("_")}
    private = {word: PRIVATE[word] for word in declared & PRIVATE.keys()}
    assert not private, f"write these words instead: {private}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_classes_begin_with_their_responsibility(path: Path) -> None:
    """The first line is a noun phrase: "Concurrency limiter ...", not "Who gets the kernels"."""
    tree = ast.parse(path.read_text())
    documented: list[ast.Module | ast.ClassDef] = [tree]
    documented += [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in documented:
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        assert not re.match(rf"({QUESTIONS}|{VERBS})\b", first), first
