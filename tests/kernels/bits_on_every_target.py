"""The golden bits on every level of x86-64 that this machine runs, and without FMA in libm.

`make test-bits` runs this file, and only that: each target compiles its own kernels, a minute
apiece the first time, and a fma in software takes another.

A target is what numba is told: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES. Without +fma the compiler
calls libm's fma, which glibc answers with the instruction if the processor has it, so only
`PLAIN_LIBM` leaves no fused instruction anywhere.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from bit_cases import DTYPES, golden
from test_same_bits import changed, hashes_of_process

PLAIN_LIBM = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"}
"""glibc 2.33 and newer choose their FMA variants where AVX2 and FMA are both usable."""

LEVELS = {
    "x86-64": set[str](),
    "x86-64-v2": {"sse4.2", "popcnt"},
    "x86-64-v3": {"avx2", "fma", "bmi2"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
VARIATIONS = {
    "avx2 without fma": ("x86-64-v3", "-fma"),
    "fma without avx2": ("x86-64-v3", "-avx2"),
    "512-bit vectors preferred": ("x86-64-v4", "-prefer-256-bit"),
    "256-bit vectors preferred": ("x86-64-v4", "+prefer-256-bit"),
}


def available(level: str) -> bool:
    features = llvm.get_host_cpu_features()
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return on_x86 and all(features.get(name, False) for name in LEVELS[level])


def target(name: str, features: str = "") -> dict[str, str]:
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}


LEVELS_HERE = [level for level in LEVELS if available(level)]
VARIATIONS_HERE = [name for name, (level, _) in VARIATIONS.items() if available(level)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["one thread", "two threads"])
@pytest.mark.parametrize("level", LEVELS_HERE)
def test_levels(level: str, way: str) -> None:
    assert changed(hashes_of_process(target(level), "--way", way)) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", VARIATIONS_HERE)
def test_variations_of_features(name: str) -> None:
    assert changed(hashes_of_process(target(*VARIATIONS[name]))) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", ["", *LEVELS_HERE])
def test_without_fma_in_libm(level: str, dtype: str) -> None:
    environment = PLAIN_LIBM | (target(level) if level else {})
    found = hashes_of_process(environment, "--dtypes", dtype)
    assert changed(found) == []
    assert set(found) == {name for name in golden()[1] if name.startswith(f"{dtype} ")}


def test_libm_itself_gives_other_bits_without_fma() -> None:
    """The switch does something, or the tests above would show nothing."""
    has_variants = platform.libc_ver()[0] == "glibc" and available("x86-64-v3")
    assert (libm_bits({}) != libm_bits(PLAIN_LIBM)) == has_variants


def libm_bits(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    values = [0.00137 * i for i in range(1, 20_000)]
    packed = [struct.pack("<3d", math.exp(v), math.log1p(v), math.tanh(v)) for v in values]
    sys.stdout.write(hashlib.sha256(b"".join(packed)).hexdigest())
