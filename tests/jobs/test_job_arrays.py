"""Arrays at rest, read some rows at a time, and everything that can be wrong with their files."""

from __future__ import annotations

import os
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
        ("a folder", StorageError, "is a folder without zarr.json"),
        ("a file", StorageError, "is an empty file"),
        ("a group", StorageError, "is a Zarr group; name one of its arrays: it has none"),
        ("format 2", StorageError, "is a Zarr v2 array; convert it with `zarr migrate v3`"),
        ("metadata", StorageError, "cannot be read as a Zarr array"),
        ("complex", TensorError, "which is no number"),
        ("large chunks", TensorError, "has chunks of 34359738368 bytes; at most 1073741824"),
        ("objects", TensorError, "dtype object"),
        ("fortran", TensorError, "Fortran order"),
        ("a scalar", TensorError, "is a single number"),
        ("below a file", StorageError, "there is no array"),
        ("cut", StorageError, "has 4927 bytes, which is not its header and"),
        ("long", StorageError, "has 4929 bytes, which is not its header and"),
        ("not npy", StorageError, "is a text file; read it with numpy.loadtxt"),
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


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1), (1, 6, 1), (1, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_both_orders_of_one_long_dimension_are_the_same_bytes(
    tmp_path: Path, shape: tuple[int, ...], order: str
) -> None:
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    header = {"descr": "<f4", "fortran_order": order == "F", "shape": shape}
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(whole.tobytes())
    array = open_array(place(tmp_path, "x.npy"), "logits")
    assert (array.shape, array.read().tobytes()) == (shape, whole.tobytes())


@pytest.mark.parametrize(
    "header",
    [
        "-" * 9000 + "1",
        "(" * 9000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': 1}",
        "{'descr': 'O" + "(" * 300 + "', 'fortran_order': False, 'shape': (4,)}",
        "\x00",
    ],
)
def test_a_hostile_header_is_refused_by_name(tmp_path: Path, header: str) -> None:
    text = header.encode() + b"\n"
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (tmp_path / "x.npy").write_bytes(head + bytes(16))
    with pytest.raises(StorageError, match=r"x\.npy (cannot be read as a .npy file|has \d+ bytes)"):
        open_array(place(tmp_path, "x.npy"), "logits")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    os.mkfifo(tmp_path / "y")
    for name in ("x.npy", "y"):
        with pytest.raises(StorageError, match="is a pipe, a device or a socket"):
            open_array(place(tmp_path, name), "logits")
