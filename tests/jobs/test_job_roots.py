"""No URL leads anywhere but below the roots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softxent_service.jobs.errors import LocationError
from softxent_service.jobs.roots import Place, Roots
from softxent_service.jobs.storage import Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "root"


def test_a_place_below_a_root_is_split_from_it(root: Path) -> None:
    roots = Roots([f"file://{root}", "s3://bucket/deep"])
    place = roots.place(f"file://{root}/a/x.zarr", "logits")
    assert (place.root, place.path) == (f"file://{root}", "a/x.zarr")
    assert place.folder == root / "a" / "x.zarr"
    assert place.url == f"file://{root}/a/x.zarr"
    assert roots.place("s3://bucket/deep/y", "logits") == Place("s3://bucket/deep", "y")
    assert roots.place("s3://bucket/deep/y%2Fz", "logits").path == "y%2Fz"


def test_percent_signs_of_files_are_decoded_once(root: Path) -> None:
    roots = Roots([f"file://{root}"])
    assert roots.place(f"file://{root}/a%20b%25c", "logits").path == "a b%c"
    assert roots.place(f"file://{root}/a%20b", "logits").url == f"file://{root}/a%20b"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "{root}/../outside/secret",
        "{root}/a/%2e%2e/%2e%2e/outside/secret",
        "{root}/./a",
        "{root}//a",
        "{root}",
        "{root}x/a",
        "{root}/a%00b",
        "{root}/a%0ab",
        "{root}/a\\b",
        "{root}/a?x=1",
        "{root}/a#x",
        "{root}/a?",
        "file://example.org{path}/a",
        "http://127.0.0.1/a",
        "https://bucket.s3.amazonaws.com/deep/a",
        "ftp://bucket/deep/a",
        "gopher://bucket/deep/a",
        "s3://bucket/other/a",
        "s3://bucket/deep/../other",
        "{root}%2fa",
        "{root}/a%2Fb",
        "{root}/a%2f..%2fb",
        "{root}/%ff",
        "{root}/\ud800",
        "s3://bucket/deeper/a",
        "s3://bucket",
        "s3://user:key@bucket/deep/a",
        "s3://bucket:80/deep/a",
        "s3:///deep/a",
        "s3://[::1/deep/a",
        "data:,a",
        "a/b",
        "",
        "file:",
        5,
        None,
        "s3://bucket/deep/" + "a" * 5000,
    ],
)
def test_everything_else_is_refused(root: Path, url: object) -> None:
    roots = Roots([f"file://{root}", "s3://bucket/deep"])
    if isinstance(url, str):
        url = url.replace("{root}", f"file://{root}").replace("{path}", str(root))
    with pytest.raises(LocationError) as refused:
        roots.place(url, "logits")
    assert refused.value.field == "logits"


def test_without_roots_everything_is_refused(root: Path) -> None:
    with pytest.raises(LocationError, match="they are none"):
        Roots([]).place(f"file://{root}/a", "labels")


def test_links_within_a_root_are_followed_and_links_out_are_not(root: Path) -> None:
    (root / "inner").symlink_to(root / "a")
    (root / "out").symlink_to(root.parent / "outside")
    roots = Roots([f"file://{root}"])
    assert roots.place(f"file://{root}/inner/x", "logits").path == "inner/x"
    with pytest.raises(LocationError, match="symbolic link"):
        roots.place(f"file://{root}/out/secret", "logits")


def test_a_root_may_be_a_link_itself(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    roots = Roots([f"file://{root.parent}/link"])
    assert roots.place(f"file://{root.parent}/link/a", "logits").path == "a"


def test_a_link_made_later_is_not_followed_either(root: Path) -> None:
    folder = Folder(Roots([f"file://{root}"]).place(f"file://{root}/a", "logits"))
    (root / "a" / "chunk").write_bytes(b"1234")
    assert folder.read("chunk", 1, 3).tobytes() == b"23"
    (root / "a" / "chunk").unlink()
    (root / "a" / "chunk").symlink_to(root.parent / "outside" / "secret")
    with pytest.raises(LocationError):
        folder.read("chunk")
    with pytest.raises(LocationError):
        folder.read("chunk", 0, 2)
    with pytest.raises(LocationError):
        folder.write("chunk", b"")
    assert (root.parent / "outside" / "secret").read_bytes() == b"secret"


def test_places_know_what_lies_in_one_another() -> None:
    place = Place("s3://b", "x/y")
    assert place.contains(place.child("z"))
    assert place.contains(place)
    assert not place.contains(Place("s3://b", "x/yz"))
    assert not place.contains(Place("s3://b/x", "z"))
    assert Place("s3://b/x", "y").contains(place)


def test_files_are_written_whole_listed_and_removed(root: Path) -> None:
    folder = Folder(Place(f"file://{root}", "new"))
    assert folder.is_empty()
    folder.write("deep/one", b"1")
    folder.write("deep/one", b"22")
    assert list(folder.names("deep/")) == ["deep/one"]
    assert folder.size("deep/one") == 2
    assert np.array_equal(folder.read("deep/one"), np.frombuffer(b"22", np.uint8))
    folder.remove("deep")
    assert not folder.exists("deep/one")
    with pytest.raises(FileNotFoundError):
        folder.read("deep/one")
