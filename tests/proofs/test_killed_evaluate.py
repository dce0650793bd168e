"""`softxent evaluate`, killed at random moments, half of the time with other inputs afterwards.

The result is, to the bit, that of an undisturbed run over the inputs that lie there at the end.
Each run is a process of its own, forked from one that has imported and loaded everything. Imports
take longer than the work: without them every kill meets the work.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from proof_support import many, tell
from ready_to_evaluate import evaluate

KILLS = many("KILLS", 60)
"""Kills altogether; `PROOF_KILLS` of the environment."""

KILLS_A_ROUND = 10
ROUNDS = -(-KILLS // KILLS_A_ROUND)

ROWS, CLASSES, BLOCK_BYTES = 2_000, 50, 4_000
BLOCKS = ROWS * CLASSES * 4 // BLOCK_BYTES
MOST_BLOCKS = BLOCKS // 6
"""Blocks that a run commits at most before it is killed."""

BLOCK_SECONDS = 0.03
"""About how long a block takes: the moment of a kill within it is random."""

Version = tuple[int, int]

forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["ready_to_evaluate"])


def tensors(version: Version) -> dict[str, Any]:
    """Return the logits and labels of a version; files of all versions have the same size."""
    logits, labels = (np.random.default_rng([seed, i]) for i, seed in enumerate(version))
    return {
        "logits": logits.normal(size=(ROWS, CLASSES)).astype(np.float32),
        "labels": labels.integers(0, CLASSES, ROWS),
    }


def write(folder: Path, version: Version, chance: random.Random) -> None:
    """Write inputs over those that are there, or put other files in their place."""
    for name, values in tensors(version).items():
        path = folder / f"{name}.npy"
        if chance.random() < 0.5:
            np.save(path, values)
        else:
            np.save(folder / "new.npy", values)
            (folder / "new.npy").rename(path)


def start(folder: Path) -> ForkServerProcess:
    inputs = [str(folder / "logits.npy"), str(folder / "labels.npy"), f"--output={folder}/out"]
    flags = ["--outputs=loss,gradient", "--threads=1", f"--block-bytes={BLOCK_BYTES}"]
    process = forked.Process(target=evaluate, args=(*inputs, *flags))
    process.start()
    return process


def finish(folder: Path) -> str:
    """Run to the end, and return a hash of the result."""
    process = start(folder)
    process.join()
    assert process.exitcode == 0
    assert not (folder / "out" / ".softxent").exists()
    return digest(folder)


def digest(folder: Path) -> str:
    group: Any = zarr.open_group(str(folder / "out"), mode="r")
    sums = [group.attrs[name] for name in ("loss_sum", "weight_sum", "count", "mean")]
    data = group["loss"][:].tobytes() + group["gradient"][:].tobytes() + str(sums).encode()
    return hashlib.sha256(data).hexdigest()


def records(folder: Path) -> set[tuple[str, int]]:
    """Return the records of blocks that are there, one that is written anew as another."""
    found = set()
    try:
        with os.scandir(folder / "out" / ".softxent" / "blocks") as entries:
            for entry in entries:
                if entry.name.isdigit():
                    found.add((entry.name, entry.stat().st_mtime_ns))
    except FileNotFoundError:
        # They are being removed, or there are none yet.
        pass
    return found


def is_whole(folder: Path) -> bool:
    return (folder / "out" / "zarr.json").exists()


def begun(folder: Path) -> int:
    """Return when the half-done result was begun or gone on with; 0 where there is none."""
    try:
        return (folder / "out" / ".softxent" / "job.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def moment(folder: Path, chance: random.Random, *, changed: bool) -> Callable[[], bool]:
    """Choose when to kill a run that starts now; return what tells that the moment has come."""
    before, was_begun = records(folder), begun(folder)
    blocks = chance.randrange(1, MOST_BLOCKS)
    moments: dict[str, Callable[[], bool]] = {
        "job.json is written": lambda: begun(folder) != was_begun,
        "blocks are committed": lambda: len(records(folder) - before) >= blocks,
        "the result is whole": lambda: is_whole(folder),
    }
    if changed and before:
        moments["old blocks are removed"] = lambda: bool(before - records(folder))
    return moments[chance.choices(list(moments), [2, 7, 1, 3][: len(moments)])[0]]


def killed(folder: Path, chance: random.Random, *, changed: bool) -> bool:
    """Kill a run at a random moment; return whether it had not ended by itself before."""
    has_come = moment(folder, chance, changed=changed)
    process = start(folder)
    while process.exitcode is None and not has_come():
        process.join(0.005)
    process.join(chance.uniform(0, BLOCK_SECONDS))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> Iterator[None]:
    """Start what runs are forked from, so that it finds `ready_to_evaluate`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Version, str]:
    """The hash of an undisturbed result of each version of the inputs."""
    wanted = {}
    for version in itertools.product((0, 1), repeat=2):
        folder = tmp_path_factory.mktemp("undisturbed")
        write(folder, (version[0], version[1]), random.Random(0))
        wanted[version[0], version[1]] = finish(folder)
    assert len(set(wanted.values())) == 4
    return wanted


@dataclass
class Round:
    """One folder, whose inputs change and whose runs are killed."""

    folder: Path
    wanted: dict[Version, str]
    chance: random.Random
    version: Version = (0, 0)
    changed: bool = False
    kills: int = 0
    told: list[str] = field(default_factory=list)

    def kill(self, *, change: bool) -> None:
        """Kill a run; replace the inputs afterwards where `change` says so."""
        while not killed(self.folder, self.chance, changed=self.changed):
            self.changed = False
            self.take_whole()
        self.kills += 1
        self.told.append(f"{len(records(self.folder))}{'*' if change else ''}")
        if is_whole(self.folder):
            self.told[-1] = f"whole{'*' if change else ''}"
            self.take_whole()
        self.changed = change
        if change:
            # Versions of before come back as well.
            self.version = self.chance.choice([v for v in self.wanted if v != self.version])
            write(self.folder, self.version, self.chance)

    def take_whole(self) -> None:
        """Check a result that is whole, and remove it: of other inputs it would be refused."""
        assert digest(self.folder) == self.wanted[self.version]
        shutil.rmtree(self.folder / "out")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_killed_evaluation_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[Version, str], number: int
) -> None:
    one = Round(tmp_path, undisturbed, random.Random(number))
    write(tmp_path, one.version, one.chance)
    for kill in range(KILLS_A_ROUND):
        one.kill(change=(number + kill) % 2 == 0)
    assert finish(tmp_path) == undisturbed[one.version]
    told = " ".join(one.told)
    tell(f"round {number}: {one.kills} kills; blocks at each (* inputs replaced): {told}")
