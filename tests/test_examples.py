"""Every example runs against the real service and says what it should."""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import running_service
from softxent_service.keys import new_key

EXAMPLES = Path(__file__).parent.parent / "examples"
OF_JOBS = ("distillation.py", "language_model.py", "ngrams.py")
OF_ADAPTERS = ("torch_distillation.py", "xgboost_smoothing.py")
RUNNERS = {
    ".py": [sys.executable],
    ".sh": ["bash"],
    ".mjs": ["node"],
    ".go": ["go", "run"],
    ".R": ["Rscript"],
}
THERE = sorted(
    file.name
    for file in EXAMPLES.iterdir()
    if file.is_file() and file.name not in ("demo.py", *OF_JOBS, *OF_ADAPTERS)
)
# Python and make are enough here; `make test-operations` wants every language there is one in.
SMALL = [name for name in THERE if shutil.which(RUNNERS[Path(name).suffix][0])]
ONE_FORM = ("client_python.py", "curl.sh")
DEMO_FLAGS = ("--steps", "8", "--rows", "16", "--classes", "1000")


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*RUNNERS[Path(name).suffix], str(EXAMPLES / name), *arguments]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=given)


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    text, kept = new_key("examples", ["evaluate"])
    with running_service(f"--keys={kept.line()}") as url:
        yield url, text


@pytest.mark.parametrize("name", SMALL)
def test_example_runs(name: str, service_url: str) -> None:
    done = run(name, service_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gradient" in done.stdout


@pytest.mark.parametrize("name", SMALL)
def test_example_sends_its_key(name: str, guarded: tuple[str, str]) -> None:
    url, key = guarded
    assert run(name, url).returncode != 0
    done = run(name, url, SOFTXENT_KEY=key)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SMALL)
def test_example_fails_where_there_is_no_service(name: str) -> None:
    assert run(name, "http://127.0.0.1:1").returncode != 0


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ONE_FORM])
def test_forms_of_an_example_agree(name: str, service_url: str) -> None:
    lines = run(name, service_url).stdout.splitlines()
    json, binary = (re.findall(r"-?[0-9][0-9.e-]*", line) for line in lines)
    assert [float(number) for number in json] == pytest.approx([float(n) for n in binary])


@pytest.mark.usefixtures("service_url")
def test_demo_starts_a_service_and_ends_it() -> None:
    done = run("demo.py", *DEMO_FLAGS)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r" at http://127\.0\.0\.1:(\d+),", done.stdout)
    assert found is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])))


def test_demo_uses_a_running_service(service_url: str) -> None:
    done = run("demo.py", "--url", service_url, *DEMO_FLAGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"at {service_url}," in done.stdout
    assert done.stdout.count("agrees") == 4
    assert "\x1b" not in done.stdout


def test_demo_learns(service_url: str) -> None:
    flags = ("--steps", "100", "--rows", "16", "--classes", "1000")
    done = run("demo.py", "--url", service_url, *flags)
    held_out = re.search(r"([0-9.]+)% right of 450 images held out", done.stdout)
    assert held_out is not None, done.stdout + done.stderr
    assert float(held_out[1]) > 90


def test_demo_says_that_no_service_answers() -> None:
    done = run("demo.py", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: no complete answer from the service")


def test_demo_says_what_is_wrong_with_a_flag() -> None:
    done = run("demo.py", "--steps", "0")
    assert done.returncode == 2
    assert "--steps" in done.stderr


def test_language_models_are_evaluated() -> None:
    done = run("language_model.py", "3")
    assert (done.returncode, done.stderr) == (0, "")
    order, loss, _, perplexity, accuracy, _ = done.stdout.splitlines()[-1].split()
    assert order == "3"
    assert float(perplexity) == pytest.approx(math.exp(float(loss)), rel=1e-3)
    assert 2 < float(perplexity) < 15
    assert 0.3 < float(accuracy) < 0.9


def test_a_student_is_distilled() -> None:
    done = run("distillation.py", "--steps", "2")
    assert (done.returncode, done.stderr) == (0, "")
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", done.stdout)]
    assert losses[1] < losses[0]
    assert "gradient (4000, " in done.stdout
