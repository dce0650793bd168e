"""The tables and documents of the service against the code they speak of."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from service_support import assert_problem

import softxent
from softxent.errors import SoftxentError
from softxent.options import MeanOver, Tail
from softxent_client import wire
from softxent_service.http import errors as http_errors
from softxent_service.http.openapi.document import EVALUATION, REFUSALS
from softxent_service.http.problems import STATUSES, status_of
from softxent_service.runtime_tuning import processor_level, processors, tell_numba
from softxent_service.settings import Settings
from softxent_service.telemetry.record import CUT_STATUS


def every_error(base: type[SoftxentError] = SoftxentError) -> Iterator[type[SoftxentError]]:
    for error in base.__subclasses__():
        yield error
        yield from every_error(error)


def of_the_service(error: type) -> bool:
    modules = ("softxent.errors", wire.WireError.__module__, http_errors.__name__)
    return error.__module__ in modules


def test_every_error_has_a_status_and_a_slug_of_its_own() -> None:
    errors = [error for error in every_error() if of_the_service(error)]
    assert len(errors) > 10
    for error in errors:
        assert any(cls in STATUSES for cls in error.__mro__), error
        assert "slug" in vars(error), error
    slugs = [error.slug for error in errors]
    assert len(set(slugs)) == len(slugs)


def test_every_status_is_documented() -> None:
    statuses = {status_of(error) for error in every_error() if of_the_service(error)}
    assert statuses - {CUT_STATUS} | {500} == set(REFUSALS)


def test_openapi_tells_the_options_forms_and_refusals(service_url: str) -> None:
    document = httpx.get(f"{service_url}/openapi.json").json()
    operation = document["paths"]["/v1/cross_entropy"]["post"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    defaults = {field.name: field.default for field in dataclasses.fields(softxent.Options)}
    assert set(parameters) == {*defaults, "logits_dtype"}
    for name, default in defaults.items():
        wanted = list(default) if isinstance(default, tuple) else default
        assert parameters[name]["default"] == ("none" if wanted is None else wanted)
    forms = {"application/json", "application/vnd.safetensors"}
    assert set(operation["requestBody"]["content"]) == forms
    assert set(operation["responses"]["200"]["content"]) == forms
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(wire.REQUEST().fields)
    assert {int(status) for status in operation["responses"]} == {200, *EVALUATION}
    for path in document["paths"].values():
        for operation in path.values():
            assert {"400", "401", "403", "408", "431", "500", "503"} <= set(operation["responses"])
    assert all(set(path) <= {"get", "post"} for path in document["paths"].values())
    assert {path for path in document["paths"] if "/v2" not in path or "health" in path} == {
        "/v1/cross_entropy",
        "/v1/softmax",
        "/v1/hessian_vector_product",
        "/v1/explain",
        "/v1/fixtures",
        "/v1/fixtures/{name}",
        "/v1/arrays",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/cancel",
        "/v1/jobs/{id}/events",
        "/v1/info",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert httpx.get(f"{service_url}/docs").status_code == 200


def test_openapi_tells_which_values_options_take_and_which_targets(service_url: str) -> None:
    document = httpx.get(f"{service_url}/openapi.json").json()
    operation = document["paths"]["/v1/cross_entropy"]["post"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    for name, values in (("tail", get_args(Tail)), ("mean_over", get_args(MeanOver))):
        assert parameters[name]["enum"] == list(values)
    assert parameters["softcap"]["oneOf"] == [
        {"type": "number", "exclusiveMinimum": 0},
        {"const": "none"},
    ]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["logits"]
    assert [target["required"][0] for target in body["anyOf"]] == [
        "labels",
        "target_probabilities",
        "target_indices",
    ]


def test_openapi_tells_how_deep_tensors_are(service_url: str) -> None:
    document = httpx.get(f"{service_url}/openapi.json").json()
    post = document["paths"]["/v1/cross_entropy"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    numbers = {"$ref": "#/components/schemas/Numbers"}
    integers = {"$ref": "#/components/schemas/Integers"}
    number = {"$ref": "#/components/schemas/Number"}
    assert body["logits"] == {"type": "array", "items": {"type": "array", "items": numbers}}
    assert body["labels"] == {"type": "array", "items": integers}
    assert body["row_weights"] == {"type": "array", "items": numbers}
    assert body["class_weights"] == {"type": "array", "items": number}
    booleans = {"$ref": "#/components/schemas/Booleans"}
    assert body["target_probabilities"] == body["target_log_probabilities"] == body["logits"]
    rows_of_integers = {"type": "array", "items": integers}
    assert body["target_indices"] == {"type": "array", "items": rows_of_integers}
    assert body["class_mask"] == {"type": "array", "items": booleans}
    assert document["components"]["schemas"]["Booleans"]["oneOf"][0] == {"type": "boolean"}
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert (answer["loss"], answer["loss_sum"]) == (numbers, number)
    assert answer["count"] == {"type": "integer"}


def test_the_page_of_the_documents_fetches_nothing_from_elsewhere(service_url: str) -> None:
    page = httpx.get(f"{service_url}/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    named = re.findall(r"""(?:src|href)="([^"]*)"|url: '([^']*)'""", page.text)
    urls = {first or second for first, second in named} - {"data:,"}
    assert len(urls) == 3
    assert not re.search(r"https?:|['\"]//", page.text)
    for url in urls:
        answer = httpx.get(f"{service_url}/{url}")
        assert answer.status_code == 200, url
    style = httpx.get(f"{service_url}/docs/swagger-ui.css")
    assert not re.search(r"@import|url\((?!['\"]?data:)", style.text)
    assert "SwaggerUIBundle" in httpx.get(f"{service_url}/docs/swagger-ui-bundle.js").text


