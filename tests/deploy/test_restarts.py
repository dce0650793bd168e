"""While clients call and a job runs, replicas are replaced, and each part is killed in turn."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from calls import Arrays, Traffic
from containers import ROOT
from figures import figure
from parts_support import wait_for
from stack import COMPOSE, Stack

CLIENTS = 4


@pytest.fixture(scope="module")
def arrays(stack: Stack) -> Arrays:
    made = Arrays(stack)
    made.check(made.submit("undisturbed"), "undisturbed")
    return made


def test_replicas_are_replaced_without_a_lost_request(stack: Stack) -> None:
    before = {name: stack.state(name)["StartedAt"] for name in ("api-1", "api-2")}
    compose = ["podman-compose", "-f", str(COMPOSE), "--in-pod=false"]
    with Traffic(stack, CLIENTS) as traffic:
        time.sleep(1)
        stack.containers.run("sh", ROOT / "deploy" / "roll.sh", *compose, env=stack.variables)
        time.sleep(1)
    answered = traffic.answers[200]
    figure("Lost in a rolling restart", f"{sum(traffic.lost.values())} of {answered} requests")
    assert traffic.lost == {}
    assert all(stack.state(name)["StartedAt"] != at for name, at in before.items())


def test_a_killed_replica_loses_at_most_what_it_was_doing(stack: Stack, arrays: Arrays) -> None:
    lost = killed_under_way(stack, arrays, "api-1")
    figure("Lost at kill -9 of a replica", f"{lost} requests of {CLIENTS} in flight")
    assert lost <= CLIENTS
    assert stack.is_healthy("api-1")


@pytest.mark.parametrize("name", ["runner", "scheduler", "worker"])
def test_a_killed_part_loses_no_request_and_no_job(stack: Stack, arrays: Arrays, name: str) -> None:
    assert killed_under_way(stack, arrays, name) == 0


def test_jobs_are_there_again_from_a_backup(stack: Stack, arrays: Arrays) -> None:
    """As the runbook has it; in between the records are lost."""
    job = arrays.submit("backed-up")
    arrays.check(job, "backed-up")
    database = ["exec", "-T", "postgres"]
    stack.compose(*database, "sh", "-c", "pg_dump -U softxent -Fc softxent > /tmp/jobs.dump")
    stack.compose("stop", "api-1", "api-2", "runner")
    stack.compose(*database, "psql", "-q", "-U", "softxent", "-c", "drop schema dbos cascade")
    restore = "pg_restore -U softxent -d softxent --clean --if-exists /tmp/jobs.dump"
    stack.compose(*database, "sh", "-c", restore)
    stack.compose("start", "api-1", "api-2", "runner")
    wait_for(stack.ready, "the replicas")
    arrays.check(job, "backed-up")
    arrays.check(arrays.submit("after-restore"), "after-restore")


def killed_under_way(stack: Stack, arrays: Arrays, name: str) -> int:
    """Kill the process of a part in the middle of a job; return how many requests were lost."""
    with Traffic(stack, CLIENTS) as traffic:
        output = f"after-{name}-{time.time_ns()}"
        job = arrays.submit(output)
        time.sleep(float(np.random.default_rng().uniform(0.2, 1.5)))
        before = stack.state(name)["Pid"]
        os.kill(before, signal.SIGKILL)
        # Its restart policy brings it back, without a hand.
        wait_for(lambda: stack.state(name)["Pid"] not in (0, before), f"{name} is back")
        if "Health" in stack.state(name) and stack.state(name)["Health"]["Status"]:
            wait_for(lambda: stack.is_healthy(name), f"{name} is healthy")
        arrays.check(job, output)
    return sum(traffic.lost.values())
