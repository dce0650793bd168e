"""What docs/operations.md promises is what the code does: each of its tables, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softxent_service.http.middleware.authentication import OPEN, access
from softxent_service.http.openapi.document import REFUSALS
from softxent_service.keys import SCOPES
from softxent_service.settings import Settings
from softxent_service.telemetry.metrics import METRICS
from softxent_service.telemetry.record import CUT, CUT_STATUS, GONE, STAGES, Record
from softxent_service.telemetry.request_log import MOST_WAITING, event_of
from test_readme import README
from test_readme import table as table_of_readme

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SETTINGS = {f"SOFTXENT_{name.upper()}": field for name, field in Settings.model_fields.items()}
SUFFIX = {"counter": "_total", "gauge": "", "histogram": ""}


def table(first: str) -> list[list[str]]:
    """The rows of the table whose header begins with `first`, without the marks of code."""
    lines = DOCUMENT[DOCUMENT.index(f"| {first} |") :].splitlines()
    rows = lines[2 : lines.index("")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def plain(cell: str) -> str:
    return cell.replace("`", "")


def test_every_setting_with_its_meaning() -> None:
    shown = {plain(name): text for name, text in table("setting")}
    assert list(shown) == list(SETTINGS)
    for name, text in shown.items():
        assert plain(text) == (SETTINGS[name].description or "").replace("`", ""), name


def test_every_setting_named_anywhere_is_one() -> None:
    for text in (DOCUMENT, README):
        assert set(re.findall(r"SOFTXENT_[A-Z_]+[A-Z]", text)) <= {*SETTINGS, "SOFTXENT_KEY"}


def test_every_metric_with_its_labels_and_text() -> None:
    wanted = [
        [
            f"{name}{SUFFIX[metric.kind]}",
            metric.kind,
            ", ".join(metric.labels) or "none",
            metric.text,
        ]
        for name, metric in METRICS.items()
    ]
    assert [[plain(cell) for cell in row] for row in table("metric")] == wanted


def test_every_field_of_a_line() -> None:
    whole = Record({"headers": []})
    whole.dtype, whole.problem, whole.key, whole.trace_id = "float32", "p", "k", "t"
    assert {plain(row[0]) for row in table("field")} == set(event_of(whole))
    assert f"{MOST_WAITING:,} wait" in DOCUMENT
    assert "`, `".join(STAGES[:-1]) in DOCUMENT


def test_every_limit_is_a_setting_and_its_answer_a_refusal() -> None:
    named = {plain(row[1]) for row in table("limit")}
    assert named <= set(SETTINGS)
    assert {int(row[2]) for row in table("limit")} <= set(REFUSALS)
    bounded = {name for name in SETTINGS if re.search("BYTES|TENSORS|DEPTH|TIMEOUT|QUEUE", name)}
    assert bounded - {"SOFTXENT_KEPT_BYTES", "SOFTXENT_BLOCK_BYTES"} <= named


def test_every_refusal_with_its_status() -> None:
    wanted = {row[0]: row[1] for row in table_of_readme("problem")}
    shown = {plain(row[0]): row[1] for row in table("reason")}
    # Nobody is there to be told, but it is counted.
    assert shown.pop(GONE) == shown.pop(CUT) == str(CUT_STATUS)
    assert shown == wanted


@pytest.mark.parametrize(("paths", "scope"), [(row[0], plain(row[1])) for row in table("path")])
def test_every_path_and_its_scope(paths: str, scope: str) -> None:
    named = ["unmatched"] if "no route" in paths else re.findall(r"`([^`]+)`", paths)
    for path in named or ["/v1/softmax"]:
        assert access(path.replace("...", "")) == (OPEN if scope.startswith("none") else scope)
    assert scope in (*SCOPES, "any") or scope.startswith("none")
