"""Calls of a service with jobs: a client, descriptions of jobs, and how they end or are refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

HTTP = httpx.Client(timeout=60, verify=False)
"""The first job of a service waits for the imports of all that jobs need."""


def job(arrays: Path, output: str, **members: Any) -> dict[str, Any]:
    return {
        "logits": f"file://{arrays}/logits.npy",
        "labels": f"file://{arrays}/labels.npy",
        "output": f"file://{arrays}/{output}",
        **members,
    }


def ended(url: str, job_id: str, seconds: float = 60) -> dict[str, Any]:
    return until(url, job_id, ("succeeded", "failed", "cancelled"), seconds)


def until(url: str, job_id: str, states: tuple[str, ...], seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told: dict[str, Any] = HTTP.get(f"{url}/v1/jobs/{job_id}").json()
        if told["state"] in states:
            return told
        time.sleep(0.05)
    raise AssertionError(f"still {told}")


def refused(answer: httpx.Response, status: int, slug: str, field: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document["type"] == f"urn:softxent:problem:{slug}"
    assert document.get("field") == field
    return str(document["detail"])
