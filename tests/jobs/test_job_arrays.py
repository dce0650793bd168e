"""Arrays at rest, read some rows at a time, and everything that can be wrong with their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from job_support import BFLOAT16, save_zarr

from softxent import TensorError
from softxent.errors import SoftxentError
from softxent_service.jobs.arrays import create_array, open_array, open_to_write, write_rows
from softxent_service.jobs.errors import StorageError
from softxent_service.jobs.roots import Place

DTYPES: list[Any] = [
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ">f4",
    np.int8,
    ">u8",
    "?",
]


def place(folder: Path, name: str) -> Place:
    return Place(f"file://{folder}", name)


def values(dtype: Any) -> Any:
    return np.random.default_rng(1).normal(size=(13, 10)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_reads_back(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "x.npy", values(dtype))
    array = open_array(place(tmp_path, "x.npy"), "logits")
    assert (array.shape, array.dtype) == ((13, 10), np.dtype(dtype))
    got = array.read(slice(3, 9), slice(2, 20))
    assert got.tobytes() == values(dtype)[3:9, 2:20].tobytes()
    assert array.read(slice(5, 5)).shape == (0, 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [None, (8, 12)])
def test_zarr_reads_back(tmp_path: Path, dtype: Any, shards: tuple[int, ...] | None) -> None:
    save_zarr(tmp_path / "x", values(dtype), (4, 3), shards)
    array = open_array(place(tmp_path, "x"), "logits")
    assert (array.shape, array.chunks) == ((13, 10), (4, 3))
    got = array.read(slice(3, 9))
    assert got.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    assert got.astype(np.float64).tobytes() == values(dtype)[3:9].astype(np.float64).tobytes()


def test_an_array_that_is_written_in_parts_reads_back(tmp_path: Path) -> None:
    out = place(tmp_path, "out")
    create_array(out, (13, 10), BFLOAT16, (4, 5))
    whole = values(ml_dtypes.bfloat16)
    for row in range(0, 13, 4):
        for column in (0, 5):
            write_rows(
                out, open_to_write(out), whole[row : row + 4, column : column + 5], row, column
            )
    assert open_array(out, "logits").read().tobytes() == whole.tobytes()


def test_zeros_keep_their_sign(tmp_path: Path) -> None:
    out = place(tmp_path, "out")
    create_array(out, (4,), np.dtype(np.float32), (4,))
    write_rows(out, open_to_write(out), np.full(4, -0.0, np.float32), 0)
    assert np.signbit(open_array(out, "loss").read()).all()


def test_uint16_without_a_word_is_no_bfloat16(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "x"), data=np.zeros((2, 2), np.uint16))
    assert open_array(place(tmp_path, "x"), "logits").dtype == np.uint16


def broken(folder: Path, fault: str) -> Place:
    """Write an array that has a fault, and return where."""
    if fault == "missing":
        return place(folder, "nothing")
    if fault == "missing file":
        return place(folder, "nothing.npy")
    if fault == "a folder":
        (folder / "x").mkdir()
        return place(folder, "x")
    if fault == "a file":
        (folder / "x").write_bytes(b"")
        return place(folder, "x")
    if fault == "below a file":
        (folder / "x").write_bytes(b"")
        return place(folder, "x/y.npy")
    if fault == "a group":
        zarr.create_group(str(folder / "x"))
        return place(folder, "x")
    if fault == "format 2":
        zarr.create_array(str(folder / "x"), data=np.zeros(3), zarr_format=2)
        return place(folder, "x")
    if fault == "metadata":
        (folder / "x").mkdir()
        (folder / "x" / "zarr.json").write_text("{")
        return place(folder, "x")
    if fault == "complex":
        zarr.create_array(str(folder / "x"), data=np.array([1j]))
        return place(folder, "x")
    if fault == "large chunks":
        zarr.create_array(str(folder / "x"), shape=(1 << 30, 8), chunks=(1 << 30, 8), dtype="f4")
        return place(folder, "x")
    return broken_npy(folder, fault)


def broken_npy(folder: Path, fault: str) -> Place:
    path = folder / "x.npy"
    if fault == "objects":
        np.save(path, np.array([{}, 1], object), allow_pickle=True)
    elif fault == "fortran":
        np.save(path, np.asfortranarray(np.zeros((3, 2))))
    elif fault == "a scalar":
        np.save(path, np.float32(3))
    else:
        np.save(path, np.zeros((30, 20)))
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-1], "long": data + b"0", "not npy": b"x" * 300}[fault])
    return place(folder, "x.npy")


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("missing", StorageError, "there is no array at file:///"),
        ("missing file", StorageError, "there is no array at file:///"),
        ("a folder", StorageError, "there is no array"),
        ("a file", StorageError, "there is no array"),
        ("a group", StorageError, "cannot be read as a Zarr array"),
        ("format 2", StorageError, "there is no array"),
        ("metadata", StorageError, "cannot be read as a Zarr array"),
        ("complex", TensorError, "which is no number"),
        ("large chunks", TensorError, "has chunks of 34359738368 bytes; at most 1073741824"),
        ("objects", TensorError, "dtype object"),
        ("fortran", TensorError, "Fortran order"),
        ("a scalar", StorageError, "has 132 bytes, which is not its header and"),
        ("below a file", StorageError, "there is no array"),
        ("cut", StorageError, "has 4927 bytes, which is not its header and"),
        ("long", StorageError, "has 4929 bytes, which is not its header and"),
        ("not npy", StorageError, "is no .npy file"),
    ],
)
def test_what_is_no_array_is_refused(
    tmp_path: Path, fault: str, error: type[SoftxentError], text: str
) -> None:
    with pytest.raises(error, match=text) as refused:
        open_array(broken(tmp_path, fault), "labels")
    assert refused.value.field == "labels"


def test_looking_for_an_array_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_array(place(tmp_path, "deep/nothing"), "labels")
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_chunk_is_named_by_its_rows(tmp_path: Path) -> None:
    save_zarr(tmp_path / "x", values(np.float32), (4, 10))
    chunk = tmp_path / "x" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    array = open_array(place(tmp_path, "x"), "logits")
    assert array.read(slice(0, 4)).shape == (4, 10)
    with pytest.raises(StorageError, match=r"logits\[4:8, 0:10\] of file:///.* cannot be read"):
        array.read(slice(4, 8))


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", values(np.float32))
    array = open_array(place(tmp_path, "x.npy"), "logits")
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-20])
    with pytest.raises(StorageError, match="ends after 60 of 80 bytes"):
        array.read(slice(11, 13))


def test_fingerprints_tell_forms_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", values(np.float32))
    np.save(tmp_path / "y.npy", values(np.float16))
    save_zarr(tmp_path / "z", values(np.float32), (4, 3))
    save_zarr(tmp_path / "w", values(np.float32), (4, 4))
    names = ("x.npy", "y.npy", "z", "w")
    prints = {open_array(place(tmp_path, name), "logits").fingerprint for name in names}
    assert len(prints) == 4