HEADED = (
    "/",
    "/v1/info",
    "/v1/fixtures",
    "/v1/fixtures/labels-float32",
    "/docs",
    "/docs/swagger-ui.css",
)


@pytest.mark.parametrize("path", [*HEADED, "/v2/health/live", "/v2/health/ready"])
def test_head_is_get_without_its_body(service_url: str, path: str) -> None:
    got, told = httpx.get(service_url + path), httpx.head(service_url + path)
    assert told.status_code == got.status_code == 200
    assert told.content == b""
    same = ("content-type", "content-length")
    assert [told.headers[name] for name in same] == [got.headers[name] for name in same]
    refused = httpx.post(service_url + path)
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_info_and_health_tell_the_truth(service_url: str) -> None:
    info = httpx.get(f"{service_url}/v1/info").json()
    assert info["numerics"] == softxent.NUMERICS_VERSION
    assert info["tile"] == softxent.TILE
    settings = Settings()
    assert info["limits"] == {
        **dataclasses.asdict(wire.Limits()),
        "memory_bytes": settings.memory_bytes,
        "timeout_seconds": settings.timeout_seconds,
        "longest_timeout_seconds": settings.longest_timeout_seconds,
    }
    assert info["threading_layer"] in ("omp", "tbb", "workqueue")
    assert httpx.get(f"{service_url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{service_url}/v2/health/ready").json() == {"ready": True}


