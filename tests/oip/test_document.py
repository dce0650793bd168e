"""docs/open-inference.md shows what its code prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs/open-inference.md").read_text(encoding="utf-8")
DEFAULT = "127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(shared_memory_url: str, number: int) -> None:
    code, text = blocks("python")[number], blocks("text")[number]
    assert DEFAULT in code
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code.replace(DEFAULT, shared_memory_url.removeprefix("http://")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, text), done.stderr


def test_curl(shared_memory_url: str) -> None:
    call = next(block for block in blocks("") if block.startswith("curl"))
    done = subprocess.run(
        ["bash", "-c", call.replace(DEFAULT, shared_memory_url.removeprefix("http://"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == blocks("json")[0].strip()
    assert json.loads(done.stdout)["id"] == "1"
