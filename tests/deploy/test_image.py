"""The image alone: what is in it, and that it starts with nothing but its memory to write to."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from containers import IMAGE, Containers
from figures import figure
from parts_support import free_port, wait_for

STRICT = (
    *("--network=host", "--read-only", "--memory=512m", "--pids-limit=200", "--cap-drop=ALL"),
    "--security-opt=no-new-privileges",
)
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def url(containers: Containers) -> Iterator[str]:
    """A service with a read-only root and no capability, until it has ended as it should."""
    port = free_port()
    began = time.monotonic()
    where = ["--env=SOFTXENT_HOST=127.0.0.1", f"--env=SOFTXENT_PORT={port}"]
    containers.podman("run", "--detach", "--name=alone", *STRICT, *where, IMAGE)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(address), "the image's service")
    figure("Cold start to ready", f"{time.monotonic() - began:.1f} s")
    yield address
    containers.podman("stop", "--time=20", "alone")
    assert containers.inspect("alone")["State"]["ExitCode"] == 0
    containers.podman("rm", "--volumes", "alone")


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_machine_code_of_the_image_is_what_runs(url: str) -> None:
    metrics = httpx.get(f"{url}/metrics").text
    assert "softxent_compilations_total 0.0" in metrics


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_machine_code_of_both_levels_is_there(containers: Containers, level: str) -> None:
    asked = (
        "from softxent._kernels.build.compilation import cache_directory, complete_stamp;"
        "print((cache_directory() / complete_stamp()).exists())"
    )
    flags = ["--rm", f"--env=NUMBA_CPU_NAME={level}", "--env=NUMBA_CPU_FEATURES=", *STRICT]
    said = containers.podman("run", *flags, "--entrypoint=python", IMAGE, "-c", asked)
    assert said == "True"


def test_parallel_kernels_run_on_openmp(containers: Containers, url: str) -> None:
    assert httpx.get(f"{url}/v1/info").json()["threading_layer"] == "omp"
    assert containers.podman("exec", "alone", "id", "-u") == "10001"


def test_nothing_can_be_written_or_gained(containers: Containers, url: str) -> None:
    assert url
    tried = "touch /opt/softxent/x; touch /usr/x; grep CapEff /proc/self/status"
    assert containers.podman("exec", "alone", "sh", "-c", tried) == "CapEff:\t0000000000000000"


def test_health_is_asked_of_the_service(containers: Containers, url: str) -> None:
    assert url
    containers.podman("healthcheck", "run", "alone")
    assert containers.inspect("alone")["State"]["Health"]["Status"] == "healthy"


def test_labels_say_what_it_is(containers: Containers) -> None:
    labels = containers.inspect(IMAGE)["Config"]["Labels"]
    wanted = {"title", "description", "licenses", "version"}
    assert wanted <= {name.removeprefix("org.opencontainers.image.") for name in labels}
    from softxent import __version__

    assert labels["org.opencontainers.image.version"] == __version__


def test_a_secret_in_a_file_is_a_variable_of_the_process_alone(
    containers: Containers, tmp_path: Path
) -> None:
    secret = tmp_path / "database"
    secret.write_text("postgresql://me:hidden@db:5432/jobs\n")
    secret.chmod(0o444)
    flags = ["--rm", f"--volume={secret}:/secret:ro", "--env=SOFTXENT_DATABASE_FILE=/secret"]
    shown = containers.podman("run", *flags, IMAGE, "info")
    assert re.search(r"^database +postgresql://\*\*\*@db:5432/jobs$", shown, re.MULTILINE)


def test_it_is_at_most_250_mb_compressed(containers: Containers) -> None:
    save = f"podman save --quiet --format=docker-archive {IMAGE} | gzip -6 | wc -c"
    done = subprocess.run(
        save, shell=True, capture_output=True, text=True, env=containers.environment, check=True
    )
    whole = containers.inspect(IMAGE)["Size"]
    figure("Image, compressed", f"{int(done.stdout) / 1e6:.0f} MB")
    figure("Image, unpacked", f"{whole / 1e6:.0f} MB")
    packages = "cd /opt/softxent/lib/python3*/site-packages && du -sm * | sort -rn | head -3"
    flags = ["--rm", "--entrypoint=sh", IMAGE, "-c", packages]
    largest = [line.split() for line in containers.podman("run", *flags).splitlines()]
    figure("Largest in it", ", ".join(f"{name} {size} MB" for size, name in largest))
    assert int(done.stdout) <= 250e6
