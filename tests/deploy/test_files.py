"""Files of deploy/ as their own tools see them; nothing is started."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from containers import PARTS, ROOT, TOOLS, run

DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RUNBOOK = (DEPLOY / "README.md").read_text()
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", PARTS / "Dockerfile"], ids=str)
def test_hadolint_finds_nothing(path: Path) -> None:
    assert run(TOOLS / "hadolint", path) == ""


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    """It looks names up, so replicas are called localhost here."""
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    (tmp_path / "haproxy.cfg").write_text(re.sub(r"api-(\d):8000", r"127.0.0.\1:8000", text))
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    assert haproxy, "haproxy is not installed"
    run(haproxy, "-c", "-f", tmp_path / "haproxy.cfg")


def test_promtool_takes_rules_and_their_tests_pass(tmp_path: Path) -> None:
    copied = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    run("promtool", "check", "config", "--syntax-only", copied / "prometheus.yml")
    run("promtool", "check", "rules", copied / "rules.yml", copied / "alerts.yml")
    run("promtool", "test", "rules", copied / "tests.yml")


def test_every_alert_has_a_test_and_a_word_in_the_runbook() -> None:
    tests = (PROMETHEUS / "tests.yml").read_text()
    for alert in ALERTS:
        assert tests.count(f"alertname: {alert}") == 2, alert
        assert f"| `{alert}` |" in RUNBOOK, alert


def test_the_dashboard_has_unique_panels_on_a_grid() -> None:
    panels = json.loads((DEPLOY / "grafana" / "softxent.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