def softxent_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a terminal of 80 columns."""
    command = [sys.executable, "-m", "softxent_service.cli", *arguments]
    given = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=given)


def test_flags_variables_and_defaults_stand_in_the_help() -> None:
    words = softxent_command("serve", "--help").stdout.split()
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in words
        # With a default a semicolon follows, without one the bracket closes.
        assert {f"SOFTXENT_{name.upper()}{end}" for end in ";]"} & set(words)
    assert words[words.index("SOFTXENT_PORT;") + 1 :][:2] == ["default:", "8000]"]


def test_version() -> None:
    assert softxent_command("--version").stdout == f"softxent {softxent.__version__}\n"


@pytest.mark.parametrize("threads", ["0", "1025"])
def test_flag_out_of_range_is_named(threads: str) -> None:
    for ended in (
        softxent_command("serve", "--threads", threads),
        softxent_command("info", SOFTXENT_THREADS=threads),
    ):
        assert ended.returncode == 2
        assert "'--threads' (env var: 'SOFTXENT_THREADS'): Input should be" in ended.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SOFTXENT_MEMORY_BITES", "did you mean SOFTXENT_MEMORY_BYTES?"),
        ("softxent_tiemout_seconds", "did you mean SOFTXENT_TIMEOUT_SECONDS?"),
        ("SOFTXENT_SERVICE_HOST", "enableServiceLinks: false"),
        ("SOFTXENT_PORT_8000_TCP_ADDR", "enableServiceLinks: false"),
        ("SOFTXENT_QUEUE", "it is called SOFTXENT_MAX_QUEUED_CALLS now"),
        ("SOFTXENT_COLOUR", "is no setting"),
    ],
)
def test_variables_that_are_no_settings_are_refused(name: str, hint: str) -> None:
    """A limit that is misspelt would be no limit."""
    for command in ("serve", "info"):
        ended = softxent_command(command, **{name: "1"})
        assert (ended.returncode, ended.stdout) == (2, "")
        assert f"the environment variable {name} is no setting" in ended.stderr
        assert hint in ended.stderr


def test_variables_of_clients_are_none_of_the_services() -> None:
    assert softxent_command("info", SOFTXENT_KEY="a", SOFTXENT_URL="b").returncode == 0


def test_unknown_log_level_is_told_the_known_ones() -> None:
    ended = softxent_command("serve", "--log-level", "loud")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "Error: Invalid value for '--log-level' (env var: 'SOFTXENT_LOG_LEVEL'): "
        "Input should be 'debug', 'info', 'warning' or 'error'"
    )


def test_info_without_kernels_is_one_line() -> None:
    ended = softxent_command("info", NUMBA_THREADING_LAYER="nonexistent")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("softxent: the kernels cannot be compiled or loaded: ")
    assert len(ended.stderr.splitlines()) == 1


def test_info_shows_what_holds_each_on_one_line() -> None:
    ended = softxent_command("info", SOFTXENT_TENSORS="7", SOFTXENT_LOG_LEVEL="Warning")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in ended.stdout.splitlines())
    assert set(Settings.model_fields) <= set(lines)
    assert (lines["tensors"], lines["log_level"]) == ("7", "warning")
    assert lines["request_head_bytes"] == "65536"
    assert Path(lines["machine"].removeprefix("code").strip()).is_dir()


def test_info_shows_no_password() -> None:
    database = "postgresql://me:secret@db:5432/jobs?password=secret"
    ended = softxent_command("info", SOFTXENT_DATABASE=database)
    assert ended.returncode == 0
    assert re.search(r"^database +postgresql://\*\*\*@db:5432/jobs$", ended.stdout, re.MULTILINE)
    assert "secret" not in ended.stdout


def test_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from softxent_service.cli import main; sys.argv = ['softxent']; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert 'pip install "softxent[service]"' in ended.stderr


def test_processor_level_is_the_highest_that_the_flags_reach() -> None:
    v3 = {"avx2", "fma", "bmi2"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert processor_level("x86_64", v4) == "x86-64-v4"
    assert processor_level("x86_64", v3 | {"avx512f"}) == "x86-64-v3"
    assert processor_level("x86_64", {"sse2"}) is None
    assert processor_level("aarch64", v4) is None


def test_what_the_environment_says_of_the_processor_stays() -> None:
    environment = {"NUMBA_CPU_NAME": "generic"}
    tell_numba(environment, threads=3)
    assert environment == {"NUMBA_CPU_NAME": "generic", "NUMBA_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/\n", {"": "max 100000"}, None),
        ("0::/\n", {"": "100000 100000"}, 1),
        ("0::/\n", {"": "50000 100000"}, 1),
        ("0::/a/b\n", {"": "max 100000", "a": "150000 100000", "a/b": "max 100000"}, 1),
        ("0::/not/there\n", {"": "100000 100000"}, 1),
        ("4:cpu:/a\n0::/\n", {}, None),
        ("0::/\n", {"": "6400000 100000"}, None),
    ],
)
def test_threads_are_as_many_as_a_container_has_time_for(
    tmp_path: Path, cgroup: str, limits: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, limit in limits.items():
        directory = tmp_path / "sys/fs/cgroup" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cpu.max").write_text(f"{limit}\n")
    cores = len(os.sched_getaffinity(0))
    assert processors(tmp_path) == min(cores, expected or cores)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
        ("GET", "/v1/cross_entropy", "POST"),
        ("POST", "/v1/info", "GET, HEAD"),
        ("DELETE", "/v2/models/cross_entropy/infer", "POST"),
    ],
)
def test_another_method_is_refused_with_all_that_there_are(
    service_url: str, method: str, path: str, allowed: str
) -> None:
    answer = httpx.request(method, service_url + path, verify=False)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed
