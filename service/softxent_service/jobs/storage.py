"""Files below a place, in the file system or an object store, by one interface.

Every write is whole or not there: a temporary file that is renamed, or one PUT.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt
import obstore
from obstore.exceptions import GenericError
from obstore.store import S3Store
from tenacity import (
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_fixed,
)
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore, WrapperStore

from softxent_service.jobs.errors import LocationError, StorageError
from softxent_service.jobs.roots import Place, is_inside, root_folder

if TYPE_CHECKING:
    from obstore.store import RetryConfig

Bytes = npt.NDArray[np.uint8]

MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What the file system says of a file that is not there."""

PATIENCE = timedelta(minutes=3)

RETRIES: RetryConfig = {
    "max_retries": 1000,
    "retry_timeout": PATIENCE,
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
"""How long an object store may be gone before a job fails; its own ten tries are over in 3 s, and a
server that was killed is back after 20."""

_repeated = retry(
    retry=retry_if_exception_type(GenericError),
    stop=stop_after_attempt(5) | stop_after_delay(PATIENCE),
    wait=wait_exponential(0.1, max=3),
    reraise=True,
)
"""Obstore itself does not repeat a removal that was cut (it is a POST), nor a list cut in its
answer; both may be."""


class Bucket(ObjectStore[S3Store]):
    """An object store where removals and lists, too, outlive a server that was killed."""

    @_repeated
    async def delete(self, key: str) -> None:  # noqa: D102
        await super().delete(key)

    @_repeated
    async def delete_dir(self, prefix: str) -> None:  # noqa: D102
        self._check_writable()
        names = [
            name async for name in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else "")
        ]
        # A thousand a request; one by one, as Zarr does it, takes longer than a small job.
        await obstore.delete_async(self.store, names)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:  # noqa: D102
        for name in await self._names(prefix):
            yield name

    @_repeated
    async def _names(self, prefix: str) -> list[str]:
        return [name async for name in super().list_prefix(prefix)]


def _is_disturbed(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.ENOENT)


class Confined(WrapperStore[LocalStore]):
    """A folder that no symbolic link leads out of, checked whenever a file is opened."""

    def __init__(self, store: LocalStore, root: Path) -> None:
        super().__init__(store)
        self._root = root

    def _with_store(self, store: LocalStore) -> Confined:
        return Confined(store, self._root)

    def _check(self, key: str) -> None:
        if not is_inside(self._store.root / key, self._root):
            raise LocationError(f"{self._store.root / key} leads out of its root")

    async def get(  # noqa: D102
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None and not isinstance(byte_range, RangeByteRequest):
            self._check(key)
            return await super().get(key, prototype, byte_range)
        try:
            data = await asyncio.to_thread(self.read, key, byte_range)
        except MISSING:
            return None
        return prototype.buffer.from_array_like(data)

    def read(self, key: str, part: RangeByteRequest | None) -> Bytes:
        """Return the bytes of a file, or a part of them; what is not there raises `OSError`.

        The store's own way is by `bytes`, which took 36 ms for a chunk of 64 MB, where this takes
        15.
        """
        self._check(key)
        path = self._store.root / key
        size = path.stat().st_size
        start, end = (0, size) if part is None else (part.start, min(part.end, size))
        return np.fromfile(path, np.uint8, max(0, end - start), offset=start)

    async def get_partial_values(  # noqa: D102
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        ranges = list(key_ranges)
        for key, _ in ranges:
            self._check(key)
        return await super().get_partial_values(prototype, ranges)

    async def set(self, key: str, value: Buffer) -> None:  # noqa: D102
        self._check(key)
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:  # noqa: D102
        self._check(key)
        await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:  # noqa: D102
        self._check(key)
        await super().delete(key)

    # A worker whose runner died may write what is removed here.
    @retry(
        retry=retry_if_exception(_is_disturbed),
        stop=stop_after_attempt(10),
        wait=wait_fixed(0.1),
        reraise=True,
    )
    async def delete_dir(self, prefix: str) -> None:  # noqa: D102
        self._check(prefix)
        await super().delete_dir(prefix)


@lru_cache(maxsize=256)
def store_at(place: Place, *, read_only: bool) -> Store:
    """Return the Zarr store whose root is a place; credentials of s3 come from the environment."""
    if place.is_local:
        # One that may write makes its folder as soon as it is opened, to read only too.
        local = LocalStore(place.folder, read_only=read_only)
        return Confined(local, root_folder(place.root))
    bucket, _, prefix = place.root.removeprefix("s3://").partition("/")
    whole = "/".join(part for part in (prefix, place.path) if part)
    store = S3Store(bucket, prefix=whole, retry_config=RETRIES)
    return Bucket(store, read_only=read_only)


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
        with self._told("read", key):
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
        with self._told("read", key):
            return sync(self.store.getsize(key))

    def exists(self, key: str) -> bool:
        """Whether there is a file under this name."""
        try:
            with self._told("read", key):
                return sync(self.store.exists(key))
        except FileNotFoundError:
            return False

    def write(self, key: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        with self._told("written", key):
            sync(self.writer.set(key, buffer))

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the files below a prefix.

        Raises:
            StorageError: they cannot be listed.
        """
        try:
            with self._told("listed", prefix):
                yield from sync(_all(self.store.list_prefix(prefix)))
        except FileNotFoundError:
            return

    def is_empty(self) -> bool:
        """Whether nothing lies here."""
        return next(self.names(""), None) is None

    def remove(self, prefix: str) -> None:
        """Remove every file below a prefix.

        Raises:
            StorageError: they cannot be removed.
        """
        with self._told("removed", prefix):
            sync(self.writer.delete_dir(prefix))

    def tidy(self) -> None:
        """Remove files that were never whole, of writers that died; an object store keeps none.

        Raises:
            StorageError: they cannot be removed.
        """
        if isinstance(self.store, Confined):
            with self._told("removed", "*.partial"):
                for path in self.place.folder.rglob("*.partial"):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _told(self, what: str, key: str) -> Iterator[None]:
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
