"""Files below a place, in the file system or an object store, by one interface.

Every write is whole or not there: a temporary file that is renamed, or one PUT.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from softxent_service.jobs.errors import LocationError, StorageError
from softxent_service.jobs.roots import Place
from softxent_service.jobs.stores import MISSING, Bytes, Confined, store_at


class Folder:
    """The files below a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.store = store_at(place, read_only=True)

    @property
    def writer(self) -> Store:
        """Return the store that may write."""
        return store_at(self.place, read_only=False)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Bytes:
        """Return the bytes of a file, or some of them.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read.
        """
        part = None if stop is None else RangeByteRequest(start, stop)
        with self._storage_errors("read", key):
            return self._fetch(key, part)

    def _fetch(self, key: str, part: RangeByteRequest | None) -> Bytes:
        if isinstance(self.store, Confined):
            # At once: through the store's event loop it is three switches of threads.
            return self.store.read(key, part)
        found = sync(self.store.get(key, default_buffer_prototype(), part))
        if found is None:
            raise FileNotFoundError
        return np.asarray(found.as_numpy_array()).view(np.uint8)

    def size(self, key: str) -> int:
        """Return how many bytes a file has.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read.
        """
        with self._storage_errors("read", key):
            return sync(self.store.getsize(key))

    def stamp(self, key: str) -> str:
        """Return what changes whenever a file is written, replaced or touched.

        Of a file these are its size, its times of modification and of change, and its inode; of an
        object its size, time, ETag and version.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read.
        """
        with self._storage_errors("read", key):
            return sync(self.store.stamp(key))

    def stamps(self) -> dict[str, str]:
        """Return the stamps of all files here, by name.

        Raises:
            FileNotFoundError: there is no such folder.
            StorageError: they cannot be listed.
        """
        with self._storage_errors("listed", ""):
            return sync(self.store.stamps())

    def exists(self, key: str) -> bool:
        """Whether there is a file under this name."""
        try:
            with self._storage_errors("read", key):
                return sync(self.store.exists(key))
        except FileNotFoundError:
            return False

    def write(self, key: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        with self._storage_errors("written", key):
            sync(self.writer.set(key, buffer))

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the files below a prefix.

        Raises:
            StorageError: they cannot be listed.
        """
        try:
            with self._storage_errors("listed", prefix):
                yield from sync(_all(self.store.list_prefix(prefix)))
        except FileNotFoundError:
            return

    def children(self) -> set[str]:
        """Return the names of files and folders here; none where there is no folder.

        Raises:
            StorageError: they cannot be listed.
        """
        try:
            with self._storage_errors("listed", ""):
                return set(sync(_all(self.store.list_dir(""))))
        except FileNotFoundError:
            return set()

    def entries(self) -> Iterator[tuple[str, bool]]:
        """Yield the names of files and folders here, and whether they are folders.

        Raises:
            FileNotFoundError: there is no such folder.
            StorageError: they cannot be listed.
        """
        with self._storage_errors("listed", ""):
            yield from self.store.entries()

    def is_empty(self) -> bool:
        """Whether nothing lies here."""
        return next(self.names(""), None) is None

    def remove(self, prefix: str) -> None:
        """Remove every file below a prefix.

        Raises:
            StorageError: they cannot be removed.
        """
        with self._storage_errors("removed", prefix):
            sync(self.writer.delete_dir(prefix))

    def tidy(self) -> None:
        """Remove files that were never whole, of writers that died; an object store keeps none.

        Raises:
            StorageError: they cannot be removed.
        """
        if isinstance(self.store, Confined):
            with self._storage_errors("removed", "*.partial"):
                for path in self.place.folder.rglob("*.partial"):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _storage_errors(self, what: str, key: str) -> Iterator[None]:
        """Raise what tells that a file could not be `what`, and why."""
        try:
            yield
        except Exception as error:
            name = f"{self.place.url}/{key}".rstrip("/")
            if isinstance(error, MISSING) and what in ("read", "listed"):
                raise FileNotFoundError(errno.ENOENT, "there is no such file", name) from error
            refuse(error, name, what)


def refuse(error: Exception, name: str, what: str, field: str | None = None) -> NoReturn:
    """Raise what tells that something could not be read or written, and why.

    Raises:
        StorageError, or the error itself where it tells that already.
    """
    if isinstance(error, (StorageError, LocationError)):
        raise error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(reason.split())[:300] or type(error).__name__
    raise StorageError(f"{name} cannot be {what}: {text}", field=field) from error


async def _all(names: AsyncIterator[str]) -> list[str]:
    return [name async for name in names]
