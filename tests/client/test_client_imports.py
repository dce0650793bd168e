"""What importing the client loads, and what it says where something is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_client_imports_no_numba() -> None:
    code = (
        "import sys, softxent_client; softxent_client.Client, softxent_client.AsyncClient;"
        "import softxent_client.wire;"
        "print(*(name for name in ('numba', 'llvmlite', 'fastapi') if name in sys.modules))"
    )
    assert python(code) == ""


def test_the_wire_imports_no_http() -> None:
    assert python("import sys, softxent_client.wire; print('httpx' in sys.modules)") == "False"


@pytest.mark.parametrize("missing", ["httpx", "httpx_retries", "ml_dtypes", "orjson", "simdjson"])
def test_without_its_extra_the_client_names_it(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
try:
    from softxent_client import Client
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    extra = 'pip install "softxent[client]"'
    assert python(code) == f"{missing} {missing} is not installed; run: {extra}"


def test_errors_need_no_extra() -> None:
    code = "import sys; sys.modules['httpx'] = None; from softxent_client import ServiceError"
    assert python(code) == ""


@pytest.mark.parametrize("encoding", ["binary", "json"])
def test_a_first_call_imports_nothing(service_url: str, encoding: str) -> None:
    """A process forked during an import waits for that import's lock for ever."""
    code = f"""
import sys
import numpy as np
from softxent import LabelError
from softxent_client import Client
client = Client({service_url!r}, encoding={encoding!r})
before = set(sys.modules)
client.cross_entropy(np.zeros((1, 2), np.float32), [0], row_weights=np.ones(1))
client.softmax([[1.0, 2.0]])
client.explain([2.0, 1.0], 0)
try:
    client.cross_entropy([[1.0, 2.0]], [7])
except LabelError:
    print(*set(sys.modules) - before)
client.close()
"""
    assert python(code) == ""
