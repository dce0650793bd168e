"""Files of deploy/ as HAProxy and Prometheus see them; nothing is started."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from containers import ROOT, run

DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"


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
