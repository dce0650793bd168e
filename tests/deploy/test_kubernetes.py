"""The Deployment of one node, started by Podman."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from calls import JSON, PATH
from containers import IMAGE, Containers
from manifests import rendered
from parts_support import free_port, wait_for

from softxent_service.keys import new_key


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
