"""Real parts as processes: PostgreSQL, SeaweedFS, a Dask scheduler, workers, a runner, services.

Each can be killed and started again where it was. All bind to 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from obstore.exceptions import BaseError
from obstore.store import S3Store

SECONDS = 60
"""Longest wait for a part to be there; a killed SeaweedFS takes 17."""

KEY, SECRET = "softxent", "softxent-secret"
BUCKET = "arrays"
CLI = (sys.executable, "-m", "softxent_service.cli")


def free_port(offset: int = 0) -> int:
    """Return a port that is free, and so is the one `offset` above it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        if port + offset < 65536:
            with socket.socket() as other:
                if other.connect_ex(("127.0.0.1", port + offset)):
                    return port


def wait_for(ask: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass
class Part:
    """A process, started again in the same place whenever it was killed."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                cwd=self.folder,
            )
        wait_for(self._is_ready, f"{self.name} ready; {self.log}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
        return self.ready()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Postgres(Part):
    """PostgreSQL 15 in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.binaries = Path(
            subprocess.run(
                ["pg_config", "--bindir"], capture_output=True, text=True, check=True
            ).stdout.strip()
        )
        self.port = free_port()
        self.data = folder / "postgres"
        self.data.mkdir()
        shutil.chown(self.data, "postgres", "postgres")
        password = self.data / "password"
        password.write_text("secret")
        shutil.chown(password, "postgres", "postgres")
        place = self.data / "data"
        subprocess.run(
            [
                str(self.binaries / "initdb"),
                "-A",
                "scram-sha-256",
                f"--pwfile={password}",
                "--no-sync",
                # What Debian makes where no locale is set: a database that knows no encoding.
                "--encoding=SQL_ASCII",
                "--locale=C",
                "-D",
                str(place),
            ],
            check=True,
            capture_output=True,
            user="postgres",
            group="postgres",
            extra_groups=[],
            cwd=self.data,
        )
        options = ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port), "-k", str(self.data)]
        super().__init__(
            "postgres",
            [str(self.binaries / "postgres"), "-D", str(place), *options],
            self._takes,
            folder,
            user="postgres",
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres:secret@127.0.0.1:{self.port}/postgres"

    def _takes(self) -> bool:
        command = [str(self.binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(command, check=False).returncode == 0

    def kill(self) -> None:
        """Stop at once, as a crash: the whole of it, not the first process alone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()


class SeaweedFS(Part):
    """An object store."""

    def __init__(self, folder: Path) -> None:
        data = folder / "weed"
        data.mkdir()
        ports = {name: free_port(10000) for name in ("master", "volume", "filer", "s3")}
        identity = {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        self.port, self._filer = ports["s3"], ports["filer"]
        weed = shutil.which(
            "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        assert weed, "weed is missing: make test-parts installs it"
        command = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={ports['master']}", f"-volume.port={ports['volume']}"]
        command += ["-filer", f"-filer.port={ports['filer']}", "-s3", f"-s3.port={self.port}"]
        # 0: no catalogues of tables, whose ports are the same in every run.
        command += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-master.volumeSizeLimitMB=256", "-volume.max=20"]
        super().__init__("seaweedfs", command, self._takes, folder)
        self._has_object = False

    @property
    def environment_of_clients(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def _takes(self) -> bool:
        """Whether objects can be read and written: after a kill it answers 500 for some seconds."""
        try:
            made = httpx.post(f"http://127.0.0.1:{self._filer}/buckets/{BUCKET}/", timeout=5)
            return made.status_code in (201, 409) and self._keeps_an_object()
        except (httpx.TransportError, BaseError):
            return False

    def _keeps_an_object(self) -> bool:
        """Read what was written before a kill, and write it again."""
        store = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        if self._has_object:
            store.get("ready").bytes()
        store.put("ready", b"yes")
        self._has_object = True
        return bytes(store.get("ready").bytes()) == b"yes"


def scheduler(folder: Path) -> tuple[Part, str]:
    port = free_port()
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    return Part("scheduler", command, lambda: answers(port), folder), f"tcp://127.0.0.1:{port}"


def worker(folder: Path, number: int, address: str, environment: dict[str, str]) -> Part:
    command = [*CLI, "worker", f"--dask-scheduler={address}", "--threads=1", "--log-level=debug"]
    part = Part(f"worker{number}", command, lambda: True, folder, environment)
    part.ready = lambda: "threads for tcp://" in _last(part.log)
    return part


def _last(log: Path) -> str:
    return log.read_text()[-2000:] if log.exists() else ""


def runner(
    folder: Path, database: str, roots: str, address: str | None, environment: dict[str, str]
) -> Part:
    command = [*CLI, "runner", f"--database={database}", f"--roots={roots}", "--threads=1"]
    command += [f"--data={folder}"] + ([f"--dask-scheduler={address}"] if address else [])
    part = Part("runner", command, lambda: True, folder, environment)
    part.ready = lambda: "takes jobs" in _last(part.log)
    return part


class Api(Part):
    """`softxent serve` that only takes jobs."""

    def __init__(
        self,
        folder: Path,
        database: str,
        roots: str,
        environment: dict[str, str],
        block_bytes: int,
        runs: str = "elsewhere",
    ) -> None:
        self.port = free_port()
        command = [*CLI, "serve", f"--port={self.port}", f"--database={database}"]
        command += [f"--roots={roots}", f"--job-runner={runs}", f"--block-bytes={block_bytes}"]
        command += [f"--data={folder}"]
        super().__init__("api", command, self._takes, folder, environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _takes(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


_BLOCK = re.compile(r"^(\S+ \S+) DEBUG (\S+) block (\d+) (begins|committed)$", re.MULTILINE)


def computed_twice(folder: Path, output: str) -> list[int]:
    """Return the blocks that some worker began after one had committed them."""
    found = []
    for log in folder.glob("*.log"):
        found += _BLOCK.findall(log.read_text())
    committed: dict[int, str] = {}
    twice = []
    for at, place, block, what in sorted(found):
        if not place.endswith(output):
            continue
        if what == "committed":
            committed.setdefault(int(block), at)
        elif int(block) in committed:
            twice.append(int(block))
    return twice
