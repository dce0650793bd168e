"""What README promises is what the code does: its calls, tables and bytes."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from softxent import OUTPUTS, Options
from softxent.errors import SoftxentError
from softxent.evaluations import EVALUATIONS
from softxent_client.wire import MEDIA_TYPES, safetensors_form
from softxent_client.wire.errors import WireError
from softxent_service.http.app import create_app
from softxent_service.http.errors import ClientGoneError, HttpError
from softxent_service.http.problems import FRAMEWORK_SLUGS, status_of
from softxent_service.http.readiness import Readiness
from softxent_service.settings import Settings

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
PROTOCOL = (Path(__file__).resolve().parents[1] / "docs/open-inference.md").read_text(
    encoding="utf-8"
)
DEFAULT_URL = "http://127.0.0.1:8000"


def table(first: str, text: str = README) -> list[list[str]]:
    """The rows of the table whose header begins with `first`, without the marks of code."""
    lines = text[text.index(f"| {first} |") :].splitlines()
    rows = lines[2 : lines.index("")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_the_curl_call_gives_the_answer_shown(service_url: str) -> None:
    call = next(block for block in blocks("") if "curl" in block)
    command = call.replace("http://127.0.0.1:8000", service_url).replace("\\\n", " ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == blocks("json")[0].strip()


def test_the_python_client_prints_what_is_shown(service_url: str) -> None:
    code = next(block for block in blocks("python") if "Client" in block)
    assert run_python(code.replace(DEFAULT_URL, service_url)) == blocks("text")[0]


def test_the_explanation_prints_what_is_shown() -> None:
    code = next(block for block in blocks("python") if "explain" in block)
    assert run_python(code) == blocks("text")[1]


def test_the_problem_document_shown_is_the_one_sent(service_url: str) -> None:
    answer = httpx.post(
        f"{service_url}/v1/cross_entropy",
        json={"logits": [[2.0, 1.0, 0.1], [20, 0, 0]], "labels": [0, 3]},
    )
    assert answer.json() == json.loads(blocks("json")[1])


def test_every_route_exists_and_none_is_left_out() -> None:
    shown = {tuple(row[0].split()) for row in table("route")} - {("GET", "/docs"), ("GET", "/")}
    shown |= {tuple(row[0].split()) for row in table("route", PROTOCOL)}
    paths = create_app(Settings(), Readiness()).openapi()["paths"]
    assert shown == {(method.upper(), path) for path, item in paths.items() for method in item}


def test_options_and_their_defaults() -> None:
    shown = {row[0]: row[1] for row in table("option")}
    assert shown.pop("logits_dtype") == "float32"
    assert set(shown) == set(Options.__dataclass_fields__)
    assert Options.from_text(shown.items()) == Options()


def test_settings_and_their_defaults() -> None:
    shown = {row[0]: row[1] for row in table("setting")}
    assert shown.pop("SOFTXENT_THREADS") == "all cores"
    fields = {f"SOFTXENT_{name.upper()}": name for name in Settings.model_fields}
    assert set(shown) == set(fields) - {"SOFTXENT_THREADS"}
    assert all(str(getattr(Settings(), fields[name])) == shown[name] for name in shown)


def subclasses(cls: type[SoftxentError]) -> Iterator[type[SoftxentError]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def test_errors_and_their_statuses() -> None:
    abstract = {SoftxentError, WireError, HttpError}
    never_sent = {ClientGoneError}
    sent = {
        cls.slug: str(status_of(cls))
        for cls in subclasses(SoftxentError)
        if not cls.__module__.startswith("softxent_client.errors") and cls.slug != "invalid-input"
        if cls not in abstract | never_sent
    }
    sent |= {slug: str(status) for status, slug in FRAMEWORK_SLUGS.items()}
    assert {row[0]: row[1] for row in table("problem")} == sent


@pytest.mark.parametrize("padding", [0, 40])
def test_the_byte_table_describes_a_request(service_url: str, padding: int) -> None:
    logits = np.array([[2, 1, 0.1], [20, 0, 0]], "<f4")
    labels = np.array([0, 0], "<i8")
    row = next(row for row in table("bytes") if row[0] == "8 to 135")
    found = re.search(r"`(\{.*\})`", row[1])
    assert found is not None
    header = found[1].encode().ljust(128 + padding)
    body = struct.pack("<Q", len(header)) + header + logits.tobytes() + labels.tobytes()
    assert padding or len(body) == 176
    answer = httpx.post(
        f"{service_url}/v1/cross_entropy",
        content=body,
        headers={"Content-Type": "application/vnd.safetensors"},
    )
    assert answer.status_code == 200, answer.text
    tail = answer.content[8 + struct.unpack("<Q", answer.content[:8])[0] :]
    told = json.loads(answer.content[8 : len(answer.content) - len(tail)])
    begin, end = told["gradient"]["data_offsets"]
    gradient = np.frombuffer(tail[begin:end], "<f4").reshape(2, 3)
    assert gradient[1, 1] == np.float32(2.0611537e-09)


def test_media_types_are_named() -> None:
    assert all(name in README for name in MEDIA_TYPES)
    assert safetensors_form is MEDIA_TYPES["application/vnd.safetensors"]


def test_every_output_is_explained() -> None:
    assert tuple(row[0] for row in table("output")) == OUTPUTS


def test_every_tensor_is_explained() -> None:
    known = dict.fromkeys(name for e in EVALUATIONS.values() for name in e.tensors)
    assert [row[0] for row in table("tensor")] == list(known)
