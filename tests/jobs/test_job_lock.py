"""One runner an id, on one machine; with PostgreSQL tests/parts has the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from softxent_service.jobs.lock import Lock


def test_an_id_is_taken_once_until_it_is_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    first, second, other = Lock(url, "a"), Lock(url, "a"), Lock(url, "b")
    assert first.take()
    assert first.take()
    assert not second.take()
    assert other.take()
    first.release()
    assert second.take()
    second.release()
    other.release()


def test_it_dies_with_its_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    code = (
        "import os, sys; from softxent_service.jobs.lock import Lock;"
        "assert Lock(sys.argv[1], 'a').take(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, url], check=False)
    again = Lock(url, "a")
    assert again.take()
    again.release()
