"""Zarr stores in the file system and in object stores.

A store of the file system follows no symbolic link out of its root. An object store repeats what
fails while its server restarts. Both tell by `stamp` whether a file has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import obstore
from obstore.exceptions import GenericError
from obstore.store import S3Store
from tenacity import (
    retry,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
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

_TRANSIENT = re.compile(
    r"HTTP error|response body|status code: (5\d\d|429)|InternalError|ServiceUnavailable|SlowDown"
)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, GenericError) and bool(_TRANSIENT.search(str(error)))


_repeated = retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_delay(PATIENCE),
    wait=wait_random_exponential(0.1, max=3),
    reraise=True,
)
"""Obstore repeats a request that was refused, but not a removal whose connection was cut (it is a
POST), a list that was cut in its answer, or a key of many that could not be removed."""


class Bucket(ObjectStore[S3Store]):
    """An object store all of whose operations outlive a restart of the server."""

    @_repeated
    async def get(  # noqa: D102
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return await super().get(key, prototype, byte_range)

    @_repeated
    async def get_partial_values(  # noqa: D102
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return await super().get_partial_values(prototype, key_ranges)

    @_repeated
    async def exists(self, key: str) -> bool:  # noqa: D102
        return await super().exists(key)

    @_repeated
    async def getsize(self, key: str) -> int:  # noqa: D102
        return await super().getsize(key)

    @_repeated
    async def set(self, key: str, value: Buffer) -> None:  # noqa: D102
        await super().set(key, value)

    @_repeated
    async def set_if_not_exists(self, key: str, value: Buffer) -> None:  # noqa: D102
        await super().set_if_not_exists(key, value)

    @_repeated
    async def delete(self, key: str) -> None:  # noqa: D102
        await super().delete(key)

    @_repeated
    async def delete_dir(self, prefix: str) -> None:  # noqa: D102
        self._check_writable()
        names = [meta["path"] for meta in await self._metas(_folder(prefix))]
        # A thousand a request; one by one, as Zarr does it, takes longer than a small job.
        await obstore.delete_async(self.store, names)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:  # noqa: D102
        for meta in await self._metas(prefix):
            yield meta["path"]

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:  # noqa: D102
        for name in await self._names(prefix):
            yield name

    @_repeated
    def entries(self) -> Iterator[tuple[str, bool]]:
        """Return the names of objects and folders here, and whether they are folders."""
        found = obstore.list_with_delimiter(self.store)
        files = ((meta["path"], False) for meta in found["objects"])
        return chain(((name, True) for name in found["common_prefixes"]), files)

    @_repeated
    async def _metas(self, prefix: str) -> list[Any]:
        return [meta async for meta in super()._list(prefix)]

    @_repeated
    async def _names(self, prefix: str) -> list[str]:
        return [name async for name in super().list_dir(prefix)]

    @_repeated
    async def stamp(self, key: str) -> str:
        """Return what changes with every write of an object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return _version_of_meta(await obstore.head_async(self.store, key))

    async def stamps(self) -> dict[str, str]:
        """Return the stamp of every object, by name."""
        return {meta["path"]: _version_of_meta(meta) for meta in await self._metas("")}


def _folder(prefix: str) -> str:
    return f"{prefix.rstrip('/')}/" if prefix else ""


def _version_of_meta(meta: Mapping[str, Any]) -> str:
    when = meta["last_modified"].isoformat()
    return f"{meta['size']} {when} {meta['e_tag']} {meta['version']}"


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
        size = _file_stat(path).st_size
        start, end = (0, size) if part is None else (part.start, min(part.end, size))
        return np.fromfile(path, np.uint8, max(0, end - start), offset=start)

    async def getsize(self, key: str) -> int:  # noqa: D102
        # Zarr's own way reads the whole file.
        self._check(key)
        return _file_stat(self._store.root / key).st_size

    async def stamp(self, key: str) -> str:
        """Return what changes with every change of a file.

        Raises:
            OSError: there is no such file.
            StorageError: it is no file.
        """
        self._check(key)
        return _version_of_stat(_file_stat(self._store.root / key))

    async def stamps(self) -> dict[str, str]:
        """Return the stamp of every file, by name."""
        root = str(self._store.root)
        return {path[len(root) + 1 :]: told for path, told in _stamps(root)}

    def entries(self) -> Iterator[tuple[str, bool]]:
        """Yield the names of files and folders here, and whether they are folders."""
        self._check("")
        with os.scandir(self._store.root) as found:
            for entry in found:
                yield entry.name, entry.is_dir()

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


def _stamps(folder: str) -> Iterator[tuple[str, str]]:
    """Yield path and stamp of every file below a folder; one that is being written is none yet."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stamps(entry.path)
            elif not entry.name.endswith(".partial"):
                with contextlib.suppress(FileNotFoundError):
                    yield entry.path, _version_of_stat(entry.stat())


def _version_of_stat(found: os.stat_result) -> str:
    """Return what changes with a file; nobody can set back the time of its last change, ctime."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _file_stat(path: Path) -> os.stat_result:
    """Return the status of a file; to open a pipe would wait for whoever writes to it."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"{path} is a pipe, a device or a socket; name a file")
    return found


@lru_cache(maxsize=256)
def store_at(place: Place, *, read_only: bool) -> Bucket | Confined:
    """Return the Zarr store whose root is a place; credentials of s3 come from the environment."""
    if place.is_local:
        # One that may write makes its folder as soon as it is opened, to read only too.
        local = LocalStore(place.folder, read_only=read_only)
        return Confined(local, root_folder(place.root))
    bucket, _, prefix = place.root.removeprefix("s3://").partition("/")
    whole = "/".join(part for part in (prefix, place.path) if part)
    store = S3Store(bucket, prefix=whole, retry_config=RETRIES)
    return Bucket(store, read_only=read_only)
