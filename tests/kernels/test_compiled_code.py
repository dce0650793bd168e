"""What the machine code calls, where it is cached, and when it is compiled again."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest

import softxent
from softxent._kernels.build.compilation import cache_directory
from softxent._kernels.loop.loops import FORMS, rows_function
from softxent.serving import warm_up

LIBRARY_CALL = re.compile(
    r"(?:__)?(?:exp|exp2|expm1|log|log2|log10|log1p|pow|tanh|ldexp|frexp|fma|fmax|fmin|rint|floor)"
    r"[fl]?(?:_finite)?|_ZGV.*|__svml.*|__mulsc3|__muldc3"
)
CALLS_WITHOUT_FMA = {"fma", "fmaf"}
"""What a processor without the instruction must call: slow, and the same bits."""

PACKAGE = Path(softxent.__file__).parent

REPORT = """
from softxent.serving import warm_up
from softxent._kernels.build import compilation
warm_up()
print(compilation.compile_events)
"""

TINY = """
import numpy as np
from numba import types
from softxent._kernels.build.compilation import cache_directory, kernel
def double(x):
    for i in range(x.size):
        x[i] = 2 * x[i]
x = np.arange(3.0)
kernel(double, types.void(types.float64[::1]))(x)
assert x.tolist() == [0, 2, 4]
print(cache_directory())
"""


def python(script: str, root: Path, home: Path) -> str:
    """Run a script on the package under `root`; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the package, without machine code."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "root" / "softxent", ignore=skip)
    return tmp_path / "root"


def machine_code(loop: Any) -> bytes:
    """Return the object file of a kernel, as it stands in the cache."""
    (arguments,) = loop.overloads
    cache = loop._cache
    _, *processor = cache._index_key(arguments, loop.targetctx.codegen())
    (name,) = (
        name
        for (signature, *other), name in cache._cache_file._load_index().items()
        if signature.args == arguments and other == processor
    )
    data = Path(cache._cache_file._data_path(name)).read_bytes()
    return data[data.index(b"\x7fELF") :]


def symbols(object_code: bytes) -> set[str]:
    """Return every name in the symbol table: what is defined and what is called outside."""
    tables = [
        section.data()
        for section in llvm.ObjectFileRef.from_data(object_code).sections()
        if section.name() in (".strtab", b".strtab")
    ]
    return {name.decode() for table in tables for name in table.split(b"\0") if name}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_call_no_mathematical_library(dtype: str, form: str) -> None:
    names = symbols(machine_code(rows_function(dtype, form)))
    assert any("rows" in name for name in names)
    called = {name for name in names if LIBRARY_CALL.fullmatch(name)}
    has_fma = llvm.get_host_cpu_features().get("fma", False)
    assert called <= (set() if has_fma else CALLS_WITHOUT_FMA)


def test_second_process_compiles_nothing() -> None:
    warm_up()
    assert python(REPORT, PACKAGE.parent, Path.home()) == "0"


def test_machine_code_that_is_complete_is_read_and_not_written() -> None:
    """An image holds it, and its root may be read-only."""
    warm_up()

    def written() -> dict[Path, int]:
        directory = cache_directory()
        return {path: path.stat().st_mtime_ns for path in (directory, *directory.iterdir())}

    before = written()
    assert python(REPORT, PACKAGE.parent, Path("/nonexistent")) == "0"
    assert written() == before


def test_cache_directory_is_named_after_every_source(root: Path) -> None:
    def directory() -> Path:
        module = runpy.run_path(str(root / "softxent" / "_kernels" / "build" / "compilation.py"))
        return Path(module["cache_directory"]())

    seen = {directory()}
    sources = sorted((root / "softxent" / "_kernels").rglob("*.py"))
    assert {len(source.relative_to(root).parts) for source in sources} == {3, 4}
    for source in sources:
        source.write_text(source.read_text() + "\n# changed\n")
        seen.add(directory())
    assert len(seen) == 1 + len(sources)
    assert directory() in seen, "and after nothing else"


def test_machine_code_depends_on_sources_that_the_key_covers() -> None:
    """No compiled source imports a constant from elsewhere in the package."""
    outside = re.compile(r"^\s*(?:from|import) softxent(?!\._kernels)", re.M)
    for source in (PACKAGE / "_kernels").rglob("*.py"):
        assert not outside.search(source.read_text()), source.name


def test_cache_stands_beside_the_sources(root: Path, tmp_path: Path) -> None:
    directory = Path(python(TINY, root, tmp_path))
    assert directory.parent == root / "softxent" / "_kernels" / "__pycache__"
    assert {path.suffix for path in directory.iterdir()} == {".nbi", ".nbc"}


def test_package_that_cannot_be_written_uses_the_home_directory(root: Path, tmp_path: Path) -> None:
    (root / "softxent" / "_kernels" / "__pycache__").write_text("a file cannot hold a directory")
    directory = Path(python(TINY, root, tmp_path))
    assert directory.parent == tmp_path / ".cache" / "softxent"
    assert list(directory.glob("*.nbc"))


def test_package_and_home_that_cannot_be_written_use_a_temporary_directory(
    root: Path, tmp_path: Path
) -> None:
    (root / "softxent" / "_kernels" / "__pycache__").write_text("a file cannot hold a directory")
    home = tmp_path / "home"
    home.write_text("nor can this one")
    directory = Path(python(TINY, root, home))
    try:
        assert directory.name.startswith("softxent-")
        assert list(directory.glob("*.nbc"))
    finally:
        shutil.rmtree(directory)
