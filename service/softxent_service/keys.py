"""Keys of clients: their generation, storage and comparison.

A key is 32 random bytes. What is kept of it is one SHA-256: a slow hash protects what can be
guessed, and of 2^256 keys none can. Digests are compared by `hmac.compare_digest`, each with every
one that is kept, so that time tells nothing of them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

logger = logging.getLogger("softxent")

Scope = Literal["evaluate", "jobs", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "softxent-"
"""So that people and scanners of repositories know a key when they see one."""

LOOK_SECONDS = 1.0
"""How often the file is looked at: a key that was taken out is refused from then on."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class KeysError(ValueError):
    """Lines that are not keys; the message names the line and shows nothing of it."""


@dataclass(frozen=True)
class Key:
    """Stored key: its name, its scopes, its digest."""

    name: str
    scopes: frozenset[str]
    digest: bytes

    def line(self) -> str:
        """Return the line of a file of keys."""
        return f"{self.name} {','.join(sorted(self.scopes))} sha256:{self.digest.hex()}"


def new_key(name: str, scopes: Iterable[str]) -> tuple[str, Key]:
    """Return a new key's text, which is nowhere kept, and what is kept of it.

    Raises:
        KeysError: the name or a scope is not one.
    """
    text = PREFIX + secrets.token_urlsafe(32)
    return text, _key(name, scopes, digest_of(text.encode()))


def digest_of(text: bytes) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(text).digest()


def read_keys(text: str) -> Iterator[Key]:
    """Yield the keys of lines `name scopes sha256:...`; blank ones and those after # are none.

    Raises:
        KeysError: a line is something else, or a name stands twice.
    """
    names = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key = _read_line(words)
            if key.name in names:
                raise KeysError(f"the name {key.name} stands twice")
        except KeysError as error:
            raise KeysError(f"line {number}: {error}") from None
        names.add(key.name)
        yield key


def _read_line(words: list[str]) -> Key:
    if len(words) != 3:
        raise KeysError("it is not a name, scopes and sha256:... with spaces between")
    digest = _DIGEST.fullmatch(words[2])
    if digest is None:
        raise KeysError("what comes last is not sha256: and 64 hexadecimal digits")
    return _key(words[0], words[1].split(","), bytes.fromhex(digest[1]))


def _key(name: str, scopes: Iterable[str], digest: bytes) -> Key:
    found = frozenset(scopes)
    if not _NAME.fullmatch(name):
        raise KeysError("a name has up to 64 letters, digits and . _ @ -")
    if not found or not found <= set(SCOPES):
        raise KeysError(f"scopes are some of {', '.join(SCOPES)}, with commas between")
    return Key(name, found, digest)


class KeyRing:
    """The keys that are let in: those of a text, and those that a file holds at present."""

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        """Read the keys.

        Raises:
            KeysError: they cannot be read.
        """
        self._given = tuple(read_keys(text))
        self._file = file
        self._stamp = _stamp(file)
        self._keys = self._read()
        self._shown: dict[bytes, Key] = {}
        self._look_at = time.monotonic() + LOOK_SECONDS

    def find(self, text: bytes) -> Key | None:
        """Return the key that `text` is, None if it is none; looks at the file now and then."""
        if self._file is not None and time.monotonic() >= self._look_at:
            self._look()
        # Python's hash of bytes is keyed anew in each process: to find a text, or not to, tells
        # nothing of those that are there. A digest and a comparison took 6 us of a small call.
        return self._shown.get(text) or self._compare(text)

    def _compare(self, text: bytes) -> Key | None:
        digest = digest_of(text)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is not None:
            self._shown[text] = found
        return found

    def _read(self) -> tuple[Key, ...]:
        if self._file is None:
            return self._given
        try:
            return (*self._given, *read_keys(self._file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"it cannot be read ({type(error).__name__})") from None

    def _look(self) -> None:
        self._look_at = time.monotonic() + LOOK_SECONDS
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
            self._shown.clear()
            logger.info("keys: %s now holds %d", self._file, len(self._keys))
        except KeysError as error:
            # Half a file is no reason to shut everyone out, nor to let anyone in.
            logger.error(
                "keys: those of before stay, %s is not as it should be: %s", self._file, error
            )


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Return what changes when a file does; None where there is none."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)
