"""Files of deploy/ as tools from Python's package index see them; nothing is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from containers import PARTS, ROOT, TOOLS, run
from manifests import Document, rendered

DEPLOY = ROOT / "deploy"
RUNBOOK = (DEPLOY / "README.md").read_text()
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
VERSION = "1.33"
OPERATORS = "monitoring.coreos.com"


def pods(overlay: str) -> Iterator[Document]:
    for document in rendered(overlay):
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", ["single-node", "cluster"])
def test_it_is_valid_strictly(overlay: str, tmp_path: Path) -> None:
    own = [d for d in rendered(overlay) if not d["apiVersion"].startswith(OPERATORS)]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(own))
    said = run(
        TOOLS / "kubernetes-validate",
        "--strict",
        f"--kubernetes-version={VERSION}",
        tmp_path / "all.yaml",
    )
    assert said.count("passed") == len(own)


@pytest.mark.parametrize("overlay", ["single-node", "cluster"])
def test_every_pod_keeps_to_the_restricted_profile(overlay: str) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["resources"]["limits"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_names_that_parts_know_each_other_by_exist() -> None:
    documents = rendered("cluster")
    ports = {
        (d["metadata"]["name"], p["name"])
        for d in documents
        if d["kind"] == "Service"
        for p in d["spec"].get("ports", ())
    }
    (monitor,) = (d for d in documents if d["kind"] == "ServiceMonitor")
    assert ("softxent", monitor["spec"]["endpoints"][0]["port"]) in ports
    (settings,) = (d for d in documents if d["metadata"]["name"].startswith("softxent-jobs"))
    scheduler = settings["data"]["SOFTXENT_DASK_SCHEDULER"]
    assert scheduler == "tcp://softxent-scheduler:8786"
    assert ("softxent-scheduler", "dask") in ports


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", PARTS / "Dockerfile"], ids=str)
def test_hadolint_finds_nothing(path: Path) -> None:
    assert run(TOOLS / "hadolint", path) == ""


def test_every_alert_has_a_test_and_a_word_in_the_runbook() -> None:
    tests = (DEPLOY / "prometheus" / "tests.yml").read_text()
    for alert in ALERTS:
        assert tests.count(f"alertname: {alert}") == 2, alert
        assert f"| `{alert}` |" in RUNBOOK, alert


def test_the_dashboard_has_unique_panels_on_a_grid() -> None:
    panels = json.loads((DEPLOY / "grafana" / "softxent.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
