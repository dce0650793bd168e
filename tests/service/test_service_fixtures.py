"""Fixtures as a client gets them, and the service itself judged by them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from safetensors import deserialize
from service_support import BINARY, assert_problem, binary

from softxent import OUTPUTS
from softxent_client.wire.schema import DTYPES
from softxent_service.http.app import create_app
from softxent_service.http.readiness import Readiness
from softxent_service.http.routes.fixtures import FOLDER, Fixture, load_index
from softxent_service.settings import Settings

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/fixtures.md").read_text(encoding="utf-8")
PATHS = create_app(Settings(), Readiness()).openapi()["paths"]
FIXTURES = load_index().fixtures
OFFERED = [fixture for fixture in FIXTURES if f"/v1/{fixture.evaluation}" in PATHS]
SUMS = ("loss_sum", "weight_sum", "count")

Tensors = dict[str, npt.NDArray[Any]]


def name_of(fixture: Fixture) -> str:
    return fixture.name


def download(url: str, fixture: Fixture) -> bytes:
    answer = httpx.get(url + fixture.href)
    assert (answer.status_code, answer.headers["content-type"]) == (200, BINARY)
    return answer.content


def tensors_of(content: bytes) -> Tensors:
    return {
        name: np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(content)  # type: ignore[no-untyped-call]
    }


def metadata_of(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return metadata


def beginning(prefix: str, metadata: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}


def test_index_describes_every_file(service_url: str) -> None:
    index = httpx.get(f"{service_url}/v1/fixtures").json()
    assert [entry["name"] for entry in index["fixtures"]] == [*map(name_of, FIXTURES)]
    for entry in index["fixtures"]:
        content = httpx.get(service_url + entry["href"]).content
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        metadata, logits = metadata_of(content), tensors_of(content)["logits"]
        for name in ("name", "description", "evaluation"):
            assert metadata[name] == entry[name]
        assert beginning("option.", metadata) == entry["options"]
        assert metadata["numerics"] == str(index["numerics"])
        assert (list(logits.shape), logits.dtype) == (entry["shape"], DTYPES[entry["dtype"]])


def test_who_has_a_file_is_told_so(service_url: str) -> None:
    address, digest = service_url + FIXTURES[0].href, FIXTURES[0].sha256
    answer = httpx.get(address)
    assert answer.headers["etag"] == f'"{digest}"'
    assert "max-age" in answer.headers["cache-control"]
    assert f'filename="{FIXTURES[0].name}.safetensors"' in answer.headers["content-disposition"]
    for known in (f'"{digest}"', f'"other", W/"{digest}"', "*"):
        again = httpx.get(address, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == f'"{digest}"'
    assert httpx.get(address, headers={"if-none-match": '"other"'}).content == answer.content


@pytest.mark.parametrize(
    "name",
    ["nothing", "index", "index.json", "labels-float32.safetensors", "", "..%2Fcli.py", "%00"],
)
def test_names_that_the_index_lacks_are_not_found(service_url: str, name: str) -> None:
    is_name = name not in ("", "..%2Fcli.py")
    answer = httpx.get(f"{service_url}/v1/fixtures/{name}")
    assert_problem(answer, 404, "not-found", "name" if is_name else None)


@pytest.mark.parametrize("fixture", OFFERED, ids=name_of)
def test_service_is_within_the_bounds(service_url: str, fixture: Fixture) -> None:
    content = download(service_url, fixture)
    tensors, bounds = tensors_of(content), beginning("bound.", metadata_of(content))
    got = answer_to(service_url, fixture, tensors)
    wanted = {name for name in got if f"expected.{name}" in tensors}
    assert wanted == set(got) - ({*SUMS} if fixture.evaluation != "cross_entropy" else set())
    for name in wanted:
        assert worst_error(name, got[name], tensors) <= float(bounds.get(name, "0")), name


def answer_to(url: str, fixture: Fixture, tensors: Tensors) -> Tensors:
    """Send a fixture's inputs, asking for those of its outputs that there are."""
    inputs = {name: tensor for name, tensor in tensors.items() if "." not in name}
    options = dict(fixture.options)
    if "outputs" in options:
        known = [name for name in options["outputs"].split(",") if name in OUTPUTS]
        options["outputs"] = ",".join(known)
    address = f"{url}/v1/{fixture.evaluation}"
    headers = {"content-type": BINARY}
    answer = httpx.post(address, params=options, content=binary(inputs), headers=headers)
    assert answer.status_code == 200, answer.text
    return tensors_of(answer.content)


def worst_error(name: str, got: npt.NDArray[Any], tensors: Tensors) -> float:
    """Return the largest error in the file's units; inf where only the very answer will do."""
    wanted = tensors[f"expected.{name}"].astype(np.float64)
    assert got.shape == wanted.shape
    given = got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        away = np.abs((given - wanted) - tensors.get(f"expected.{name}_low", 0.0))
    excess = np.maximum(away - tensors.get(f"slack.{name}", 0.0), 0.0)
    error = excess / tensors[f"ulp.{name}"] if f"ulp.{name}" in tensors else np.inf
    same = (given == wanted) | (np.isnan(given) & np.isnan(wanted))
    return float(np.where(same, 0.0, np.nan_to_num(error, nan=np.inf, posinf=np.inf)).max())


def test_errors_are_counted_in_units() -> None:
    tensors = tensors_of((FOLDER / "labels-float64.safetensors").read_bytes())
    loss, ulp = tensors["expected.loss"], tensors["ulp.loss"]
    assert worst_error("loss", loss, tensors) <= 0.5
    assert 6.5 <= worst_error("loss", loss + 7 * ulp, tensors) <= 7.5
    assert worst_error("loss", loss * np.nan, tensors) == np.inf
    assert worst_error("loss", loss * np.inf, tensors) == np.inf
    assert worst_error("rank", tensors["expected.rank"], tensors) == 0
    assert worst_error("rank", tensors["expected.rank"] + 1, tensors) == np.inf
    broken = tensors_of((FOLDER / "not-a-number-float64.safetensors").read_bytes())
    assert worst_error("loss", broken["expected.loss"], broken) == 0
    assert worst_error("loss", np.zeros(5), broken) == np.inf


def test_the_example_prints_what_is_shown(service_url: str) -> None:
    code, text = re.findall(r"```(?:python|text)\n(.*?)```", DOCUMENT, re.DOTALL)
    code = code.replace("http://127.0.0.1:8000", service_url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == text
