"""Files that are shrunk while their memory is read and written: zeros and a note, no signal."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import softxent
from softxent.mmap_guard import PLACES, MappedFile

MIB = 1 << 20


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(MIB)
        yield file.fileno()


def test_what_is_written_is_what_others_read(descriptor: int) -> None:
    mapped = MappedFile(descriptor, MIB)
    mapped.view[10:13] = b"abc"
    assert os.pread(descriptor, 5, 9) == b"\0abc\0"
    os.pwrite(descriptor, b"xyz", 20)
    assert bytes(mapped.view[20:23]) == b"xyz"
    assert not mapped.is_lost


def test_pages_that_are_gone_read_as_zeros_and_are_noted(descriptor: int) -> None:
    mapped = MappedFile(descriptor, MIB)
    mapped.view[:] = b"a" * MIB
    os.ftruncate(descriptor, 4096)
    assert bytes(mapped.view[MIB // 2 :]) == bytes(MIB // 2)
    os.ftruncate(descriptor, MIB)
    # It is long enough again, but what the mapping shows is no part of it any more.
    assert mapped.is_lost


def test_a_file_too_short_is_noted_before_anyone_looks(descriptor: int) -> None:
    mapped = MappedFile(descriptor, MIB)
    os.ftruncate(descriptor, MIB - 1)
    assert mapped.is_lost


def test_kernels_on_all_threads_survive(descriptor: int) -> None:
    rows, classes = 256, 1024
    labels = np.zeros(rows, np.int64)
    gone = 0
    for delay in np.linspace(0, 0.002, 20):
        os.ftruncate(descriptor, MIB)
        mapped = MappedFile(descriptor, MIB)
        gradient = np.frombuffer(mapped.view, np.float32).reshape(rows, classes)
        logits = np.ones((rows, classes), np.float32)
        shrink = threading.Timer(delay, os.ftruncate, (descriptor, 4096))
        shrink.start()
        for _ in range(10):
            softxent.cross_entropy(logits, labels, out={"gradient": gradient})
        shrink.join()
        gone += mapped.is_lost
    assert gone == 20


def test_places_are_free_again(descriptor: int) -> None:
    for _ in range(3):
        held = [MappedFile(descriptor, 4096) for _ in range(PLACES - 1)]
        assert len({id(one) for one in held}) == PLACES - 1
        del held
        gc.collect()


def test_more_than_there_are_places_is_refused(descriptor: int) -> None:
    held = []
    with pytest.raises(OSError, match="are mapped already"):
        held += [MappedFile(descriptor, 4096) for _ in range(PLACES + 1)]
    assert held == []


def test_what_is_not_watched_ends_the_process_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    code = (
        "import mmap, os, sys\n"
        "from softxent.mmap_guard import watch_mappings\n"
        "watch_mappings()\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "mapping = mmap.mmap(file.fileno(), 8192)\n"
        "os.ftruncate(file.fileno(), 0)\n"
        "mapping[5000]\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGBUS
