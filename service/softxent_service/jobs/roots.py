"""URLs of arrays, and the roots that they must not lead out of.

A URL is `file:///folder/name` or `s3://bucket/name`. It is split into a root and a path below it;
whatever could lead elsewhere is refused: other schemes and hosts, queries, `.` and `..`, empty
segments, and symbolic links whose end lies outside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from softxent_service.jobs.errors import LocationError

SCHEMES = ("file", "s3")


@dataclass(frozen=True)
class Place:
    """Something below a root.

    Attributes:
        root: the root's own URL, without a slash at its end.
        path: segments below it, separated by slashes; empty for the root itself.
    """

    root: str
    path: str

    @property
    def url(self) -> str:
        """Return the URL of the whole."""
        return f"{self.root}/{quote(self.path)}" if self.root[:4] == "file" else self._joined

    @property
    def _joined(self) -> str:
        return f"{self.root}/{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether it lies in the file system."""
        return self.root.startswith("file:")

    @property
    def folder(self) -> Path:
        """Return the path in the file system."""
        return root_folder(self.root) / self.path

    def child(self, name: str) -> Place:
        """Return what lies below under a name."""
        return Place(self.root, f"{self.path}/{name}" if self.path else name)

    def contains(self, other: Place) -> bool:
        """Whether another place is this one or lies below it."""
        return f"{other._joined}/".startswith(f"{self._joined}/")


class Roots:
    """The roots that are configured, and how URLs below them are told from all others."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Take the URLs of the roots.

        Raises:
            LocationError: one of them is none.
        """
        self._roots = [_split(url, "roots") for url in urls]
        self.urls = tuple(_url(scheme, segments) for scheme, segments in self._roots)

    def place(self, url: object, field: str) -> Place:
        """Return where a URL leads to.

        Raises:
            LocationError: it is malformed, or leads out of every root.
        """
        scheme, segments = _split(url, field)
        for (root_scheme, root), root_url in zip(self._roots, self.urls, strict=True):
            if scheme == root_scheme and segments[: len(root)] == root and segments != root:
                place = Place(root_url, "/".join(segments[len(root) :]))
                _refuse_links_out(place, field)
                return place
        known = ", ".join(self.urls) or "none"
        raise LocationError(f"{field} lies below none of the roots; they are {known}", field=field)


def root_folder(url: str) -> Path:
    """Return the path of a root in the file system."""
    return Path(unquote(urlsplit(url).path) or "/")


def _split(url: object, field: str) -> tuple[str, list[str]]:
    """Return the scheme of a URL and its segments, those of s3 with the bucket first."""
    if not isinstance(url, str) or len(url) > 4096:
        raise LocationError(f"{field} must be a URL of at most 4096 characters", field=field)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LocationError(f"{field} is no URL: {error}", field=field) from None
    if parts.scheme not in SCHEMES or "://" not in url:
        raise LocationError(f"{field} must be a file:// or s3:// URL, not {url!r}", field=field)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise LocationError(f"{field} must have no query and no fragment", field=field)
    is_file = parts.scheme == "file"
    if is_file and parts.netloc not in ("", "localhost"):
        raise LocationError(
            f"{field} names the host {parts.netloc!r}; files are local", field=field
        )
    if not is_file and (not parts.netloc or set(parts.netloc) & set("@:[]")):
        raise LocationError(f"{field} must name a bucket and nothing else before /", field=field)
    path = _unquoted(parts.path, field) if is_file else parts.path
    segments = path.split("/")[1:]
    if segments and not segments[-1]:
        segments.pop()
    if not is_file:
        segments = [parts.netloc, *segments]
    if any(s in ("", ".", "..") or not s.isprintable() or "\\" in s for s in segments):
        raise LocationError(
            f"{field} must have no '.', '..', empty or unprintable segments", field=field
        )
    return parts.scheme, segments


def _unquoted(path: str, field: str) -> str:
    if re.search("%2f", path, re.IGNORECASE):
        raise LocationError(
            f"{field} holds the encoded slash %2F, which no name of a file has; write / between"
            " folders",
            field=field,
        )
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise LocationError(
            f"{field} holds an encoded byte that is not UTF-8", field=field
        ) from None


def _url(scheme: str, segments: list[str]) -> str:
    if scheme == "s3":
        return f"s3://{'/'.join(segments)}"
    return "file://" + "".join(f"/{quote(segment)}" for segment in segments)


def _refuse_links_out(place: Place, field: str) -> None:
    if place.is_local and not is_inside(place.folder, root_folder(place.root)):
        raise LocationError(f"{field} leads out of its root by a symbolic link", field=field)


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, all links followed, lies below a root, its links followed too."""
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    return f"{real}/".startswith(f"{real_root.rstrip('/')}/")
