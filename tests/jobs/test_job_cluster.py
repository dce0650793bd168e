"""The threads that jobs run on, where no scheduler is named."""

from __future__ import annotations

import gc
import importlib
import threading
from typing import Any

import pytest

from softxent_service.jobs.cluster import Cluster, ClusterLostError


def test_nothing_listens_but_on_this_machine(cluster: Cluster) -> None:
    cluster.client()
    process = importlib.import_module("psutil").Process()
    listening = [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
    assert set(listening) <= {"127.0.0.1"}


def test_a_scheduler_that_is_not_there_is_told_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with Cluster("tcp://127.0.0.1:1", 1) as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr("softxent_service.jobs.cluster.CONNECT_SECONDS", 0.3)
        with pytest.raises(ClusterLostError, match=r"no scheduler answers at tcp://127.0.0.1:1"):
            nowhere.client()
    # Those that Dask has once for all of a process stay.
    new = [t for t in threading.enumerate() if t not in before and not t.name.startswith("Dask-")]
    for thread in new:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in new)


def test_a_loop_that_stopped_tells_nothing_of_what_is_left_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Cluster(None, 1) as cluster:
        client: Any = cluster.client()
        left = [each.loop.asyncio_loop.create_future() for each in (client, client.cluster)]
    for future in left:
        future.set_exception(TimeoutError("Timeout"))
    del left, future
    gc.collect()
    assert "never retrieved" not in caplog.text
