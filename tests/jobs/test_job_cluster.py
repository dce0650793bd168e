"""The threads that jobs run on, where no scheduler is named."""

from __future__ import annotations

import importlib

import pytest

from softxent_service.jobs.cluster import Cluster, ClusterLostError


def test_nothing_listens_but_on_this_machine(cluster: Cluster) -> None:
    cluster.client()
    process = importlib.import_module("psutil").Process()
    listening = [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
    assert set(listening) <= {"127.0.0.1"}


def test_a_scheduler_that_is_not_there_is_told() -> None:
    with Cluster("tcp://127.0.0.1:1", 1) as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr("softxent_service.jobs.cluster.CONNECT_SECONDS", 0.3)
        with pytest.raises(ClusterLostError, match=r"no scheduler answers at tcp://127.0.0.1:1"):
            nowhere.client()
