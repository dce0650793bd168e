"""Every refusal of README's table, provoked: status, type, and what its sentence names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from service_support import BINARY, GOOD, JSON, PATH, connect, head, read_answer

from service_process import Service
from softxent_service.keys import new_key
from test_readme import table

ELSEWHERE = {
    "internal-error": "a fault of the service itself",
    "not-ready": "a service that starts (test_service_process)",
    "draining": "a service that stops (test_service_process)",
    "numerics-changed": "another release (test_job_resume)",
    "input-changed": "an input that changes under a job (test_job_stale_service)",
    "queue-full": "jobs that do not end (test_job_queue)",
    "jobs-unavailable": "a database that is gone (test_job_service)",
    "invalid-region": "regions (test_service_oip_regions)",
    "invalid-output-buffer": "regions (test_service_oip_regions)",
    "body-length-mismatch": "the parser counts bodies; only a server that does not could send one",
    "output-in-use": "jobs that meet (test_job_faults)",
}
"""What a request alone does not bring about, and where it is provoked."""

INFER = {
    "inputs": [
        {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "labels", "datatype": "INT64", "shape": [1], "data": [0]},
    ],
    "parameters": {"reduce": "mean"},
}
REGION = "/v2/systemsharedmemory/region/one/register"
OBJECT = Path("/dev/shm/softxent-refusals")


@dataclass(frozen=True)
class Case:
    """A request, and what its refusal must say."""

    words: str
    path: str = PATH
    body: object = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    key: str | None = "all"


def rows(named: list[int], values: list[Any], of: str, total: int | None = None) -> dict[str, Any]:
    return {"field": of, "rows": named, "values": values, "total": total or len(named)}


JOB = {"logits": "{root}/logits.npy", "labels": "{root}/labels.npy", "output": "{root}/result"}

CASES = {
    "malformed-request": Case(
        "Request-Timeout must be a number of seconds above 0 and at most 600",
        headers={"request-timeout": "soon"},
        members={"field": "request-timeout"},
    ),
    "malformed-body": Case("JSON", body=b'{"logits": [[1, 2]'),
    "unknown-name": Case("reduce", "/v2/models/cross_entropy/infer", INFER),
    "unauthorized": Case("send a key as Authorization: Bearer KEY", key=None),
    "forbidden": Case("the key jobs lacks the scope evaluate", key="jobs"),
    "not-found": Case("there is no such route", "/v1/nothing"),
    "method-not-allowed": Case(
        "this route does not answer to DELETE; it answers to POST", method="DELETE"
    ),
    "unknown-model": Case("none", "/v2/models/none", method="GET"),
    "unknown-region": Case("other", "/v2/systemsharedmemory/region/other/status", method="GET"),
    "region-taken": Case("one", REGION, {"key": f"/{OBJECT.name}", "byte_size": 8}),
    "no-such-job": Case("no job has this id", "/v1/jobs/7", method="GET"),
    "job-state": Case("", "/v1/jobs/{job}/cancel"),
    "not-acceptable": Case(
        f"accept {JSON} or {BINARY}", headers={"accept": "text/html"}, members={"field": "accept"}
    ),
    "limit-exceeded": Case(
        "json_bytes of 2000 bytes; send fewer rows",
        body={"logits": [[0.125] * 400], "labels": [0]},
        members={"limit_name": "json_bytes", "limit": 2000},
    ),
    "unsupported-media-type": Case(
        f"Content-Type 'text/plain' is not read here; send {JSON} or {BINARY}",
        headers={"content-type": "text/plain"},
        members={"field": "content-type"},
    ),
    "invalid-job": Case("logits", "/v1/jobs", {"output": "file:///x"}),
    "location-refused": Case(
        "logits lies below none of the roots", "/v1/jobs", {**JOB, "logits": "file:///elsewhere"}
    ),
    "idempotency-key-reused": Case(
        "", "/v1/jobs", {**JOB, "reduction": "sum"}, headers={"idempotency-key": "once"}
    ),
    "storage-failed": Case("absent.npy", "/v1/jobs", {**JOB, "logits": "{root}/absent.npy"}),
    "invalid-option": Case(
        "label_smoothing must be in [0, 1], not 1.5",
        f"{PATH}?label_smoothing=1.5",
        members={"field": "label_smoothing"},
    ),
    "invalid-tensor": Case("logits", body={"labels": [0]}, members={"field": "logits"}),
    "invalid-rows": Case(
        "target_probabilities",
        body={"logits": [[1, 2]] * 2, "target_probabilities": [[0, 1], [0, -1]]},
        members={"field": "target_probabilities", "rows": [1], "total": 1},
    ),
    "label-out-of-range": Case(
        "[0, 2)",
        body={"logits": [[1, 2]] * 3, "labels": [2, 0, -1]},
        members=rows([0, 2], [2, -1], "labels"),
    ),
    "invalid-weight": Case(
        "row_weights",
        body={"logits": [[1, 2]] * 12, "labels": [0] * 12, "row_weights": [-1] * 12},
        members=rows([*range(10)], [-1.0] * 10, "row_weights", 12),
    ),
    "non-finite-result": Case(
        "", body={"logits": [[1, 2], ["NaN", 2]], "labels": [0, 0]}, members={"rows": [1]}
    ),
    "empty-reduction": Case(
        "", f"{PATH}?reduction=mean&empty=error", {"logits": [[1, 2]], "labels": [-100]}
    ),
    "not-supported": Case("not served", "/v2/logging", method="GET"),
    "deadline-exceeded": Case("", headers={"request-timeout": "0.000001"}),
}

RAW = {
    "head-timeout": b"POST / HTTP/1.1\r\nhost: te",
    "body-timeout": head(len(GOOD)) + GOOD[:5],
    "head-too-large": b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 3000 + b"\r\n\r\n",
}


@dataclass(frozen=True)
class Refusing:
    """A service whose limits are small, what it is asked with, and a job that has ended."""

    url: str
    keys: dict[str, str]
    root: str
    job: str

    def ask(self, case: Case) -> httpx.Response:
        body = GOOD if case.body is None else case.body
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": JSON, **case.headers}
        if case.key is not None:
            headers["authorization"] = f"Bearer {self.keys[case.key]}"
        content = (
            None
            if case.method in ("GET", "DELETE")
            else text.replace(b"{root}", self.root.encode())
        )
        url = self.url + case.path.replace("{job}", self.job)
        return httpx.request(case.method, url, content=content, headers=headers, timeout=120)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusing]:
    made = {"all": new_key("all", ["evaluate", "jobs"]), "jobs": new_key("jobs", ["jobs"])}
    root = tmp_path_factory.mktemp("arrays")
    np.save(root / "logits.npy", np.zeros((2, 3), np.float32))
    np.save(root / "labels.npy", np.zeros(2, np.int64))
    OBJECT.write_bytes(bytes(64))
    small = ("--json-bytes=2000", "--request-head-bytes=2048", "--body-idle-seconds=0.3")
    service = Service(
        *small,
        "--keep-alive-seconds=2",
        "--shared-memory",
        f"--roots=file://{root}",
        SOFTXENT_KEYS=";".join(kept.line() for _, kept in made.values()),
    )
    try:
        keys = {name: text for name, (text, _) in made.items()}
        first = Refusing(service.ready_url(), keys, f"file://{root}", "")
        assert first.ask(CASES["region-taken"]).is_success
        begun = first.ask(Case("", "/v1/jobs", JOB, headers={"idempotency-key": "once"}))
        assert begun.status_code == 202, begun.text
        job = begun.json()["id"]
        headers = {"authorization": f"Bearer {keys['all']}"}
        # The stream of its events ends with the job.
        events = httpx.get(f"{first.url}/v1/jobs/{job}/events", headers=headers, timeout=120)
        assert '"state":"succeeded"' in events.text, events.text
        yield Refusing(first.url, keys, first.root, job)
        assert service.end() == 0
    finally:
        OBJECT.unlink()
        service.clear()


STATUSES = {row[0]: int(row[1]) for row in table("problem")}


def check(document: dict[str, Any], status: int, word: str) -> None:
    """Check what is true of every problem document."""
    assert (status, document["type"]) == (STATUSES[word], f"urn:softxent:problem:{word}"), document
    assert document["status"] == status
    assert document["title"] == word.replace("-", " ").capitalize()
    assert document["error"] == document["detail"]
    assert len(document["detail"]) > 10
    assert not re.search(r"Error|Traceback|object at 0x|\n", document["detail"])
    assert not re.search(r"\b1 (rows|classes|bytes|elements|dimensions)\b", document["detail"])


def test_every_row_of_the_table_is_provoked() -> None:
    assert {*CASES, *RAW, *ELSEWHERE, "overloaded"} == set(STATUSES)
    assert not {*CASES, *RAW} & set(ELSEWHERE)


@pytest.mark.parametrize("word", CASES)
def test_a_refusal_says_what_is_wrong(refusing: Refusing, word: str) -> None:
    case = CASES[word]
    answer = refusing.ask(case)
    document = answer.json()
    check(document, answer.status_code, word)
    assert case.words in document["detail"], document
    assert {name: document.get(name) for name in case.members} == case.members


@pytest.mark.parametrize("word", RAW)
def test_a_refusal_of_what_is_no_whole_request(refusing: Refusing, word: str) -> None:
    key = f"authorization: Bearer {refusing.keys['all']}\r\nconnection".encode()
    with connect(refusing.url) as connection, connection.makefile("rb") as answers:
        connection.sendall(RAW[word].replace(b"connection", key))
        status, _, body = read_answer(answers)
    check(json.loads(body), status, word)


def test_more_connections_than_there_may_be(start: Callable[..., Service]) -> None:
    url = start("--connections=1").url()
    with connect(url), connect(url) as second, second.makefile("rb") as answers:
        status, headers, body = read_answer(answers)
    check(json.loads(body), status, "overloaded")
    assert headers["retry-after"] == "1"
    assert "one connection more than the limit of 1" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "text", ["1_0", "nan", "inf", "1e", "0x1", "-1", "0", "1e400", "0x1p3", "1 0"]
)
def test_a_time_is_a_plain_decimal_number(refusing: Refusing, text: str) -> None:
    """Python's own float also reads underscores and words."""
    case = Case("a number of seconds", headers={"request-timeout": text})
    answer = refusing.ask(case)
    check(answer.json(), answer.status_code, "malformed-request")
    assert answer.json()["field"] == "request-timeout"
