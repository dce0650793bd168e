"""Pages of the arrays that lie below the roots, listed without reading values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any, Literal, Self
from urllib.parse import quote, unquote

from softxent.dtypes import dtype_name
from softxent.errors import SoftxentError
from softxent_service.jobs.arrays import METADATA, open_array
from softxent_service.jobs.errors import LocationError, SpecificationError, StorageError
from softxent_service.jobs.result import STATE
from softxent_service.jobs.roots import Place, Roots, is_inside
from softxent_service.jobs.storage import Folder

MOST_ENTRIES = 10_000
"""Files and folders that one request looks at; the next page goes on behind them."""

DEEPEST = 8
"""Folders that are looked into, one in another; a root is the first."""

METADATA_BYTES = 4 << 20
"""Longest `zarr.json` that is read to list an array."""

Kind = Literal["npy", "zarr"]


@dataclass(frozen=True)
class ListedArray:
    """An array below a root.

    Attributes:
        url: as a job names it.
        format: "npy" or "zarr".
        shape, dtype: None where `problem` says why a job could not read the array.
    """

    url: str
    format: Kind
    shape: list[int] | None = None
    dtype: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ArrayPage:
    """Some arrays in the order of roots and names.

    Attributes:
        following: the cursor of those that follow; None at the end.
        truncated: whether folders were left out, as too deep or not to be listed.
    """

    arrays: list[ListedArray]
    following: str | None
    truncated: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON members."""
        arrays = [asdict(array) for array in self.arrays]
        return {"arrays": arrays, "next": self.following, "truncated": self.truncated}


@dataclass(frozen=True)
class ArrayCursor:
    """The last entry that a page looked at: the number of its root, and its names below that.

    It is compared with names that are found, and never opened.
    """

    root: int = 0
    names: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it as one word."""
        return f"{self.root}/{'/'.join(quote(name, safe='') for name in self.names)}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the word.

        Raises:
            SpecificationError: it is none of ours.
        """
        root, _, names = text.partition("/")
        if not re.fullmatch("[0-9]{1,4}", root) or not names:
            raise SpecificationError("cursor is not one of ours", field="cursor")
        return cls(int(root), tuple(unquote(name) for name in names.split("/")))


def list_arrays(roots: Roots, limit: int, cursor: ArrayCursor | None = None) -> ArrayPage:
    """Return at most `limit` arrays, beginning behind a cursor.

    Left out are names that begin with a dot, names that the URL of a job cannot have, links that
    lead out of a root, and half-done results.

    Raises:
        StorageError: a root cannot be listed.
    """
    return _Walk(roots, limit, cursor or ArrayCursor()).page()


class _FullError(Exception):
    """The page has as many arrays, or has looked at as many entries, as it may."""


class _Walk:
    """One walk through the roots, depth first and by name."""

    def __init__(self, roots: Roots, limit: int, after: ArrayCursor) -> None:
        self._roots = roots
        self._limit = limit
        self._after = after
        self._at = after
        self._entries = 0
        self._arrays: list[ListedArray] = []
        self._truncated = False

    def page(self) -> ArrayPage:
        """Walk until the page is full or the roots are done."""
        try:
            for root, url in enumerate(self._roots.urls):
                if root >= self._after.root:
                    after = self._after.names if root == self._after.root else ()
                    self._walk(Place(url, ""), ArrayCursor(root), after)
        except _FullError:
            return ArrayPage(self._arrays, self._at.to_text(), self._truncated)
        return ArrayPage(self._arrays, None, self._truncated)

    def _walk(self, place: Place, at: ArrayCursor, after: tuple[str, ...]) -> None:
        """Look into a folder; `after` are the names in it that an earlier page ended at."""
        for name, is_folder in self._listed(place, after):
            here, child = ArrayCursor(at.root, (*at.names, name)), place.child(name)
            # What a page ended at is in it; what lies in it may not be.
            is_seen = after[:1] == (name,)
            if not is_seen:
                self._enter(here)
            if not (is_folder or name.endswith(".npy")) or not self._is_allowed(child, place):
                continue
            if not is_folder or self._node_type(Folder(child)) == "array":
                if not is_seen:
                    self._add(child, "zarr" if is_folder else "npy")
            elif len(here.names) >= DEEPEST:
                self._truncated = True
            else:
                self._walk(child, here, after[1:] if is_seen else ())

    def _listed(self, place: Place, after: tuple[str, ...]) -> list[tuple[str, bool]]:
        """Return names in a folder and whether they are folders, from where a page ended on."""
        try:
            found = list(_named(Folder(place), after[0] if after else ""))
        except FileNotFoundError:
            return []
        except StorageError:
            if not place.path:
                raise
            self._truncated = True
            return []
        return [] if any(name == STATE for name, _ in found) else found

    def _enter(self, here: ArrayCursor) -> None:
        """Count an entry that is looked at.

        Raises:
            _FullError: the page ends before it.
        """
        if self._entries >= MOST_ENTRIES or len(self._arrays) >= self._limit:
            raise _FullError
        self._entries += 1
        self._at = here

    def _is_allowed(self, place: Place, parent: Place) -> bool:
        """Whether a job could name it, and no link leads out of the root or back to a parent."""
        try:
            self._roots.place(place.url, "url")
        except LocationError:
            return False
        return not (place.is_local and is_inside(parent.folder, place.folder))

    def _node_type(self, folder: Folder) -> str | None:
        """Return what `zarr.json` says a folder is: an array where it cannot be told."""
        try:
            if folder.size(METADATA) > METADATA_BYTES:
                return "array"
            members = json.loads(folder.read(METADATA).tobytes())
        except FileNotFoundError:
            return None
        except (SoftxentError, ValueError, RecursionError):
            return "array"
        is_group = isinstance(members, dict) and members.get("node_type") == "group"
        return "group" if is_group else "array"

    def _add(self, place: Place, kind: Kind) -> None:
        try:
            if kind == "zarr" and Folder(place).size(METADATA) > METADATA_BYTES:
                raise StorageError(f"its zarr.json has more than {METADATA_BYTES} bytes")
            array = open_array(place, "array")
            found = ListedArray(place.url, kind, list(array.shape), dtype_name(array.dtype))
        except FileNotFoundError:
            return
        except SoftxentError as error:
            found = ListedArray(place.url, kind, problem=error.message)
        self._arrays.append(found)


def _named(folder: Folder, first: str) -> Iterator[tuple[str, bool]]:
    """Yield the entries of a folder by name, from `first` on, that a URL can name; and its state.

    More than one page can take are not needed: the next page asks again.
    """
    found = (
        (name, is_folder)
        for name, is_folder in folder.entries()
        if name == STATE or (name >= first and _is_plain(name))
    )
    yield from nsmallest(MOST_ENTRIES + 2, found)


def _is_plain(name: str) -> bool:
    return name[:1] not in ("", ".") and name.isprintable() and "\\" not in name
