"""What /openapi.json says, held against the service that serves it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from proof_support import many, tell

from service_process import Service

HERE = Path(__file__).parent
EXAMPLES = many("OPENAPI_EXAMPLES", 200)

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
)
"""All but the one that valid data is accepted: that options go together, that shapes agree and that
probabilities add up to 1 is beyond a schema."""


CONFIGURATION = """
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 406, 409, 413, 415, 422, 429]
"""
"""A body over a limit is refused by the limit first, whatever else is wrong with it."""


@pytest.mark.timeout(EXAMPLES * 5 + 300)
def test_the_service_does_what_its_document_says(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    # Without shared memory its routes say 501, as the protocol has it, which counts as a failure.
    url = start("--shared-memory").ready_url()
    program = Path(sys.executable).with_name("schemathesis")
    flags = ["--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "service")])
    done = subprocess.run(
        [program, "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "SCHEMATHESIS_HOOKS": "safetensors_bodies"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated, (\d+) (passed|found)", done.stdout)
    assert found, done.stdout
    tell(f"schemathesis: {found[1]} cases over all operations, {len(CHECKS)} checks each")
