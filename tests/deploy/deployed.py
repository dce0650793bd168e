"""The image and the stack, made once for all tests that start something: fixtures, as a plugin."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import figures
import pytest
from containers import Containers
from stack import Stack, started

FOLDER = Path(os.environ.get("SOFTXENT_CONTAINERS", "/var/tmp/softxent-containers"))
"""Not below a test's own folder: the base images are worth keeping."""


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    made = Containers(FOLDER)
    made.clear()
    made.build_softxent()
    yield made
    made.clear()
    figures.write()


@pytest.fixture(scope="session")
def stack(containers: Containers) -> Iterator[Stack]:
    containers.build_parts()
    # Not below pytest's own, which another run of pytest closes to the containers' users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with started(containers, folder / "secrets") as running:
            yield running
