"""The load tests themselves: that they count from the intended start, and see what is wrong."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from load.cases import Case, make_case, make_cases, picks
from load.figures import figures, read_objective
from load.loops import Load, Run, Sample, arrivals
from load.plots import plot
from load.processes import usage
from load.report import page, verdicts, windows
from load.soak import flat

from softxent_client.wire import MEDIA_TYPES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def unseen(_load: Load) -> None:
    """Show nothing."""


class Stalling:
    """Answers at once, but for one pause in which it answers nobody, as a stalled server does."""

    def __init__(self, after: int, pause: float, body: bytes) -> None:
        self._left, self._pause, self._body = after, pause, body
        self._free = asyncio.Lock()

    async def send(self, _case: Case) -> tuple[int, bytes]:
        async with self._free:
            self._left -= 1
            if self._left == 0:
                await asyncio.sleep(self._pause)
        return 200, self._body

    async def close(self) -> None:
        """Hold nothing."""


def right_answer(case: Case) -> bytes:
    sums = {name: np.zeros((), np.float64) for name in ("loss_sum", "weight_sum")}
    whole = {**case.expected, **sums, "count": np.zeros((), np.int64)}
    return b"".join(MEDIA_TYPES[case.form].encode(whole))


@pytest.mark.parametrize("form", ["json", "binary"])
def test_an_answer_with_one_wrong_bit_is_seen(form: str) -> None:
    case = make_case(f"3x5:{form}")
    body = right_answer(case)
    assert case.is_right(body)
    assert case.is_right(body)
    case.expected["gradient"].view(np.uint32)[1, 2] ^= 1
    assert not case.is_right(right_answer(case))
    assert not make_case(f"3x5:{form}").is_right(b"nonsense")
    del case.expected["loss"]
    assert not make_case(f"3x5:{form}").is_right(right_answer(case))


def test_an_open_loop_counts_from_when_requests_were_due() -> None:
    """Of 200 a second for a second, one pause of half a second delays about a hundred."""
    case = make_case("1x2:json")
    sender = Stalling(20, 0.5, right_answer(case))
    load = asyncio.run(Run(sender, [case], unseen).open(200, 1.0))
    assert len(load.samples) == 200
    assert not any(sample.failure for sample in load.samples)
    delayed = [sample for sample in load.samples if sample.latency > 0.1]
    assert 60 <= len(delayed) <= 110
    assert figures(load.samples, load.seconds).latency["p90"] > 0.3


def test_a_closed_loop_has_as_many_on_the_way_as_asked_for() -> None:
    case = make_case("1x2:json")
    most = now = 0

    class Counting(Stalling):
        async def send(self, _case: Case) -> tuple[int, bytes]:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            return 200, self._body

    sender = Counting(0, 0, right_answer(case))
    load = asyncio.run(Run(sender, [case], unseen).closed(7, 0.3))
    assert most == 7
    assert len(load.samples) > 7


def test_what_goes_wrong_is_told_apart() -> None:
    case = make_case("1x2:json")

    class Failing(Stalling):
        async def send(self, _case: Case) -> tuple[int, bytes]:
            self._left -= 1
            if self._left % 3 == 0:
                raise ConnectionResetError
            return (200, b"{}") if self._left % 3 == 1 else (429, b"")

    load = asyncio.run(Run(Failing(31, 0, b""), [case], unseen).open(300, 0.1))
    found = figures(load.samples, load.seconds)
    assert found.failures == {"wrong bits": 10, "ConnectionResetError": 10, "status 429": 10}
    assert not verdicts([read_objective("errors<=99%"), read_objective("p99<=1s")], found)[0].holds
    assert not verdicts([], found)[0].holds


def test_arrivals_come_at_their_rate() -> None:
    assert list(arrivals(4, 1)) == [0, 0.25, 0.5, 0.75]
    random = list(arrivals(1000, 10, poisson=True))
    assert len(random) == pytest.approx(10_000, rel=0.05)
    assert random == sorted(random)


def test_a_mix_is_sent_as_its_weights_say() -> None:
    cases = make_cases("1x2:json:3,1x3:binary")
    chosen = [next(choice) for choice in [picks(cases)] for _ in range(4000)]
    assert chosen.count(0) == pytest.approx(3000, rel=0.05)


@pytest.mark.parametrize("text", ["1x2", "1x2:xml", "0x2:json", "ax2:json", "1x2:json:1:2"])
def test_a_mix_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_cases(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        *(
            ("p50<=7.8125ms", True),
            ("p50<=7.8ms", False),
            ("p50>=0.0078125s", True),
            ("max<=20ms", True),
        ),
        *(("errors<=50%", True), ("errors<=0.3", False), ("rate>=2/s", True), ("rate>=3", False)),
    ],
)
def test_objectives(text: str, holds: bool) -> None:
    failed = Sample(0, 1, 1, 2, "status 429")
    samples = [Sample(0, 0, 0, 1 / 128), Sample(0, 1, 1, 1 + 1 / 128), failed, failed]
    assert read_objective(text).holds(figures(samples, 1.0)) is holds


@pytest.mark.parametrize("text", ["", "p50", "p98<=1ms", "p50<1ms", "p50<=1h", "p50<=fast"])
def test_objectives_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_objective(text)


def test_without_a_right_answer_no_latency_holds() -> None:
    none = figures([Sample(0, 0, 0, 1, "status 500")], 1.0)
    assert not read_objective("p99<=1000s").holds(none)


def test_a_report_needs_nothing_else() -> None:
    cases = make_cases("1x2:json,2x3:binary")
    samples = [Sample(n % 2, n / 10, n / 10, n / 10 + 0.001 * (n + 1)) for n in range(100)]
    load = Load(cases, [*samples, Sample(0, 5, 5, 6, "<status 429>")], 10.0, 0.95)
    found = figures(load.samples, load.seconds)
    text = page("Load <test>", load, verdicts([read_objective("p99<=1ms")], found))
    assert text.count("<svg") == text.count("</svg>") == 3
    assert "<status" not in text
    assert "&lt;test&gt;" in text
    assert not re.search(r"(src|href|url\()|<script|http:", text)
    assert "it is the client that was measured" in text
    assert "missed" in text
    assert len(windows(load)["p99"]) > 20


def test_plots_of_nothing_and_of_one_point() -> None:
    assert "<svg" in plot("t", "x", "y", {"none": []})
    assert "<circle" in plot("t", "x", "y", {"one": [(1.0, 2.0)]}, log=True)
    assert "nan" not in plot("t", "x", "y", {"one": [(1.0, float("nan")), (2.0, 3.0), (3.0, 4.0)]})


def test_a_curve_that_grows_is_not_flat() -> None:
    level = [(float(n), 100.0 + (n < 10) * -50) for n in range(100)]
    assert flat("memory, MB", level).holds
    assert not flat("memory, MB", [(at, value + at) for at, value in level]).holds


def test_usage_of_a_process_and_its_children() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        alone = usage(parent.pid)
        while usage(parent.pid).memory < 1.5 * alone.memory or not usage(parent.pid).descriptors:
            assert parent.poll() is None
        parent.communicate(b"\n")
    assert usage(parent.pid).memory == 0


def run_load(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "load", url, "--seconds=1", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=BENCHMARKS)


@pytest.mark.parametrize("flags", [(), ("--rate=40",), ("--rate=40", "--client=raw", "--poisson")])
def test_a_run_against_the_service(service_url: str, tmp_path: Path, flags: tuple[str]) -> None:
    report = tmp_path / "report.html"
    mix = "--mix=1x10:json,1x10:binary,20x100:binary,20x100:json"
    goals = ("--objective=errors<=0%", "--objective=p50<=10s")
    done = run_load(service_url, mix, f"--report={report}", *goals, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "holds  every answer holds the library's bits (0 wrong)" in done.stdout
    assert report.read_text().startswith("<!doctype html>")


def test_a_missed_objective_is_the_exit_status(service_url: str) -> None:
    done = run_load(service_url, "--mix=1x10:json", "--objective=p50<=1us")
    assert done.returncode == 1
    assert "MISSED p50<=1us" in done.stdout


def test_nobody_there() -> None:
    done = run_load("http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("load: http://127.0.0.1:1 is not ready")
