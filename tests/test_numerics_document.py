"""docs/numerics.md says what the code does: constants, bounds, and the table it was measured in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softxent
from softxent._kernels.math.elementary import FLOAT32, FLOAT64
from softxent._kernels.row.small_rows import NARROW
from softxent._kernels.simd.lanes import LANES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/numerics.md").read_text(encoding="utf-8")
WORDS = {16: "sixteen"}
BOUND = 4.0
CHEAP = ("1", "2", "10")
ALL_CLASSES = (*CHEAP, "1,000", "32,000", "262,144")

Cells = dict[tuple[str, str], float]
"""(output with its dtype, classes) -> ulp."""


def ours(text: str) -> Cells:
    """Return our own lines of the first table that has a column of libraries."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (header,) = (line for line in lines if line[:2] == ["output", "library"])
    classes = [cell.removeprefix("C = ") for cell in header[2:]]
    return {
        (line[0], count): float(cell)
        for line in lines
        if line[1:2] == ["softxent"]
        for count, cell in zip(classes, line[2:], strict=True)
    }


def generated() -> str:
    before, rest = TEXT.split("<!-- accuracy -->")
    inside, after = rest.split("<!-- /accuracy -->")
    assert "| library |" not in before + after, "tables of errors are generated"
    return inside


def test_table_holds_every_output_and_size() -> None:
    found = ours(generated())
    names = {name for name, _ in found}
    assert set(found) == {(name, classes) for name in names for classes in ALL_CLASSES}
    floats = {*softxent.OUTPUTS, "hessian_vector_product"} - {"prediction", "correct", "rank"}
    for dtype in ("float32", "float64"):
        measured = [name.split(" ", 1)[1] for name in names if name.startswith(dtype)]
        assert {name.partition(",")[0] for name in measured} == floats


def test_measured_errors_keep_the_promise() -> None:
    assert f"**within {BOUND:.0f} ulp**" in TEXT
    assert max(ours(generated()).values()) <= BOUND


def test_table_is_measured_with_this_numerics_version() -> None:
    assert re.findall(r"numerics version (\d+)", generated()) == [str(softxent.NUMERICS_VERSION)]


def test_cheap_columns_measured_again_are_those_of_the_table() -> None:
    program = ROOT / "benchmarks/accuracy.py"
    done = subprocess.run(
        [sys.executable, program, "--libraries", "softxent", "--classes", *CHEAP],
        capture_output=True,
        text=True,
        check=True,
    )
    again = ours(done.stdout)
    table = {key: ulp for key, ulp in ours(generated()).items() if key[1] in CHEAP}
    # Soft targets are made by the processor's exp, whose last bit is its own.
    soft = {key for key in table if key[0].endswith(", soft")}
    assert max(again[key] for key in soft) <= BOUND
    assert {k: v for k, v in again.items() if k not in soft} == {
        k: v for k, v in table.items() if k not in soft
    }


@pytest.mark.parametrize(
    "stated",
    [
        f"`NUMERICS_VERSION` (now `{softxent.NUMERICS_VERSION}`;",
        f"**Tiles of {softxent.TILE} columns.**",
        f"up to {NARROW} classes",
        f"**{WORDS[LANES].capitalize()} fixed lanes.**",
        f"vectors of {LANES} lanes",
        f"{WORDS[LANES]} side by side",
        f"below {FLOAT32.direct:.0f} (float64: {FLOAT64.direct:.0f})",
        f"$2^{{{FLOAT32.headroom:.0f}}}$ (float64: $2^{{{FLOAT64.headroom:.0f}}}$) too large",
    ],
)
def test_constants_are_those_of_the_code(stated: str) -> None:
    assert stated in " ".join(TEXT.split())


def test_size_of_the_set_of_hashes() -> None:
    stored = json.loads((ROOT / "tests/kernels/golden_bits.json").read_text(encoding="utf-8"))
    names = [name.split(" ", 2) for name in stored["sha256"]]
    batches = len({(dtype, classes) for dtype, classes, _ in names})
    kinds = len({kind for *_, kind in names} - {"sums"})
    assert f"{batches} batches under {kinds} sets of options" in " ".join(TEXT.split())
