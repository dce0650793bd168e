"""How many jobs may wait: the next is refused by name until one of them does not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from job_support import batch, save

from service_process import Service
from softxent_client.errors import ServiceError
from softxent_client.jobs import Jobs

MOST = 3


def test_no_more_jobs_wait_than_may(start: Callable[..., Service], tmp_path: Path) -> None:
    save(tmp_path, batch(10, 3))
    flags = (f"--data={tmp_path}/data", f"--roots=file://{tmp_path}", f"--queued-jobs={MOST}")
    # Nothing runs them, so all stay.
    service = start(*flags, "--job-runner=elsewhere")
    url = service.ready_url()

    def submit(number: int) -> httpx.Response:
        job = {name: f"file://{tmp_path}/{name}.npy" for name in ("logits", "labels")}
        job["output"] = f"file://{tmp_path}/out{number}"
        headers = {"idempotency-key": str(number)}
        return httpx.post(f"{url}/v1/jobs", json=job, headers=headers, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    taken = [n for n, answer in enumerate(answers) if answer.status_code == 202]
    refused = [n for n in range(8) if n not in taken]
    assert len(taken) == MOST
    for number in refused:
        assert_full(answers[number])
    # What was taken may be sent again, and is no job more.
    assert submit(taken[0]).json()["id"] == answers[taken[0]].json()["id"]
    with Jobs(url) as jobs:
        with pytest.raises(ServiceError, match="3 jobs wait already") as caught:
            jobs.submit(answers[taken[0]].json()["job"] | {"output": f"file://{tmp_path}/more"})
        assert (caught.value.status, caught.value.problem_slug) == (429, "queue-full")
        jobs.cancel(answers[taken[0]].json()["id"])
    assert submit(refused[0]).status_code == 202
    assert_full(submit(refused[1]))
    assert service.end() == 0


def assert_full(answer: httpx.Response) -> None:
    document = answer.json()
    assert answer.status_code == document["status"] == 429
    assert document["type"] == "urn:softxent:problem:queue-full"
    assert (document["limit_name"], document["limit"]) == ("queued_jobs", MOST)
    assert answer.headers["retry-after"] == "30"
