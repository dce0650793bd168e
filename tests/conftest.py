"""The real service, for every test that calls it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from service_process import Service
from softxent_service.jobs.cluster import Cluster
from softxent_service.runtime_tuning import processors, tell_numba

# The library here and the services share machine code, instead of compiling it for two targets.
tell_numba(os.environ, processors())

settings.register_profile(
    "many", max_examples=int(os.environ.get("PROOF_EXAMPLES", 10_000)), deadline=None
)


def pytest_configure(config: pytest.Config) -> None:
    """Compile once, before there are workers that would each do it."""
    if not hasattr(config, "workerinput"):
        from softxent.serving import warm_up

        warm_up()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_service(*flags: str, port: int = 0) -> Iterator[str]:
    """Start `softxent serve`, on a free port; yield its URL once ready; expect a clean end."""
    service = Service(*flags, f"--port={port}")
    try:
        yield service.ready_url()
        assert service.end() == 0
        assert "Traceback" not in service.log()
    finally:
        service.clear()


@pytest.fixture(scope="session")
def service_url() -> Iterator[str]:
    with running_service() as url:
        yield url


@pytest.fixture(scope="session")
def small_service_url() -> Iterator[str]:
    """A service whose limits are a few bytes, and which waits for its clients for a moment only."""
    flags = ("--json-bytes=200", "--binary-bytes=400", "--header-bytes=250", "--tensors=2")
    waits = ("--body-idle-seconds=0.3", "--keep-alive-seconds=2")
    with running_service(*flags, *waits, "--request-head-bytes=2048") as url:
        yield url


@pytest.fixture(scope="session")
def strained_service_url() -> Iterator[str]:
    """A service that holds 12 MiB, evaluates one large call at a time and lets one wait."""
    flags = (f"--memory-bytes={12 << 20}", "--max-concurrent-calls=1", "--max-queued-calls=1")
    with running_service(*flags) as url:
        yield url


@pytest.fixture(scope="session")
def shared_memory_url() -> Iterator[str]:
    """A service that clients may share memory with, and that answers below /base as well."""
    with running_service("--shared-memory", "--base-path=/base") as url:
        yield url


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Threads of this process, for jobs that run in it.

    They end with the module: Dask's draw random numbers, which Hypothesis takes for a strategy's.
    """
    with Cluster(None, 2) as made:
        yield made


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Starts services of a test's own, and ends what it leaves running."""
    services: list[Service] = []

    def one_more(*flags: str, **rest: object) -> Service:
        services.append(Service(*flags, **rest))  # type: ignore[arg-type]
        return services[-1]

    yield one_more
    for service in services:
        service.clear()
