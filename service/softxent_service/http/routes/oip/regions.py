"""Regions of system shared memory that clients have registered.

Objects belong to their clients, who may shrink or remove them at any moment. `MappedFile` keeps a
shrunk one from raising a signal; here it becomes an error, before and after the memory is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from softxent.errors import OutputBufferError
from softxent.evaluations import PER_LOGIT
from softxent.mmap_guard import PLACES, MappedFile
from softxent_client.wire import LimitExceededError
from softxent_client.wire.oip_form import Region
from softxent_service.http.errors import RegionError, RegionTakenError, UnknownRegionError

FOLDER = Path("/dev/shm")

MOST = PLACES
"""Regions that may be registered at a time."""

LARGEST = 1 << 62
"""Bytes, so that sums of two of them are still numbers of the system."""


@dataclass(frozen=True, eq=False)
class Registered:
    """One region: `size` bytes from `offset` of an object.

    Attributes:
        object_id: device and inode, by which an object is the same under any name.
    """

    name: str
    key: str
    offset: int
    size: int
    path: Path
    object_id: tuple[int, int]
    file: MappedFile

    def to_json(self) -> dict[str, Any]:
        """Return it as the protocol writes it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.size,
        }

    def check(self) -> None:
        """Refuse a region whose object is not what was registered any more.

        Raises:
            RegionError: it was shrunk or removed.
        """
        if self.file.is_lost:
            raise self._gone("was shrunk")
        try:
            found = _object_id(os.stat(self.path, follow_symlinks=False))
        except OSError:
            found = None
        if found != self.object_id:
            raise self._gone("was removed")

    def _gone(self, how: str) -> RegionError:
        return RegionError(
            f"shared memory region {self.name!r} {how} after it was registered; unregister it",
            field=self.name,
        )


class Regions:
    """Registered regions by name; those in use stay mapped."""

    def __init__(self) -> None:
        self._regions: dict[str, Registered] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Map a region of the object called `key`.

        Raises:
            RegionTakenError: the name is taken.
            RegionError: there is no such object of this service's user, or it is too small.
            LimitExceededError: there are MOST regions.
        """
        if name in self._regions:
            raise RegionTakenError(f"shared memory region {name!r} already in manager", field=name)
        if len(self._regions) >= MOST:
            raise LimitExceededError(
                f"{MOST} regions are registered; unregister some", limit_name="regions", limit=MOST
            )
        path = _path(key)
        with _opened(path, key) as descriptor:
            found = os.fstat(descriptor)
            _check_owner(found, key)
            if not 0 < size <= found.st_size - offset <= LARGEST:
                raise RegionError(
                    f"failed to register shared memory region {name!r}: invalid args: {size} bytes "
                    f"from {offset} of an object of {found.st_size}",
                    field=name,
                )
            file = _mapped(descriptor, offset + size, name)
        self._regions[name] = Registered(name, key, offset, size, path, _object_id(found), file)

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all of them; a name that nobody has registered is no error."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """Return what is known of a region, or of all of them.

        Raises:
            UnknownRegionError: there is none of this name.
        """
        if name is None:
            return [region.to_json() for region in self._regions.values()]
        if name not in self._regions:
            raise UnknownRegionError(
                f"Unable to find system shared memory region: {name!r}", field=name
            )
        return [self._regions[name].to_json()]

    def find(self, name: str) -> Registered:
        """Return a region.

        Raises:
            UnknownRegionError: there is none of this name.
        """
        if name not in self._regions:
            raise UnknownRegionError(f"Unable to find shared memory region: {name!r}", field=name)
        return self._regions[name]


@dataclass(frozen=True, eq=False)
class _Stretch:
    """The bytes of an object in which a tensor lies, whatever its region is called."""

    tensor: str
    object_id: tuple[int, int]
    start: int
    stop: int
    view: memoryview

    def overlaps(self, other: _Stretch) -> bool:
        same = self.object_id == other.object_id
        return same and self.start < other.stop and other.start < self.stop

    def equals(self, other: _Stretch) -> bool:
        ends = (self.object_id, self.start, self.stop)
        return ends == (other.object_id, other.start, other.stop)


class Lease:
    """The regions that one call uses: they stay mapped, and what happens to them is told."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._held: list[Registered] = []
        self._stretches: list[_Stretch] = []

    def read(self, tensor: str, place: Region) -> memoryview:
        """Return the bytes of an input.

        Raises:
            UnknownRegionError, RegionError: there is no such region or stretch, or not any more.
        """
        stretch = self._stretch(tensor, place, place.size)
        self._stretches.append(stretch)
        return stretch.view

    def write(self, tensor: str, place: Region, size: int) -> memoryview:
        """Return the room of an output; all inputs and outputs of before are left alone.

        One value a logit may take exactly the place of the logits: under whatever name, the bytes
        returned are those that the logits were read from.

        Raises:
            UnknownRegionError, RegionError: there is no such region or stretch, or not any more.
            OutputBufferError: another tensor lies there.
        """
        stretch = self._stretch(tensor, place, size)
        for other in filter(stretch.overlaps, self._stretches):
            if other.tensor == "logits" and tensor in PER_LOGIT and stretch.equals(other):
                stretch = replace(stretch, view=other.view)
                continue
            raise OutputBufferError(
                f"{tensor} overlaps {other.tensor} in shared memory; give it memory of its own",
                field=tensor,
            )
        self._stretches.append(stretch)
        return stretch.view

    def _stretch(self, tensor: str, place: Region, size: int) -> _Stretch:
        region = self._regions.find(place.name)
        if place.offset + place.size > region.size or place.offset >= region.size:
            raise RegionError(
                f"Invalid offset + byte size for shared memory region {place.name!r}: "
                f"{place.offset} + {place.size} is beyond its {region.size} bytes",
                field=place.name,
            )
        region.check()
        self._held.append(region)
        start = region.offset + place.offset
        view = region.file.view[start : start + size]
        return _Stretch(tensor, region.object_id, start, start + size, view)

    def check(self) -> None:
        """Refuse what came of regions that changed under the call.

        Raises:
            RegionError: one was shrunk or removed.
        """
        for region in self._held:
            region.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Zeros in the place of lost pages may have been refused for what they are.
        if isinstance(error, Exception):
            self.check()


def _object_id(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _path(key: str) -> Path:
    name = key.lstrip("/")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise RegionError(
            f"the key {key[:255]!r} names no shared memory object: it is one name, which may "
            "begin with /",
            field="key",
        )
    return FOLDER / name


@contextmanager
def _opened(path: Path, key: str) -> Iterator[int]:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise RegionError(
            f"Unable to open shared memory region: {key[:255]!r}: {error}; the service must run as "
            "the client's user and see the same /dev/shm (containers: --ipc=host)",
            field="key",
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_owner(found: os.stat_result, key: str) -> None:
    """Refuse what the service may open and its client perhaps may not."""
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise RegionError(
            f"the shared memory object {key!r} does not belong to the user whom the service runs "
            "as",
            field="key",
        )


def _mapped(descriptor: int, size: int, name: str) -> MappedFile:
    try:
        return MappedFile(descriptor, size)
    except (OSError, ValueError, OverflowError) as error:
        raise RegionError(
            f"failed to register shared memory region {name!r}: {error}", field=name
        ) from None
