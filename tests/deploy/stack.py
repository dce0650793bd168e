"""The stack of deploy/compose.yaml, started by podman-compose in the order that it asks for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from containers import IMAGE, PARTS_IMAGE, ROOT, Containers, run
from parts_support import free_port, wait_for

COMPOSE = ROOT / "deploy" / "compose.yaml"
PROJECT = "softxent"
START_SECONDS = 120
ENDS = "service_completed_successfully"


class Stack:
    """Every service of the file; each can be restarted, replaced and killed."""

    def __init__(self, containers: Containers, secrets: Path) -> None:
        self.containers = containers
        self.secrets = secrets
        self.services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
        self.ports = {name: free_port() for name in ("SOFTXENT", "S3", "PROMETHEUS")}
        images = {
            f"{name}_IMAGE": PARTS_IMAGE
            for name in ("HAPROXY", "POSTGRES", "SEAWEEDFS", "PROMETHEUS")
        }
        ports = {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        self.variables = {
            **images,
            **ports,
            "SOFTXENT_IMAGE": IMAGE,
            "SOFTXENT_SECRETS": str(secrets),
            "SOFTXENT_THREADS": "1",
        }
        self.url = f"http://127.0.0.1:{self.ports['SOFTXENT']}"
        self.prometheus = f"http://127.0.0.1:{self.ports['PROMETHEUS']}"
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def compose(self, *arguments: str) -> str:
        command = ["podman-compose", "-f", str(COMPOSE), "--in-pod=false", *arguments]
        return self.containers.run(*command, env=self.variables)

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def up(self) -> None:
        """Start all; podman-compose asks Podman 4.6 for conditions, so they are kept here."""
        run("sh", ROOT / "deploy" / "secrets.sh", self.secrets)
        self._beats.start()
        for name in ordered(self.services):
            for other, wanted in self.services[name].get("depends_on", {}).items():
                self.wait(other, wanted["condition"])
            self.compose("up", "-d", "--no-deps", name)
        for name in ("balancer", "prometheus"):
            wait_for(lambda: self.state(name)["Running"], name)  # noqa: B023
        wait_for(self.ready, "the balancer", START_SECONDS)

    def down(self) -> None:
        self._over.set()
        if self._beats.is_alive():
            self._beats.join()
        self.compose("down", "--volumes", "--timeout=5")

    def wait(self, name: str, condition: str) -> None:
        """Wait for what `depends_on` of another service asks."""
        if condition == ENDS:
            met: Callable[[], bool] = lambda: self.state(name)["Status"] == "exited"  # noqa: E731
        else:
            met = lambda: self.is_healthy(name)  # noqa: E731
        wait_for(met, f"{name}: {condition}", START_SECONDS)
        assert condition != ENDS or self.state(name)["ExitCode"] == 0, self.logs(name)

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200
        return False

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.containers.inspect(container(name))["State"])

    def is_healthy(self, name: str) -> bool:
        return bool(self.state(name)["Health"]["Status"] == "healthy")

    def logs(self, name: str) -> str:
        """Return all that a container has said, on either stream."""
        return self.containers.run("sh", "-c", f"podman logs {container(name)} 2>&1")

    def kill(self, name: str, number: int = 1) -> None:
        """Send SIGKILL to every process of a container."""
        self.containers.podman("kill", "--signal=KILL", container(name, number))

    def start(self, name: str, number: int = 1) -> None:
        self.containers.podman("start", container(name, number))

    def _beat(self) -> None:
        """Ask for health, as systemd's timers do where there are any."""
        while not self._over.wait(1):
            for name in self.containers.podman("ps", "--format={{.Names}}", check=False).split():
                self.containers.podman("healthcheck", "run", name, check=False)


def container(name: str, number: int = 1) -> str:
    return f"{PROJECT}_{name}_{number}"


def ordered(services: dict[str, Any]) -> Iterator[str]:
    """Yield names so that each comes after those that it depends on."""
    done: set[str] = set()
    while len(done) < len(services):
        ready = [
            name
            for name, service in services.items()
            if name not in done and set(service.get("depends_on", {})) <= done
        ]
        assert ready, "services depend on each other in a circle"
        yield from ready
        done.update(ready)


@contextlib.contextmanager
def started(containers: Containers, secrets: Path) -> Iterator[Stack]:
    """Start the stack; leave nothing of it."""
    stack = Stack(containers, secrets)
    try:
        began = time.monotonic()
        stack.up()
        print(f"stack ready in {time.monotonic() - began:.1f} s")  # noqa: T201
        yield stack
    finally:
        stack.down()
        containers.clear()
