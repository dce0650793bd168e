"""The arrays below the roots: all of them, in pages, and nothing that lies elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from job_support import accepted, batch, save, save_zarr

from softxent_service.jobs import listing
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import StoppedError, run_job
from softxent_service.jobs.errors import SpecificationError, StorageError
from softxent_service.jobs.listing import DEEPEST, ArrayCursor, ArrayPage, list_arrays
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.stores import Confined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def listed(*folders: Path, limit: int = 500, cursor: ArrayCursor | None = None) -> ArrayPage:
    return list_arrays(Roots([f"file://{folder}" for folder in folders]), limit, cursor)


def names(root: Path, page: ArrayPage | None = None) -> list[str]:
    page = page or listed(root)
    return [array.url.removeprefix(f"file://{root}/") for array in page.arrays]


def all_pages(*folders: Path, limit: int) -> list[str]:
    found: list[str] = []
    cursor: ArrayCursor | None = None
    while True:
        page = listed(*folders, limit=limit, cursor=cursor)
        assert len(page.arrays) <= limit
        found += [array.url for array in page.arrays]
        if page.following is None:
            return found
        cursor = ArrayCursor.from_text(page.following)


def test_arrays_are_told_with_shape_and_dtype(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    np.save(root / "deep" / "er" / "labels.npy", np.zeros(7, np.int64))
    np.save(root / "half.npy", np.zeros((2, 3, 4), np.float16))
    save_zarr(root / "brain.zarr", np.zeros((5, 6), ml_dtypes.bfloat16), (5, 6))
    group = zarr.create_group(str(root / "group.zarr"))
    group.create_array("mask", shape=(4,), dtype="bool")
    (root / "notes.txt").write_text("none")
    told = {a["url"]: a for a in listed(root).to_json()["arrays"]}
    assert list(told) == [
        f"file://{root}/{name}"
        for name in ("brain.zarr", "deep/er/labels.npy", "group.zarr/mask", "half.npy")
    ]
    forms = [(a["format"], a["shape"], a["dtype"], a["problem"]) for a in told.values()]
    assert forms == [
        ("zarr", [5, 6], "bfloat16", None),
        ("npy", [7], "int64", None),
        ("zarr", [4], "bool", None),
        ("npy", [2, 3, 4], "float16", None),
    ]


def test_no_value_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(root / "big.npy", np.zeros((4000, 100)))
    save_zarr(root / "big.zarr", np.ones((4000, 100)), (4000, 100))
    read: list[tuple[str, int]] = []
    plain = Confined.read

    def spied(store: Confined, key: str, part: Any) -> Any:
        data = plain(store, key, part)
        read.append((key, data.size))
        return data

    monkeypatch.setattr(Confined, "read", spied)
    assert names(root) == ["big.npy", "big.zarr"]
    assert {key for key, _ in read} == {"big.npy", "zarr.json"}
    assert sum(size for _, size in read) < 64 << 10


def test_what_a_job_could_not_read_is_told_with_the_reason(root: Path) -> None:
    np.save(root / "cut.npy", np.zeros((10, 10)))
    with (root / "cut.npy").open("r+b") as file:
        file.truncate(200)
    (root / "pickle.npy").write_bytes(b"\x80\x04.")
    np.save(root / "text.npy", np.array(["a", "b"]))
    (root / "broken.zarr").mkdir()
    (root / "broken.zarr" / "zarr.json").write_text("{")
    os.mkfifo(root / "pipe.npy")
    page = listed(root)
    assert names(root, page) == ["broken.zarr", "cut.npy", "pickle.npy", "pipe.npy", "text.npy"]
    assert all((array.shape, array.dtype) == (None, None) for array in page.arrays)
    words = [array.problem or "" for array in page.arrays]
    wanted = ("Zarr array", "cut off", "a pickle", "a pipe", "no number")
    assert all(want in word for want, word in zip(wanted, words, strict=True)), words


def test_no_link_leads_out_or_round(root: Path) -> None:
    outside = root.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    np.save(outside / "secret.npy", np.zeros(3))
    np.save(outside / "deep" / "secret.npy", np.zeros(3))
    (root / "inner").mkdir()
    np.save(root / "inner" / "mine.npy", np.zeros(3))
    (root / "out").symlink_to(outside)
    (root / "secret.npy").symlink_to(outside / "secret.npy")
    (root / "inner" / "up").symlink_to(root)
    (root / "inner" / "self").symlink_to(root / "inner")
    (root / "nowhere.npy").symlink_to(root / "nothing")
    (root / "same").symlink_to(root / "inner")
    assert names(root) == ["inner/mine.npy", "nowhere.npy", "same/mine.npy"]
    cursor = ArrayCursor(0, ("..", "outside", "a"))
    assert "outside" not in "".join(names(root, listed(root, cursor=cursor)))


def test_hostile_names_are_text_or_left_out(root: Path) -> None:
    for name in ("<b onclick=alert(1)>.npy", "a b%20.npy", "ü.npy", "'\";--.npy", "a?b#c.npy"):
        np.save(root / name, np.zeros(1))
    for raw in (b"\xff.npy", b"new\nline.npy", b"back\\slash.npy", b".hidden.npy"):
        (root / os.fsdecode(raw)).write_bytes(b"")
    assert names(root) == [
        "%27%22%3B--.npy",
        "%3Cb%20onclick%3Dalert%281%29%3E.npy",
        "a%20b%2520.npy",
        "a%3Fb%23c.npy",
        "%C3%BC.npy",
    ]
    for array in listed(root).arrays:
        place = Roots([f"file://{root}"]).place(array.url, "logits")
        assert place.folder.exists()


def test_half_done_results_are_left_out(root: Path, cluster: Cluster) -> None:
    save(root, batch(40, 5))
    job = accepted(root, block_bytes=20)
    with pytest.raises(StoppedError):
        run_job(job, cluster, lambda _: None, lambda: True)
    assert (root / "out" / "loss" / "zarr.json").exists()
    assert names(root) == ["labels.npy", "logits.npy"]
    run_job(job, cluster, lambda _: None, lambda: False)
    assert names(root) == ["labels.npy", "logits.npy", "out/loss"]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
def test_pages_hold_everything_once(root: Path, limit: int) -> None:
    other = root.parent / "other"
    paths = ("a", "a/b", "a/b/c", "ab", "b.d", "x")
    for folder in (root, other):
        for path in paths:
            (folder / path).mkdir(parents=True)
            for name in ("1.npy", "2.npy", "z.txt"):
                np.save(folder / path / "x.npy", np.zeros(1))
                (folder / path / name).write_bytes(b"")
    save_zarr(root / "b.zarr", np.zeros((5, 6)), (1, 1))
    whole = [array.url for array in listed(root, other).arrays]
    assert len(whole) == len({*whole}) == 2 * 3 * len(paths) + 1
    assert all_pages(root, other, limit=limit) == whole


def test_a_page_goes_on_where_its_last_array_was_removed(root: Path) -> None:
    for name in ("a", "b", "c"):
        np.save(root / f"{name}.npy", np.zeros(1))
    page = listed(root, limit=2)
    (root / "b.npy").unlink()
    assert page.following is not None
    rest = listed(root, cursor=ArrayCursor.from_text(page.following))
    assert names(root, rest) == ["c.npy"]


def test_a_request_looks_at_so_many_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_ENTRIES", 5)
    for number in range(23):
        (root / f"{number:02d}.txt").write_bytes(b"")
    np.save(root / "21.npy", np.zeros(1))
    pages, cursor = 0, None
    found: list[str] = []
    while pages == 0 or cursor is not None:
        page = listed(root, cursor=cursor)
        found += names(root, page)
        pages += 1
        cursor = ArrayCursor.from_text(page.following) if page.following else None
    assert (found, pages) == (["21.npy"], 5)


def test_folders_that_are_too_deep_are_said(root: Path) -> None:
    folder = root.joinpath(*"abcdefgh"[: DEEPEST - 1])
    folder.mkdir(parents=True)
    np.save(folder / "last.npy", np.zeros(1))
    assert (len(names(root)), listed(root).truncated) == (1, False)
    (folder / "deeper").mkdir()
    np.save(folder / "deeper" / "lost.npy", np.zeros(1))
    assert (len(names(root)), listed(root).truncated) == (1, True)


def test_a_root_that_is_not_there_yet_has_no_arrays(root: Path) -> None:
    assert listed(root / "later").to_json() == {"arrays": [], "next": None, "truncated": False}
    assert list_arrays(Roots([]), 5).arrays == []


def test_a_root_that_cannot_be_listed_is_an_error(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(StorageError, match="cannot be listed"):
        listed(root / "loop")


@pytest.mark.parametrize("text", ["", "x", "0", "0/", "-1/a", "99999/a", "a/0"])
def test_a_cursor_of_others_is_refused(text: str) -> None:
    with pytest.raises(SpecificationError, match="not one of ours"):
        ArrayCursor.from_text(text)
