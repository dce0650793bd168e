"""`softxent job`: a shell and a service that has keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from job_support import batch, save
from typer.testing import CliRunner

from service_process import Service
from softxent_service.job_commands import app
from softxent_service.keys import new_key

COMMAND = (sys.executable, "-m", "softxent_service.cli", "job")


@dataclass(frozen=True)
class Guarded:
    """A service that lets in one key for jobs, and one for something else."""

    url: str
    key: str
    other: str
    arrays: Path

    def job(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `softxent job`; what it prints shows no key."""
        given = {**os.environ, "SOFTXENT_URL": self.url, **environment}
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, env=given
        )
        shown = done.stdout + done.stderr
        assert self.key not in shown
        assert self.other not in shown
        return done

    def submit(self, output: str, *flags: str, **environment: str) -> str:
        """Submit a job and return its id."""
        urls = [f"file://{self.arrays}/{name}.npy" for name in ("logits", "labels")]
        given = (*urls, f"--output=file://{self.arrays}/{output}", *flags)
        done = self.job("submit", *given, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "arrays").mkdir()
    save(folder / "arrays", batch(300, 20))
    key, other = new_key("shell", ["jobs"]), new_key("other", ["evaluate"])
    lines = f"{key[1].line()};{other[1].line()}"
    service = Service(f"--data={folder}", SOFTXENT_KEYS=lines)
    try:
        yield Guarded(service.ready_url(), key[0], other[0], folder / "arrays")
        assert service.end() == 0
    finally:
        service.clear()


def test_every_command_sends_the_key_of_the_environment(guarded: Guarded) -> None:
    given = {"SOFTXENT_KEY": guarded.key}
    job_id = guarded.submit("first", "--idempotency-key=one", **given)
    assert guarded.submit("first", "--idempotency-key=one", **given) == job_id
    watched = guarded.job("watch", job_id, **given)
    assert (watched.returncode, watched.stderr) == (0, "")
    assert "succeeded" in watched.stdout.splitlines()[-1]
    assert json.loads(guarded.job("show", job_id, **given).stdout)["id"] == job_id
    assert job_id in guarded.job("list", "--state=succeeded", **given).stdout
    refused = guarded.job("cancel", job_id, **given)
    assert refused.returncode == 1
    assert "a job that is succeeded cannot cancel" in refused.stderr


def test_a_key_of_a_file_goes_before_that_of_the_environment(
    guarded: Guarded, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{guarded.key}\n")
    assert guarded.job("list", f"--key-file={file}", SOFTXENT_KEY="wrong").returncode == 0
    assert guarded.job("list", SOFTXENT_KEY_FILE=str(file)).returncode == 0


@pytest.mark.parametrize(
    ("after", "told"), [("x", "the key is not known here"), (" x", "key must be printable ASCII")]
)
def test_a_key_that_is_wrong_is_not_shown(guarded: Guarded, after: str, told: str) -> None:
    assert_refused(guarded.job("list", SOFTXENT_KEY=guarded.key + after), told)


def test_who_has_no_key_or_another_is_told_so(guarded: Guarded) -> None:
    for command in (("list",), ("show", "7"), ("watch", "7"), ("cancel", "7")):
        assert_refused(guarded.job(*command, SOFTXENT_KEY=""), "send a key")
    assert_refused(guarded.job("list", SOFTXENT_KEY=guarded.other), "lacks the scope jobs")


def assert_refused(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("softxent: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), ("kéy", "it holds no key"), ("\n", "printable")]
)
def test_a_file_without_a_key_is_named_and_not_shown(
    guarded: Guarded, tmp_path: Path, content: str | None, told: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    refused = guarded.job("list", f"--key-file={file}", SOFTXENT_KEY=guarded.key)
    assert_refused(refused, told)
    assert "é" not in refused.stderr


@pytest.mark.parametrize("command", ["submit", "show", "list", "watch", "cancel"])
def test_help_tells_how_and_no_flag_takes_a_key(command: str) -> None:
    given = {"SOFTXENT_KEY": "not-to-be-shown", "COLUMNS": "80"}
    shown = CliRunner().invoke(app, ["job", command, "--help"], env=given).stdout
    assert "--key-file" in shown
    assert "SOFTXENT_KEY_FILE" in shown
    assert "not-to-be-shown" not in shown
    assert "--key " not in shown
