"""The tables and documents of the service against the code they speak of."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

import softxent
from softxent.errors import OutputBufferError, SoftxentError
from softxent_client import wire
from softxent_service.http import errors as http_errors
from softxent_service.http.openapi import REFUSALS
from softxent_service.http.problems import STATUSES, status_of
from softxent_service.machine import processor_level, tell_numba
from softxent_service.settings import Settings


def every_error(base: type[SoftxentError] = SoftxentError) -> Iterator[type[SoftxentError]]:
    for error in base.__subclasses__():
        yield error
        yield from every_error(error)


def of_the_service(error: type) -> bool:
    # The service itself chooses the buffers of results.
    return error is not OutputBufferError and error.__module__ == "softxent.errors" or error.__module__ in (
        wire.WireError.__module__,
        http_errors.__name__,
    )


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
    assert statuses <= set(REFUSALS)


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
    assert {int(status) for status in operation["responses"]} == {200, *REFUSALS}
    assert set(document["paths"]) == {
        "/v1/cross_entropy",
        "/v1/explain",
        "/v1/info",
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert httpx.get(f"{service_url}/docs").status_code == 200


def test_info_and_health_tell_the_truth(service_url: str) -> None:
    info = httpx.get(f"{service_url}/v1/info").json()
    assert info["numerics"] == softxent.NUMERICS_VERSION
    assert info["tile"] == softxent.TILE
    assert info["limits"] == dataclasses.asdict(wire.Limits())
    assert info["threading_layer"] in ("omp", "tbb", "workqueue")
    assert httpx.get(f"{service_url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{service_url}/v2/health/ready").json() == {"ready": True}


def test_flags_variables_and_defaults_stand_in_the_help() -> None:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "softxent_service.cli", "serve", "--help"]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in text
        assert "SOFTXENT_" + name.upper() in text
    assert "default: 8000" in text


@pytest.mark.parametrize("threads", ["0", "1025"])
def test_flag_out_of_range_is_named(threads: str) -> None:
    command = [sys.executable, "-m", "softxent_service.cli", "serve", "--threads", threads]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--threads" in ended.stderr


def test_environment_sets_what_no_flag_does() -> None:
    environment = {**os.environ, "SOFTXENT_TENSORS": "7"}
    command = [sys.executable, "-m", "softxent_service.cli", "info"]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert any(line.split() == ["tensors", "7"] for line in text.splitlines())


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
