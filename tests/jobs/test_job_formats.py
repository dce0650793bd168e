"""Files of other formats are named, with what to do; only where nothing lies there is no array."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import zarr

from softxent_service.jobs.arrays import open_array
from softxent_service.jobs.errors import StorageError
from softxent_service.jobs.roots import Place

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
PARQUET = b"PAR1" + bytes(100) + b"PAR1"


def torch_zip(path: Path) -> None:
    """Write the members that torch.save writes, in its order."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits/data.pkl", pickle.dumps({}))
        archive.writestr("logits/data/0", VALUES.tobytes())


def npy_as(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, VALUES)


MAKERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "npz": ("x.npz", lambda path: np.savez(path, logits=VALUES), "an .npz archive; save"),
    "compressed npz": ("x.npz", lambda p: np.savez_compressed(p, a=VALUES), "an .npz archive"),
    "torch": ("x.pt", torch_zip, "a file of torch.save; save"),
    "pickle": ("x.pt", lambda path: path.write_bytes(pickle.dumps([1], 2)), "a pickle"),
    "zip": ("x.zip", lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "a zip archive"),
    "safetensors": (
        "x.safetensors",
        lambda path: safetensors.numpy.save_file({"logits": VALUES}, path),
        "a safetensors file; save the array as Zarr v3 (zarr.create_array) or as .npy",
    ),
    "HDF5": ("x.h5", lambda path: path.write_bytes(HDF5), "an HDF5 file; save"),
    "Parquet": ("x.parquet", lambda path: path.write_bytes(PARQUET), "a Parquet file; save"),
    "Arrow": ("x.arrow", lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(9)), "an Arrow file"),
    "gzip": ("x.npy.gz", lambda p: p.write_bytes(gzip.compress(b"a")), "with gzip; unpack it"),
    "text": ("x.csv", lambda path: np.savetxt(path, VALUES), "a text file; read it with"),
    "unknown": ("x.bin", lambda path: path.write_bytes(bytes(99)), "no format that is known"),
    "empty": ("x", lambda path: path.write_bytes(b""), "an empty file"),
    "npy by another name": ("x.bin", npy_as, "whose name does not end in .npy; rename it"),
    "Zarr v2": (
        "x",
        lambda path: zarr.create_array(str(path), data=VALUES, zarr_format=2),
        "a Zarr v2 array; convert it with `zarr migrate v3`",
    ),
    "Zarr v2 group": ("x", lambda p: zarr.create_group(str(p), zarr_format=2), "a Zarr v2 group"),
    "folder": ("x", lambda path: path.mkdir(), "a folder without zarr.json; name a Zarr v3"),
    "folder of files": (
        "x",
        lambda path: (path.mkdir(), (path / "a").write_bytes(b"1")),  # type: ignore[func-returns-value]
        "a folder without zarr.json",
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_format_is_named_and_what_to_do(tmp_path: Path, kind: str) -> None:
    name, make, text = MAKERS[kind]
    make(tmp_path / name)
    with pytest.raises(StorageError) as refused:
        open_array(Place(f"file://{tmp_path}", name), "logits")
    assert refused.value.field == "logits"
    assert refused.value.message.startswith(f"file://{tmp_path}/{name} is ")
    assert text in refused.value.message


@pytest.mark.parametrize("kind", ["npz", "safetensors", "HDF5", "Parquet", "torch", "text"])
def test_content_counts_where_a_name_says_npy(tmp_path: Path, kind: str) -> None:
    name, make, text = MAKERS[kind]
    make(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "x.npy")
    with pytest.raises(StorageError) as refused:
        open_array(Place(f"file://{tmp_path}", "x.npy"), "labels")
    assert text in refused.value.message


def test_a_folder_whose_name_ends_in_npy(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "x.npy"), data=VALUES)
    with pytest.raises(StorageError, match=r"whose name ends in \.npy; name it without"):
        open_array(Place(f"file://{tmp_path}", "x.npy"), "logits")


def test_the_arrays_of_a_group_are_named(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "x"))
    for name in ("logits", "labels"):
        group.create_array(name, data=VALUES)
    with pytest.raises(StorageError, match="is a Zarr group; name one of its arrays: labels, log"):
        open_array(Place(f"file://{tmp_path}", "x"), "logits")


@pytest.mark.parametrize("name", ["x", "x.npy", "deep/x", "x.npz"])
def test_where_nothing_lies_there_is_no_array(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="there is no array at file:///"):
        open_array(Place(f"file://{tmp_path}", name), "logits")
    assert list(tmp_path.iterdir()) == []
