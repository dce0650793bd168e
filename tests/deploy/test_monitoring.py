"""Prometheus of the stack: it finds all, every panel of the dashboard has data, an alert fires."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import numpy as np
import pytest
from calls import PATH, Arrays, Traffic
from containers import ROOT
from parts_support import wait_for
from stack import Stack, container

from softxent_client import Client

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "softxent.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
SCRAPES_SECONDS = 90
"""Rates need two scrapes, 15 s apart, and rules one more round."""


def ask(stack: Stack, query: str) -> list[Any]:
    answer = httpx.get(f"{stack.prometheus}/api/v1/query", params={"query": query}, timeout=30)
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return list(answer.json()["data"]["result"])


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Stack:
    """The stack, when it has been called in every way for as long as rates need."""
    wait_for(lambda: len(ask(stack, 'up{job="softxent"} == 1')) == 2, "both replicas scraped")
    arrays = Arrays(stack, rows=200)
    began = time.monotonic()
    with Client(stack.url, key=stack.secret("client.key")) as client, Traffic(stack, 1):
        while time.monotonic() - began < 45:
            client.cross_entropy(np.zeros((400, 1000), np.float32), np.zeros(400, np.int64))
            httpx.post(stack.url + PATH, json={})
            arrays.submit(f"watched-{time.time_ns()}")
            time.sleep(0.5)
    return stack


@pytest.mark.parametrize("query", QUERIES)
def test_every_panel_has_data(watched: Stack, query: str) -> None:
    wait_for(lambda: ask(watched, query), query, SCRAPES_SECONDS)


def test_no_alert_fires_while_all_is_well(watched: Stack) -> None:
    assert ask(watched, 'ALERTS{alertstate="firing"}') == []


def test_an_alert_fires_for_a_replica_that_is_gone(watched: Stack) -> None:
    watched.containers.podman("stop", "--time=30", container("api-2"))
    down = 'ALERTS{alertname="SoftxentDown",alertstate="firing",instance="api-2:8000"}'
    try:
        wait_for(lambda: ask(watched, down), "SoftxentDown fires", 240)
    finally:
        watched.start("api-2")
    wait_for(lambda: not ask(watched, down), "SoftxentDown ends", 120)
