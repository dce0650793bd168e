"""Both decoders under any bytes: by hypothesis, and led by coverage."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from proof_support import MIB, many, tell
from target_support import KINDS, target_batch

from softxent_client.wire import json_form, safetensors_form

HERE = Path(__file__).parent
EXAMPLES = many("EXAMPLES", 10_000)
FUZZ_SECONDS = many("FUZZ_SECONDS", 120)

LARGEST_GROWTH = 64 * MIB
"""libFuzzer's own corpus and the coverage maps grow by some megabytes."""


@pytest.mark.timeout(EXAMPLES // 5 + 300)
def test_many_examples_of_the_tests_of_any_body() -> None:
    wire = HERE.parent / "wire"
    files = [str(wire / f"test_{form}_any.py") for form in ("json", "safetensors")]
    command = [sys.executable, "-m", "pytest", *files, "--timeout=0"]
    flags = ["--hypothesis-profile=many", "--hypothesis-show-statistics"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    cases = [int(count) for count in re.findall(r"(\d+) passing,", done.stdout)]
    tell(f"hypothesis: {sum(cases)} bodies in {len(cases)} phases")
    assert sum(cases) >= EXAMPLES


def seeds(form: str) -> list[bytes]:
    """Return valid bodies, with a byte before them that chooses a schema."""
    encode = json_form.encode if form == "json" else safetensors_form.encode
    batches = [target_batch(kind, rows=2, classes=5) for kind in KINDS]
    batches += [{**batches[0], "class_mask": np.arange(5) < 4}]
    batches += [{**batches[0], "class_weights": np.ones(5), "row_weights": np.ones(2)}]
    batches += [{"logits": batches[0]["logits"], "vectors": batches[0]["logits"]}]
    schemas = range(12)
    return [bytes([which]) + b"".join(encode(batch)) for batch in batches for which in schemas]


@pytest.mark.timeout(FUZZ_SECONDS + 120)
@pytest.mark.parametrize("form", ["json", "binary"])
def test_coverage_finds_no_body_that_breaks_a_decoder(form: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(form)):
        (corpus / str(number)).write_bytes(seed)
    bounds = [f"-max_total_time={FUZZ_SECONDS}", "-max_len=2049", "-rss_limit_mb=0"]
    command = [sys.executable, str(HERE / "fuzz_decoders.py"), form, str(LARGEST_GROWTH)]
    flags = [*bounds, "-timeout=10", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*command, *flags, str(corpus)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    calls = re.findall(r"number_of_executed_units: +(\d+)", done.stderr)
    reports = re.findall(r"calls (\d+) decoded (\d+) grown (-?\d+)", done.stderr)
    assert reports, "too few calls to tell whether memory grows"
    decoded, grown = int(reports[-1][1]), int(reports[-1][2])
    covered = re.findall(r"cov: (\d+)", done.stderr)[-1]
    tell(f"atheris, {form}: {calls[0]} bodies, {decoded} of them valid, {covered} places covered,")
    tell(f"  memory grew by {grown / MIB:.1f} MiB")
