"""A connection belongs to one process: clients over fork, forkserver and spawn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import cases
from relay import relay_before

PROGRAM = Path(__file__).parent / "forked.py"


def run(case: str, url: str) -> None:
    command = [sys.executable, "-W", "error", str(PROGRAM), case, url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("case", [case.__name__ for case in cases()])
def test_each_process_gets_its_own_answers(case: str, service_url: str) -> None:
    run(case, service_url)


def test_a_childs_close_leaves_the_parents_connection_open(service_url: str) -> None:
    with relay_before(service_url) as relay:
        run("closed_by_the_child", relay.url)
        # The parent's, and that of the child which called.
        assert len(relay.clients) == 2
