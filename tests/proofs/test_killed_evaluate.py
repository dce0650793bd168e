"""`softxent evaluate`, killed at random moments, half of the time with other inputs afterwards.

The result is, to the bit, that of an undisturbed run over the inputs that lie there at the end.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from proof_support import many, tell

KILLS = many("KILLS", 60)
"""Kills altogether; `PROOF_KILLS` of the environment."""

KILLS_A_ROUND = 5
ROUNDS = -(-KILLS // KILLS_A_ROUND)

ROWS, CLASSES, BLOCK_BYTES = 6_000, 50, 4_000
RUN_SECONDS = 2.0
"""About how long a run computes."""

Version = tuple[int, int]


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


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "softxent_service.cli", "evaluate"]
    command += [str(folder / "logits.npy"), str(folder / "labels.npy"), f"--output={folder}/out"]
    command += ["--outputs=loss,gradient", "--threads=1", f"--block-bytes={BLOCK_BYTES}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(folder: Path) -> str:
    """Run to the end, and return a hash of the result."""
    process = start(folder)
    told = process.communicate(timeout=240)[1]
    assert process.returncode == 0, told
    group: Any = zarr.open_group(str(folder / "out"), mode="r")
    assert not (folder / "out" / ".softxent").exists()
    sums = [group.attrs[name] for name in ("loss_sum", "weight_sum", "count", "mean")]
    data = group["loss"][:].tobytes() + group["gradient"][:].tobytes() + str(sums).encode()
    return hashlib.sha256(data).hexdigest()


def killed(folder: Path, chance: random.Random) -> int:
    """Kill a run at a random moment; return how many blocks were committed then."""
    process = start(folder)
    blocks = folder / "out" / ".softxent" / "blocks"
    before = set(os.listdir(blocks)) if blocks.exists() else set()
    if chance.random() < 0.8:
        # Imports take longer than the run: most kills wait until it writes.
        while process.poll() is None and not (blocks.exists() and set(os.listdir(blocks)) - before):
            time.sleep(0.01)
    time.sleep(chance.uniform(0, RUN_SECONDS))
    process.kill()
    process.communicate()
    return len(os.listdir(blocks)) if blocks.exists() else 0


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


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_killed_evaluation_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[Version, str], number: int
) -> None:
    chance = random.Random(number)
    version: Version = (0, 0)
    write(tmp_path, version, chance)
    told = []
    for kill in range(KILLS_A_ROUND):
        done = killed(tmp_path, chance)
        change = (number + kill) % 2 == 0
        if change:
            # Versions of before come back as well.
            others = [v for v in undisturbed if v != version]
            version = chance.choice(others)
            write(tmp_path, version, chance)
        told.append(f"{done}{'*' if change else ''}")
    assert finish(tmp_path) == undisturbed[version]
    tell(f"round {number}: blocks at each kill (* inputs replaced): {' '.join(told)}")
