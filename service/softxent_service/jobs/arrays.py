"""Arrays at rest: Zarr v3, sharded or not, and `.npy`.

Neither layout knows bfloat16. In Zarr it is uint16 with the attribute `dtype: bfloat16`; in `.npy`
it is the type of two opaque bytes that NumPy writes for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import zarr

from softxent.dtypes import dtype_name
from softxent.errors import TensorError
from softxent_service.jobs.errors import InputChangedError, MissingArrayError, StorageError
from softxent_service.jobs.formats import describe, file_at, refuse_group
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder, refuse

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

BFLOAT16_NAN = 0x7FC0

METADATA = "zarr.json"

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
        folder: where its files are.
        key: the name of the file that says what it is: the `.npy` itself, or `zarr.json`.
        stamp: of that file, when the array was opened; see `Folder.stamp`.
    """

    field: str
    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    folder: Folder
    key: str
    stamp: str

    def check_unchanged(self) -> None:
        """Look whether the file that says what the array is is that which was opened.

        Raises:
            InputChangedError: it was written, replaced or touched since.
            StorageError: it is not there any more, or cannot be read.
        """
        try:
            now = self.folder.stamp(self.key)
        except FileNotFoundError:
            raise missing(self.field, self.url) from None
        if now != self.stamp:
            raise changed(self.field, self.url)

    @abstractmethod
    def version(self) -> str:
        """Return a digest that changes whenever any file of the array does.

        Raises:
            StorageError: its files cannot be listed.
        """

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

    def version(self) -> str:  # noqa: D102
        try:
            return _digest(self.folder.stamps())
        except FileNotFoundError:
            raise missing(self.field, self.url) from None

    def _read(self, bounds: Slices) -> Array:
        values = np.asarray(self.array[bounds])
        return values.view(BFLOAT16) if self.dtype == BFLOAT16 else values


@dataclass(frozen=True, eq=False)
class NpyArray(StoredArray):
    """An array of a `.npy` file, in C order from `offset` on."""

    offset: int

    def version(self) -> str:  # noqa: D102
        try:
            return _digest({self.key: self.folder.stamp(self.key)})
        except FileNotFoundError:
            raise missing(self.field, self.url) from None

    def _read(self, bounds: Slices) -> Array:
        first = bounds[0]
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        start, stop = self.offset + first.start * row, self.offset + first.stop * row
        data = self.folder.read(self.key, start, stop) if stop > start else np.empty(0, np.uint8)
        if data.size != stop - start:
            raise StorageError(f"{self.url} ends after {data.size} of {stop - start} bytes")
        rows = data.view(self.dtype).reshape(first.stop - first.start, *self.shape[1:])
        return rows[(slice(None), *bounds[1:])]


def open_array(place: Place, field: str) -> StoredArray:
    """Open an array by what its name ends in: `.npy`, or else a Zarr array.

    Raises:
        StorageError: there is none, it is of a format that is not read, or it cannot be read.
        TensorError: it is of a layout that is not read here.
    """
    try:
        return _open_npy(place, field) if place.path.endswith(".npy") else _open_zarr(place, field)
    except FileNotFoundError:
        found = describe(place)
        if found is None:
            raise missing(field, place.url) from None
        raise StorageError(f"{place.url} is {found}", field=field) from None


def missing(field: str, url: str) -> MissingArrayError:
    """Return the error of an array that is not there."""
    return MissingArrayError(f"there is no array at {url}", field=field)


def changed(field: str, url: str) -> InputChangedError:
    """Return the error of an array that is another than the one that was accepted."""
    return InputChangedError(
        f"{field} at {url} changed after the job was accepted; submit the job again, which begins"
        " anew, and leave its inputs as they are until it has ended",
        field=field,
    )


def _open_zarr(place: Place, field: str) -> StoredArray:
    folder = Folder(place)
    # Before anything is read: what is written later is noticed.
    stamp = folder.stamp(METADATA)
    try:
        array = zarr.open_array(folder.store, mode="r", zarr_format=3)
        dtype = np.dtype(array.dtype)
    except Exception as error:
        refuse_group(place, field)
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
    return ZarrArray(
        field, place.url, array.shape, dtype, array.chunks, folder, METADATA, stamp, array
    )


def _open_npy(place: Place, field: str) -> StoredArray:
    folder, name = file_at(place)
    stamp, size = folder.stamp(name), folder.size(name)
    head = folder.read(name, 0, min(size, NPY_HEADER_BYTES)).tobytes()
    shape, fortran, dtype, offset = _npy_header(head, place, field)
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None:
        dtype = BFLOAT16
    _check_dtype(dtype, field)
    # With one dimension that is longer than 1, both orders are the same bytes.
    if fortran and 0 not in shape and sum(n > 1 for n in shape) > 1:
        raise TensorError(
            f"{field} is a .npy in Fortran order; save it in C order, with numpy.save(path,"
            " numpy.ascontiguousarray(array))",
            field=field,
        )
    if not shape:
        raise TensorError(f"{field} at {place.url} is a single number, not an array", field=field)
    if min(shape) < 0 or size != offset + math.prod(shape) * dtype.itemsize:
        raise StorageError(
            f"{place.url} has {size} bytes, which is not its header and {list(shape)} {dtype}; it"
            " was cut off, or is being written",
            field=field,
        )
    chunks = (1, *(max(1, n) for n in shape[1:]))
    return NpyArray(field, place.url, shape, dtype, chunks, folder, name, stamp, offset)


def _npy_header(
    head: bytes, place: Place, field: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether it is in Fortran order, dtype, and where the values begin."""
    if not head.startswith(np.lib.format.MAGIC_PREFIX):
        found = describe(place) or "no .npy file"
        raise StorageError(f"{place.url} is {found}", field=field)
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except Exception as error:
        # Beside ValueError whatever Python's parser raises for a text that is no header.
        refuse(error, place.url, "read as a .npy file", field)
    return shape, fortran, dtype, stream.tell()


def _check_dtype(dtype: np.dtype[Any], field: str) -> None:
    if dtype.kind not in "fiub" and dtype_name(dtype) != "bfloat16":
        raise TensorError(f"{field} has dtype {dtype}, which is no number", field=field)


def _digest(stamps: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(stamps.items())).encode()).hexdigest()


def create_array(
    place: Place,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    like: StoredArray | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Create a Zarr array, compressed as `like` is; one that is there already is left.

    Where a chunk is missing, floating-point values read as NaN: nobody takes them for results.

    Raises:
        StorageError: it cannot be written.
    """
    folder = Folder(place)
    if folder.exists(METADATA):
        return
    bfloat16 = dtype == BFLOAT16
    source = like.array if isinstance(like, ZarrArray) else None
    try:
        zarr.create_array(
            folder.writer,
            shape=shape,
            dtype=np.dtype(np.uint16) if bfloat16 else dtype,
            chunks=tuple(max(1, n) for n in chunks),
            fill_value=BFLOAT16_NAN if bfloat16 else np.nan if dtype.kind == "f" else 0,
            attributes={**(attributes or {}), **({"dtype": "bfloat16"} if bfloat16 else {})},
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
