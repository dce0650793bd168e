"""Load on a service whose certificate is signed by an authority of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service_process import Service
from softxent_client import Client
from softxent_client.jobs import Jobs

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@dataclass(frozen=True)
class Https:
    """Where the service is, and the file of its authority."""

    url: str
    authority: Path


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Make an authority, and a certificate that it has signed."""
    new = ("-newkey", "rsa:2048", "-nodes")
    made = ("-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=softxent test")
    openssl(folder, "req", "-x509", *new, *made)
    openssl(folder, "req", *new, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=here")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(folder, "x509", "-req", "-in", "request.pem", *signing, "-out", "cert.pem")


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Https]:
    folder = tmp_path_factory.mktemp("https")
    make_certificates(folder)
    tls = (f"--tls-certificate={folder}/cert.pem", f"--tls-key={folder}/key.pem")
    service = Service(*tls, f"--data={folder}/data")
    try:
        url = service.wait_for(r"softxent on (https://\S+),")[1]
        service.wait_for("ready: ")
        yield Https(url, folder / "ca.pem")
        assert service.end() == 0
    finally:
        service.clear()


def run_load(url: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "load", url, "--seconds=1", *flags]
    given = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=BENCHMARKS, env=given
    )


@pytest.mark.parametrize("client", ["httpx", "raw"])
def test_every_answer_is_right(https: Https, client: str) -> None:
    mix = "--mix=1x10:json,400x1000:binary"
    done = run_load(https.url, mix, f"--ca={https.authority}", f"--client={client}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "holds  every answer holds the library's bits (0 wrong)" in done.stdout
    assert "failed: none" in done.stdout


def test_the_authority_may_be_that_of_the_environment(https: Https) -> None:
    done = run_load(https.url, "--mix=1x10:json", SSL_CERT_FILE=str(https.authority))
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_authority_that_is_not_known_is_told(https: Https) -> None:
    done = run_load(https.url)
    assert done.returncode == 1
    assert "is not ready: [SSL: CERTIFICATE_VERIFY_FAILED]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_file_that_names_no_authority(https: Https, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = run_load(https.url, f"--ca={file}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"load: {file}: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_clients_believe_the_authority_of_the_environment(
    https: Https, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Client(https.url).health()
    monkeypatch.setenv("SSL_CERT_FILE", str(https.authority))
    with Client(https.url) as client, Jobs(https.url) as jobs:
        assert client.health()
        assert jobs.list() == {"jobs": [], "next": None}
