"""What must stay true of the repository as a whole, whichever file changes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import softxent

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("kernels/**/*.py"), *ROOT.glob("service/**/*.py")])
COMPILATION = ROOT / "kernels/softxent/_kernels/build/compilation.py"
VERBS = (
    "run",
    "test",
    "test-bits",
    "test-large",
    "test-peers",
    "test-adapters",
    "test-oip",
    "test-proofs",
    "test-operations",
    "test-soak",
    "test-parts",
    "test-chaos",
    "test-deploy",
    "test-web",
    "web",
    "lint",
    "fix",
    "bench",
    "bench-kernels",
    "bench-adapters",
    "bench-http",
    "bench-oip",
    "bench-client",
    "bench-operations",
    "bench-jobs",
    "accuracy",
    "demo",
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))["project"]  # type: ignore[no-any-return]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


@pytest.mark.parametrize(
    "words", [r"(?<!jax\.)\bn?jit\(", r"@(numba\.)?n?jit\b", r"\bnumba\.jit\b"]
)
def test_one_module_decides_how_code_is_compiled(words: str) -> None:
    places = [path for path in SOURCES if re.search(words, path.read_text(encoding="utf-8"))]
    assert [path for path in places if path != COMPILATION] == []


def test_that_module_compiles() -> None:
    assert re.search(r"\bjit\(|\bnjit\(", COMPILATION.read_text(encoding="utf-8"))


def test_no_blanket_fastmath() -> None:
    blanket = re.compile(r"""fastmath["']?\s*[=:]\s*True""")
    assert [path for path in SOURCES if blanket.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("words", [r"\bpickle\b(?!\.)", r"\bimport pickle\b", r"\bcloudpickle\b"])
def test_nothing_imports_pickle(words: str) -> None:
    imports = re.compile(rf"^\s*(import|from)\s.*{words}", re.MULTILINE)
    assert [path for path in SOURCES if imports.search(path.read_text(encoding="utf-8"))] == []


def locked() -> Iterator[list[str]]:
    """The entries of the lock: a requirement and its hashes."""
    lines = [line for line in text("requirements.lock").splitlines() if line[:1] != "#"]
    for entry in re.split(r"\n(?=\S)", "\n".join(lines)):
        yield [part.strip() for part in entry.split("\\\n")]


def test_lock_names_no_host() -> None:
    assert "://" not in text("requirements.lock")
    assert "--index" not in text("requirements.lock")


def test_lock_pins_and_hashes_every_requirement() -> None:
    for requirement, *hashes in locked():
        assert re.match(r"[a-z0-9-]+==\S+", requirement), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part) for part in hashes)


def test_lock_holds_every_declared_requirement() -> None:
    pinned = {requirement.split("==")[0] for requirement, *_ in locked()}
    extras = project()["optional-dependencies"].values()
    declared = [*project()["dependencies"], *(name for extra in extras for name in extra)]
    names = {re.split(r"[\[><=; ]", requirement)[0].lower() for requirement in declared}
    assert names - {"softxent"} <= pinned


def test_help_lists_every_verb() -> None:
    shown = subprocess.run(
        ["make", "--silent", "help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert re.findall(r"^make (\S+)", shown, re.MULTILINE) == ["help", *VERBS]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_verb_in_a_document_exists(document: str) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", text(document), re.DOTALL) or [text(document)]
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", "\n".join(code), re.MULTILINE))
    assert named
    assert named <= {"help", *VERBS}


def test_contributors_are_told_every_verb_and_room() -> None:
    document = text("CONTRIBUTING.md")
    assert set(VERBS) <= set(re.findall(r"make ([a-z][a-z-]*)", document))
    rooms = (ROOT / "service/softxent_service").rglob("__init__.py")
    assert [room for room in rooms if f"{room.parent.name}/" not in document] == []


@pytest.mark.parametrize("path", [".ci/run"])
def test_scripts_can_be_executed(path: str) -> None:
    assert (ROOT / path).stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("softxent", ("numba", "llvmlite")),
        ("softxent.explanation", ("numba", "llvmlite")),
        ("softxent_client", ("numba", "llvmlite", "fastapi", "pydantic")),
        (
            "softxent_service.http.server",
            ("dask", "dbos", "distributed", "obstore", "zarr"),
        ),
    ],
)
def test_import_is_light(package: str, heavy: tuple[str, ...]) -> None:
    loaded = python(f"import {package}, sys; print(*sys.modules)").split()
    assert set(heavy) & set(loaded) == set()


def test_explain_needs_no_compiler() -> None:
    loaded = python("import softxent, sys; softxent.explain([1, 2], 0); print(*sys.modules)")
    assert "numba" not in loaded.split()


def test_one_version() -> None:
    assert project()["version"] == softxent.__version__
    released = re.findall(r"^## \[(\d\S*)\]", text("CHANGELOG.md"), re.MULTILINE)
    upcoming = re.search(r"^## \[Unreleased\] - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert softxent.__version__ == (upcoming[1] if upcoming else released[0])


def test_layers_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_derivation_prints_what_it_shows() -> None:
    blocks = re.findall(r"```(python|text)\n(.*?)```", text("docs/derivation.md"), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "text"] * 2
    for (_, code), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        assert python(code) == shown


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")))
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_form_has_a_place_in_the_kernels() -> None:
    """The table at the end of the derivation names functions that are there."""
    folder = ROOT / "kernels/softxent/_kernels"
    table = text("docs/derivation.md").partition("## Where each form is computed")[2]
    places = re.findall(r"`(\w+/\w+\.py)`: ((?:`\w+`(?:, )?)+)", table)
    assert len(places) >= 13
    for file, names in places:
        source = (folder / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^ *def {name}\(|^{name} = ", source, re.M), (file, name)
