"""Two thousand jobs wait in a queue: all are run, each once, and can be listed and cancelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from parts_support import CLI, Part, wait_for

from softxent_service.jobs.acceptance import accept
from softxent_service.jobs.record import Cursor, Record
from softxent_service.jobs.records import Records, database_url
from softxent_service.jobs.roots import Roots
from softxent_service.jobs.specification import Specification

JOBS = 2000
CANCELLED = 1500


def every(records: Records) -> list[Record]:
    found: list[Record] = []
    cursor: str | None = None
    while True:
        page = records.page(limit=300, cursor=Cursor.from_text(cursor) if cursor else None)
        found += page.records
        cursor = page.following
        if cursor is None:
            return found


def test_two_thousand_jobs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    np.save(tmp_path / "y.npy", np.zeros(4, np.int64))
    roots, url = Roots([f"file://{tmp_path}"]), f"file://{tmp_path}"
    records = Records(database_url(None, tmp_path))
    given = {"logits": f"{url}/x.npy", "labels": f"{url}/y.npy"}
    jobs = [
        accept(Specification.from_json({**given, "output": f"{url}/out/{i}"}), roots)
        for i in range(JOBS)
    ]
    ids = [records.submit(job, 1 << 20, key=str(i)).id for i, job in enumerate(jobs)]
    assert [records.submit(jobs[i], 1 << 20, key=str(i)).id for i in (0, 999)] == [ids[0], ids[999]]
    assert sorted(record.id for record in every(records)) == sorted(ids)
    for job_id in ids[:CANCELLED]:
        assert records.cancel(job_id).state == "cancelled"
    command = [*CLI, "runner", f"--data={tmp_path}", f"--roots={url}", "--running-jobs=4"]
    runner = Part("runner", command, lambda: True, tmp_path)
    runner.ready = lambda: "takes jobs" in runner.log.read_text()
    try:
        runner.start()
        queued = ["queued", "running"]
        wait_for(lambda: not records.page(queued, limit=1).records, "an empty queue", 600)  # type: ignore[arg-type]
    finally:
        runner.end()
    states = {record.id: record.state for record in every(records)}
    assert [states[job_id] for job_id in ids[:CANCELLED]] == ["cancelled"] * CANCELLED
    assert [states[job_id] for job_id in ids[CANCELLED:]] == ["succeeded"] * (JOBS - CANCELLED)
    assert len(list((tmp_path / "out").iterdir())) == JOBS - CANCELLED
    sums = {record.result["loss_sum"] for record in every(records) if record.result}
    assert len(sums) == 1
    records.close()
