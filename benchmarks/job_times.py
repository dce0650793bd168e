"""Measures jobs: beside a plain Dask copy, over sizes, over workers, and what a job costs at least.

make bench-jobs                      8 GB on local disk, minutes
make bench-jobs ARGS="--gigabytes 0.5 --write"    the constants of docs/scaling.md
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import zarr
from job_processes import cluster_of, served
from tables import print_table, table
from timing import against, progress

import softxent
from softxent_client.jobs import Jobs
from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.blocks import evaluate_block
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.engine import run_job
from softxent_service.jobs.job import Job
from softxent_service.jobs.result import Result
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification

CLASSES, CHUNK_ROWS = 32_000, 1_000
"""Float16 chunks of 64 MB."""

SMALL_JOBS = 20
TINY_BLOCKS = 400
SCHEDULED = 3000
ROUNDS = 3
OVERHEAD_ROUNDS = 15
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
BEGIN, END = "<!-- constants -->\n", "<!-- end -->"


def make_arrays(folder: Path, gigabytes: float, compressed: bool) -> int:
    """Write logits and labels; return how many rows they have."""
    rows = max(2, round(gigabytes * 1e9 / (2 * CLASSES * CHUNK_ROWS))) * CHUNK_ROWS
    random = np.random.default_rng(0)
    block = (random.normal(size=(CHUNK_ROWS, CLASSES)) * 4).astype(np.float16)
    array = zarr.create_array(
        str(folder / "logits"),
        shape=(rows, CLASSES),
        chunks=block.shape,
        dtype=block.dtype,
        compressors="auto" if compressed else None,
    )
    for first in range(0, rows, CHUNK_ROWS):
        array[first : first + CHUNK_ROWS] = np.roll(block, first // CHUNK_ROWS, axis=1)
    np.save(folder / "labels.npy", random.integers(0, CLASSES, rows))
    return rows


def accepted(folder: Path, outputs: list[str], block_bytes: int = 64 << 20) -> Job:
    asked = {
        "logits": f"file://{folder}/logits",
        "labels": f"file://{folder}/labels.npy",
        "output": f"file://{folder}/out",
        "outputs": outputs,
    }
    return accept(Specification.from_json(asked), Roots([f"file://{folder}"]), block_bytes)


def job_seconds(folder: Path, cluster: Cluster, outputs: list[str], **rest: Any) -> float:
    """Return how long a job takes, whose result is removed."""
    job = accepted(folder, outputs, **rest)
    began = time.perf_counter()
    run_job(job, cluster, lambda _: None, lambda: False)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder / "out")
    return seconds


def loop_seconds(folder: Path) -> float:
    """Return how long the blocks of a job take one after the other, without Dask."""
    job = accepted(folder, ["loss"])
    began = time.perf_counter()
    begun = job.begun(None)
    Result(begun).begin(job.open()["logits"], None)
    for block in range(job.plan.blocks):
        evaluate_block(begun, block, softxent.NUMERICS_VERSION)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder / "out")
    return seconds


def task_overhead(folder: Path) -> float:
    """Return what Dask adds to blocks of 64 MB on one thread, as a share: the median of rounds."""
    shares = []
    with Cluster(None, 1) as cluster:
        job_seconds(folder, cluster, ["loss"])
        for _ in range(OVERHEAD_ROUNDS):
            os.sync()
            alone = loop_seconds(folder)
            os.sync()
            shares.append(job_seconds(folder, cluster, ["loss"]) / alone - 1)
    return statistics.median(shares)


def copy_seconds(folder: Path, cluster: Cluster) -> float:
    """Return how long Dask takes to copy the logits, chunk by chunk, as it does by itself."""
    source = zarr.open_array(str(folder / "logits"), mode="r")
    target: Any = zarr.create_array(
        str(folder / "copy"),
        shape=source.shape,
        chunks=source.chunks,
        dtype=source.dtype,
        compressors=source.compressors,
    )
    chunks: Any = dask.array.from_zarr(source)
    client = cluster.client()
    began = time.perf_counter()
    dask.array.store(chunks, target, lock=False, scheduler=client)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder / "copy")
    return seconds


def read_seconds(folder: Path, cluster: Cluster) -> float:
    """Return how long Dask takes to read the logits."""
    whole = dask.array.from_zarr(str(folder / "logits"))
    read = whole.map_blocks(lambda block: block[:1, :1], dtype=whole.dtype, chunks=(1, 1))
    client = cluster.client()
    began = time.perf_counter()
    read.compute(scheduler=client)
    return time.perf_counter() - began


def peak_bytes(folder: Path) -> int:
    """Return how much memory `softxent evaluate` takes at most."""
    command = [sys.executable, "-m", "softxent_service.cli", "evaluate"]
    command += [str(folder / "logits"), str(folder / "labels.npy"), f"--output={folder / 'out'}"]
    command += ["--outputs=loss,gradient"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    # Not what wait4 tells: that begins with the memory of this process, which has more.
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(0.02)
    assert process.returncode == 0
    shutil.rmtree(folder / "out")
    return peak


@contextmanager
def arrays(parent: Path, gigabytes: float, compressed: bool) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=parent) as name:
        progress(f"writing {gigabytes:g} GB")
        make_arrays(Path(name), gigabytes, compressed)
        yield Path(name)


def small_job_seconds(folder: Path) -> list[float]:
    """Return how long each of some jobs of one block takes, from the request to its end."""
    np.save(folder / "x.npy", np.zeros((1000, 1000), np.float32))
    np.save(folder / "y.npy", np.zeros(1000, np.int64))
    asked = {"logits": f"file://{folder}/x.npy", "labels": f"file://{folder}/y.npy"}
    times = []
    with served(f"--data={folder / 'data'}", f"--roots=file://{folder}") as url, Jobs(url) as jobs:
        for i in range(SMALL_JOBS + 2):
            began = time.perf_counter()
            job = jobs.submit({**asked, "output": f"file://{folder}/small{i}"})
            while (state := jobs.show(job["id"])["state"]) in ("queued", "running"):
                time.sleep(0.01)
            assert state == "succeeded"
            times.append(time.perf_counter() - began)
    # The first ones wait for imports.
    return times[2:]


def block_overhead(folder: Path, cluster: Cluster) -> float:
    """Return the seconds that a block costs which holds next to nothing."""
    np.save(folder / "labels.npy", np.zeros(TINY_BLOCKS, np.int64))
    logits = np.zeros((TINY_BLOCKS, 1000), np.float32)
    zarr.create_array(str(folder / "logits"), data=logits, chunks=(1, 1000))
    return job_seconds(folder, cluster, ["loss"], block_bytes=4000) / TINY_BLOCKS


def workers_seconds(folder: Path) -> tuple[float, float]:
    """Return how long one worker of one thread takes, and two: medians of rounds in turn."""
    times: dict[int, list[float]] = {1: [], 2: []}
    with cluster_of(1) as one, cluster_of(2) as two, Cluster(one, 1) as a, Cluster(two, 1) as b:
        for cluster in (a, b):
            job_seconds(folder, cluster, ["loss"])
        for _ in range(ROUNDS):
            for workers, cluster in ((1, a), (2, b)):
                os.sync()
                times[workers].append(job_seconds(folder, cluster, ["loss", "gradient"]))
    return statistics.median(times[1]), statistics.median(times[2])


def scheduler_rate() -> float:
    """Return how many tasks one scheduler can handle a second: by the processor's time it takes."""
    with cluster_of(1) as address, Cluster(address, 1) as cluster:
        client = cluster.client()

        def handle(first: int) -> float:
            sent = client.map(abs, range(first, first + SCHEDULED), pure=False)
            client.gather(sent)
            return float(client.run_on_scheduler(time.process_time))

        before = handle(0)
        return SCHEDULED / (handle(SCHEDULED) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compressed", action="store_true", help="Zarr's own codec, else none")
    parser.add_argument("--write", action="store_true", help="write docs/scaling.md's constants")
    given = parser.parse_args()
    found = measure(given.folder.absolute(), given.gigabytes, given.threads, given.compressed)
    print_table("Jobs", ("figure", "measured", "beside its goal"), figures(found))
    if given.write:
        write_constants(found)


def measure(parent: Path, gigabytes: float, threads: int, compressed: bool) -> dict[str, float]:
    found: dict[str, float] = {"gigabytes": gigabytes, "threads": threads}
    with arrays(parent, gigabytes, compressed) as folder, Cluster(None, threads) as cluster:
        job_seconds(folder, cluster, ["loss", "gradient"])
        works: dict[str, Callable[[], float]] = {
            "copy": lambda: copy_seconds(folder, cluster),
            "gradient": lambda: job_seconds(folder, cluster, ["loss", "gradient"]),
            "read": lambda: read_seconds(folder, cluster),
            "loss": lambda: job_seconds(folder, cluster, ["loss"]),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(ROUNDS):
            for name, work in works.items():
                progress(f"{name}, round {turn + 1} of {ROUNDS}")
                # What the work before has written would be written during this one.
                os.sync()
                times[name].append(work())
        found |= {name: statistics.median(each) for name, each in times.items()}
        copies = [c / g for c, g in zip(times["copy"], times["gradient"], strict=True)]
        reads = [r / j for r, j in zip(times["read"], times["loss"], strict=True)]
        found |= {"over copy": statistics.median(copies), "over read": statistics.median(reads)}
        progress("memory, and workers")
        found["peak"] = peak_bytes(folder)
        found["one worker"], found["two workers"] = workers_seconds(folder)
    with arrays(parent, gigabytes / 8, compressed) as folder:
        found["peak of an eighth"] = peak_bytes(folder)
    # So few that all stay in memory, whatever was written before.
    with arrays(parent, min(gigabytes, 2.0), compressed) as folder:
        progress("blocks with Dask, and without")
        found["overhead"] = task_overhead(folder)
    with tempfile.TemporaryDirectory(dir=parent) as name, Cluster(None, 1) as cluster:
        progress("small jobs")
        found["small job"] = statistics.median(small_job_seconds(Path(name)))
        found["block"] = block_overhead(Path(name), cluster)
    found["scheduler"] = scheduler_rate()
    return found


def figures(found: dict[str, float]) -> list[tuple[str, str, str]]:
    size = found["gigabytes"]
    rate = {name: f"{size / found[name]:.2f} GB/s" for name in ("gradient", "loss")}
    workers = found["one worker"] / found["two workers"]
    memory = found["peak"] / found["peak of an eighth"]
    return [
        (
            "loss and gradient, beside a Dask copy",
            rate["gradient"],
            against(found["over copy"], 0.8, at_most=False),
        ),
        (
            "loss, beside reading",
            rate["loss"],
            against(found["over read"], 0.8, at_most=False),
        ),
        ("peak memory, beside an eighth", f"{found['peak'] / 1e6:.0f} MB", against(memory, 1.1)),
        (
            "two workers beside one",
            f"{found['two workers']:.2f} s",
            against(workers, 1.7, at_most=False),
        ),
        ("a job of one block", f"{found['small job']:.3f} s", against(found["small job"], 0.5)),
        (
            "64 MB blocks, loss: Dask over a plain loop",
            f"{found['overhead']:+.1%}",
            against(found["overhead"], 0.02),
        ),
        *constants_of_tasks(found),
    ]


def constants_of_tasks(found: dict[str, float]) -> list[tuple[str, str, str]]:
    return [
        ("a block of one row, from sending to result", f"{1e3 * found['block']:.2f} ms", ""),
        ("tasks a second that fill a scheduler's processor", f"{found['scheduler']:,.0f}", ""),
    ]


def write_constants(found: dict[str, float]) -> None:
    """Write the constants that docs/scaling.md reckons with."""
    size = found["gigabytes"] / found["threads"]
    rows = [
        ("bytes a second of one thread, loss", f"{size / found['loss']:.2f} GB/s"),
        ("the same, loss and gradient", f"{size / found['gradient']:.2f} GB/s"),
        *(row[:2] for row in constants_of_tasks(found)),
        ("a job, beside its blocks", f"{1e3 * found['small job']:.0f} ms"),
    ]
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = table(("constant", "measured"), rows)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{lines}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
