"""Arrays at rest: Zarr v3, sharded or not, and `.npy`.

Neither layout knows bfloat16. In Zarr it is uint16 with the attribute `dtype: bfloat16`; in `.npy`
it is the type of two opaque bytes that NumPy writes for it.
"""

from __future__ import annotations

import hashlib
import io
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import zarr

from softxent.batch import dtype_name
from softxent.errors import TensorError
from softxent_service.jobs.errors import StorageError
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder, refuse

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

CHUNK_BYTES = 1 << 30
"""Largest chunk that is read, decoded; reading one number of a chunk decodes all of it."""

NPY_HEADER_BYTES = 16 << 10
"""Longest `.npy` header that is read; those of plain arrays have 128 bytes."""


@dataclass(frozen=True, eq=False)
class StoredArray(ABC):
    """An array that is read some of its rows at a time.

    Attributes:
        field: the tensor that it is.
        url: where it lies.
        shape, dtype: of what `read` returns.
        chunks: the part that is read at the cost of one number.
        fingerprint: changes where shape, type or layout do.
    """

    field: str
    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    fingerprint: str

    def read(self, *slices: slice) -> Array:
        """Return a part of the array; dimensions that are not named are whole.

        Raises:
            StorageError: it cannot be read, or is corrupt.
        """
        whole = slices + (slice(None),) * (len(self.shape) - len(slices))
        bounds = tuple(slice(*s.indices(n)[:2]) for s, n in zip(whole, self.shape, strict=True))
        try:
            return self._read(bounds)
        except Exception as error:
            where = ", ".join(f"{s.start}:{s.stop}" for s in bounds)
            refuse(error, f"{self.field}[{where}] of {self.url}", "read", self.field)

    @abstractmethod
    def _read(self, bounds: Slices) -> Array: ...


@dataclass(frozen=True, eq=False)
class ZarrArray(StoredArray):
    """An array of a Zarr store."""

    array: zarr.Array[Any]

    def _read(self, bounds: Slices) -> Array:
        values = np.asarray(self.array[bounds])
        return values.view(BFLOAT16) if self.dtype == BFLOAT16 else values


@dataclass(frozen=True, eq=False)
class NpyArray(StoredArray):
    """An array of a `.npy` file, in C order from `offset` on."""

    folder: Folder
    name: str
    offset: int

    def _read(self, bounds: Slices) -> Array:
        first = bounds[0]
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        start, stop = self.offset + first.start * row, self.offset + first.stop * row
        data = self.folder.read(self.name, start, stop) if stop > start else np.empty(0, np.uint8)
        if data.size != stop - start:
            raise StorageError(f"{self.url} ends after {data.size} of {stop - start} bytes")
        rows = data.view(self.dtype).reshape(first.stop - first.start, *self.shape[1:])
        return rows[(slice(None), *bounds[1:])]


def open_array(place: Place, field: str) -> StoredArray:
    """Open an array by what its name ends in: `.npy`, or else a Zarr array.

    Raises:
        StorageError: there is none, or it cannot be read.
        TensorError: it is of a layout that is not read here.
    """
    try:
        return _open_npy(place, field) if place.path.endswith(".npy") else _open_zarr(place, field)
    except FileNotFoundError:
        raise StorageError(f"there is no array at {place.url}", field=field) from None


def _open_zarr(place: Place, field: str) -> StoredArray:
    folder = Folder(place)
    metadata = folder.read("zarr.json").tobytes()
    try:
        array = zarr.open_array(folder.store, mode="r", zarr_format=3)
        dtype = np.dtype(array.dtype)
    except Exception as error:
        refuse(error, f"{place.url}", "read as a Zarr array", field)
    if dtype == np.uint16 and array.attrs.get("dtype") == "bfloat16":
        dtype = BFLOAT16
    _check_dtype(dtype, field)
    chunk_bytes = math.prod(array.chunks) * dtype.itemsize
    if chunk_bytes > CHUNK_BYTES:
        raise TensorError(
            f"{field} has chunks of {chunk_bytes} bytes; at most {CHUNK_BYTES} are read",
            field=field,
        )
    return ZarrArray(field, place.url, array.shape, dtype, array.chunks, _digest(metadata), array)


def _open_npy(place: Place, field: str) -> StoredArray:
    parent, _, name = place.path.rpartition("/")
    folder = Folder(Place(place.root, parent))
    size = folder.size(name)
    head = folder.read(name, 0, min(size, NPY_HEADER_BYTES)).tobytes()
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError) as error:
        raise StorageError(f"{place.url} is no .npy file: {error}", field=field) from None
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None:
        dtype = BFLOAT16
    _check_dtype(dtype, field)
    if fortran and len(shape) > 1:
        raise TensorError(f"{field} is a .npy in Fortran order; save it in C order", field=field)
    offset = stream.tell()
    if not shape or size != offset + math.prod(shape) * dtype.itemsize:
        raise StorageError(
            f"{place.url} has {size} bytes, which is not its header and {list(shape)} {dtype}",
            field=field,
        )
    chunks = (1, *(max(1, n) for n in shape[1:]))
    fingerprint = _digest(head[:offset])
    return NpyArray(field, place.url, shape, dtype, chunks, fingerprint, folder, name, offset)


def _check_dtype(dtype: np.dtype[Any], field: str) -> None:
    if dtype.kind not in "fiub" and dtype_name(dtype) != "bfloat16":
        raise TensorError(f"{field} has dtype {dtype}, which is no number", field=field)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def create_array(
    place: Place,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    like: StoredArray | None = None,
) -> None:
    """Create a Zarr array, compressed as `like` is; one that is there already is left.

    Raises:
        StorageError: it cannot be written.
    """
    folder = Folder(place)
    if folder.exists("zarr.json"):
        return
    bfloat16 = dtype == BFLOAT16
    source = like.array if isinstance(like, ZarrArray) else None
    try:
        zarr.create_array(
            folder.writer,
            shape=shape,
            dtype=np.dtype(np.uint16) if bfloat16 else dtype,
            chunks=tuple(max(1, n) for n in chunks),
            attributes={"dtype": "bfloat16"} if bfloat16 else {},
            compressors="auto" if like is None else source.compressors if source else None,
        )
    except Exception as error:
        refuse(error, place.url, "written")


def write_rows(place: Place, array: zarr.Array[Any], values: Array, *firsts: int) -> None:
    """Write a part of an array that begins at `firsts`; chunks of it belong to nobody else.

    Raises:
        StorageError: it cannot be written.
    """
    bits = values.view(np.uint16) if values.dtype == BFLOAT16 else values
    starts = firsts + (0,) * (bits.ndim - len(firsts))
    where = tuple(slice(a, a + n) for a, n in zip(starts, bits.shape, strict=True))
    try:
        array[where] = bits
    except Exception as error:
        refuse(error, place.url, "written")


def open_to_write(place: Place) -> zarr.Array[Any]:
    """Open an array that `create_array` has made.

    Raises:
        StorageError: it is not there.
    """
    try:
        array = zarr.open_array(Folder(place).writer, mode="r+")
        # A chunk of zeros that is left out would lose the sign of -0.0.
        return array.with_config({"write_empty_chunks": True})
    except Exception as error:
        refuse(error, place.url, "written")
