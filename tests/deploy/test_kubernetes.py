"""What kustomize makes of the overlays: valid strictly, restricted, and one of them started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from calls import JSON, PATH
from containers import IMAGE, ROOT, TOOLS, Containers, run
from parts_support import free_port, wait_for

from softxent_service.keys import new_key

OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
VERSION = "1.33"
OPERATORS = "monitoring.coreos.com"
Document = dict[str, Any]


def rendered(overlay: str) -> list[Document]:
    text = run(TOOLS / "kubectl", "kustomize", OVERLAYS / overlay)
    return list(yaml.safe_load_all(text))


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


def test_podman_plays_the_single_node(containers: Containers, tmp_path: Path) -> None:
    """The Deployment, its ConfigMap and its claim really start; only image and port are another."""
    text, kept = new_key("caller", ["evaluate"])
    port = free_port()
    played = [d for d in rendered("single-node") if d["kind"] in ("ConfigMap", "Deployment")]
    for document in played:
        if document["kind"] == "ConfigMap":
            document["data"]["keys"] = kept.line()
        else:
            (container,) = document["spec"]["template"]["spec"]["containers"]
            container |= {"image": IMAGE, "imagePullPolicy": "Never"}
            container["ports"][0] |= {"hostPort": port, "hostIP": "127.0.0.1"}
    (tmp_path / "all.yaml").write_text("\n---\n".join(map(json.dumps, played)))
    containers.podman("play", "kube", str(tmp_path / "all.yaml"))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answered(url, text) == 200, "the Deployment answers")
        assert answered(url, "another") == 401
    finally:
        containers.podman("play", "kube", "--down", str(tmp_path / "all.yaml"))


def answered(url: str, key: str) -> int:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        return httpx.post(url + PATH, content=JSON, headers=headers).status_code
    except httpx.TransportError:
        return 0
