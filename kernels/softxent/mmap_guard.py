"""Memory of files that others may shrink at any time: an error, never a signal."""

from __future__ import annotations

import mmap
import os
import threading
import weakref

import numpy as np
import numpy.typing as npt

from softxent._kernels.build import bus_errors
from softxent._kernels.build.bus_errors import BEGIN, END, LOST, PLACES, SUPPORTED

__all__ = ["PLACES", "SUPPORTED", "MappedFile", "watch_mappings"]

_lock = threading.RLock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
_free = list(range(PLACES))
_table: npt.NDArray[np.int64] | None = None


def watch_mappings() -> None:
    """Prepare this process for `MappedFile`; it compiles for a fraction of a second.

    Raises:
        OSError: this system is not `SUPPORTED`, or refuses.
    """
    global _table
    with _lock:
        if _table is None:
            if not SUPPORTED:
                raise OSError("mappings of files that may shrink need 64-bit Linux")
            _table = bus_errors.install()


class MappedFile:
    """The first bytes of a file, shared with whoever else maps it.

    It must outlive every use of its bytes: once it is gone, they are not watched any more.

    Attributes:
        view: the bytes; those of pages that the file has lost are zeros, or what was written since.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Map `size` bytes of a file, which must have as many.

        Raises:
            OSError: the system refuses, or PLACES files are mapped already.
        """
        watch_mappings()
        mapping = mmap.mmap(descriptor, size)
        self._size_of_file = mapping.size
        self._place = _watch(mapping, size)
        self.view = memoryview(mapping)
        # Called before the mapping is undone: its addresses may be another's right after.
        weakref.finalize(self, _forget, self._place)

    @property
    def is_lost(self) -> bool:
        """Whether anyone has used a page that the file no longer had, or it is too short now."""
        assert _table is not None
        return bool(_table[self._place, LOST]) or self._size_of_file() < len(self.view)


def _watch(mapping: mmap.mmap, size: int) -> int:
    assert _table is not None
    begin = np.frombuffer(mapping, np.uint8).ctypes.data
    with _lock:
        if not _free:
            raise OSError(f"{PLACES} files are mapped already")
        place = _free.pop()
        # The end makes the row valid, so it comes last.
        _table[place, BEGIN], _table[place, LOST] = begin, 0
        _table[place, END] = begin + size
    return place


def _forget(place: int) -> None:
    assert _table is not None
    with _lock:
        _table[place, END] = 0
        _free.append(place)
