"""What operators use, on the real service: Prometheus scrapes it, wrk and h2load count it.

Needs Debian's packages prometheus, wrk, nghttp2-client, nodejs, golang-go and r-base-core.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from load.cases import FORMS, PATH, make_case

from conftest import free_port, running_service
from softxent_service.keys import new_key
from softxent_service.telemetry.metrics import METRICS

GOOD = b'{"logits": [[20, 0]], "labels": [0]}'
JSON = FORMS["json"]
ROOT = Path(__file__).resolve().parents[2]
RUNNERS = {".sh": ["bash"], ".mjs": ["node"], ".go": ["go", "run"], ".R": ["Rscript"]}
SHOWN = {"counter": "{}_total", "gauge": "{}", "histogram": "{}_bucket"}


TOOLS = ("prometheus", "promtool", "wrk", "h2load", "node", "go", "Rscript", "curl")


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_is_there(tool: str) -> None:
    assert shutil.which(tool), f"{tool} is not installed"


def test_promtool_finds_nothing_to_mend(service_url: str) -> None:
    send_some(service_url, {})
    text = httpx.get(f"{service_url}/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def send_some(url: str, headers: dict[str, str]) -> None:
    """Send what makes every series there is appear."""
    large = make_case("400x100:binary")
    for body, form in ((GOOD, JSON), (large.body, large.form), (b"{", JSON)):
        httpx.post(url + PATH, content=body, headers={"content-type": form, **headers})


@contextmanager
def prometheus(folder: Path, target: str, key: str) -> Iterator[str]:
    """Run a Prometheus that scrapes `target` each second; yield its URL."""
    (folder / "key").write_text(key)
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "softxent",
                "authorization": {"credentials_file": str(folder / "key")},
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=log,
            stdout=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_real_prometheus_finds_every_series(tmp_path: Path) -> None:
    scraping, calling = new_key("prometheus", ["metrics"]), new_key("caller", ["evaluate", "jobs"])
    lines = f"{scraping[1].line()};{calling[1].line()}"
    with (
        running_service(f"--keys={lines}") as url,
        prometheus(tmp_path, url.removeprefix("http://"), scraping[0]) as monitor,
    ):
        authorization = {"authorization": f"Bearer {calling[0]}"}
        send_some(url, authorization)
        # Jobs are counted once anyone has asked for them.
        httpx.get(f"{url}/v1/jobs", headers=authorization, timeout=60).raise_for_status()
        wanted = {SHOWN[metric.kind].format(name) for name, metric in METRICS.items()}
        deadline = time.monotonic() + 60
        found: set[str] = set()
        while not wanted <= found:
            assert time.monotonic() < deadline, wanted - found
            time.sleep(0.5)
            found = names(monitor)
        asked = {"query": f'softxent_requests_total{{route="{PATH}",status="200"}}'}
        answer = httpx.get(f"{monitor}/api/v1/query", params=asked).json()
        assert float(answer["data"]["result"][0]["value"][1]) == 2


def names(monitor: str) -> set[str]:
    try:
        answer = httpx.get(f"{monitor}/api/v1/label/__name__/values")
    except httpx.TransportError:
        return set()
    return set(answer.json().get("data", []))


@pytest.mark.parametrize("example", ["curl.sh", "fetch.mjs", "plain_http.go", "plain_http.R"])
def test_other_languages_call(example: str, service_url: str) -> None:
    command = [*RUNNERS[Path(example).suffix], str(ROOT / "examples" / example), service_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gradient" in done.stdout


def test_other_counters_count_what_the_service_counts(service_url: str, tmp_path: Path) -> None:
    """Figures of rates are for quiet machines; here all are asked how many answers there were."""

    def counted() -> float:
        found = re.search(
            rf'softxent_requests_total{{route="{PATH}",status="200"}} (\S+)',
            httpx.get(f"{service_url}/metrics").text,
        )
        return float(found[1]) if found else 0.0

    script = tmp_path / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'; wrk.body = '{GOOD.decode()}'\n"
        f"wrk.headers['Content-Type'] = '{JSON}'\n"
    )
    before = counted()
    command = ["wrk", "-t1", "-c4", "-d2s", "-s", str(script), service_url + PATH]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    by_wrk = re.search(r"(\d+) requests in", done.stdout)
    assert by_wrk is not None, done.stdout
    assert "Non-2xx" not in done.stdout
    # Those on the way at the end are counted here and not there.
    time.sleep(0.5)
    assert 0 <= counted() - before - int(by_wrk[1]) <= 4
    before = counted()
    (tmp_path / "body").write_bytes(GOOD)
    command = ["h2load", "--h1", "-n500", "-c4", "-d", str(tmp_path / "body")]
    header = ["-H", f"content-type: {JSON}"]
    done = subprocess.run(
        [*command, *header, service_url + PATH], capture_output=True, text=True, check=True
    )
    assert "500 succeeded" in done.stdout, done.stdout
    assert counted() - before == 500


def test_load_and_service_count_alike(service_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "load", service_url, "--seconds=2", "--mix=1x10:json"],
        capture_output=True,
        text=True,
        cwd=ROOT / "benchmarks",
    )
    assert done.returncode == 0, done.stdout
