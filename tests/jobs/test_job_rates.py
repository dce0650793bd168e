"""The rates of a run over time: bounded, from its beginning to now, and means of what was done."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from job_support import accepted, batch, run, save

from softxent_service.jobs import engine
from softxent_service.jobs.cluster import Cluster
from softxent_service.jobs.progress import MOST_RATES, Progress, RateHistory


@pytest.mark.parametrize("ticks", [1, 7, 60, 61, 62, 500, 10_000])
def test_the_rates_of_an_even_run_are_all_its_rate(ticks: int) -> None:
    history = RateHistory(1000, 10)
    for tick in range(1, ticks + 1):
        # A quarter of a second each: 100 rows and 2 blocks a second.
        history.add(tick / 4, 1000 + 25 * tick, 10 + tick // 2, is_last=tick == ticks)
    rates = history.rates()
    assert 1 <= len(rates) <= MOST_RATES
    assert {rate.rows_a_second for rate in rates} == {100.0}
    assert rates[-1].seconds == ticks / 4
    assert all(a.seconds < b.seconds for a, b in pairwise(rates))


def test_rates_times_their_seconds_are_what_was_done() -> None:
    history, done = RateHistory(0, 0), 0
    for tick in range(1, 400):
        done += tick % 7 * 40
        history.add(tick / 2, done, done // 40, is_last=tick == 399)
    ends = [0.0, *(rate.seconds for rate in history.rates())]
    parts = zip(pairwise(ends), history.rates(), strict=True)
    whole = [((end - start), rate) for (start, end), rate in parts]
    assert round(sum(s * rate.rows_a_second for s, rate in whole)) == done
    assert round(sum(s * rate.blocks_a_second for s, rate in whole)) == done // 40


def test_a_moment_is_no_rate_unless_it_is_all_there_is() -> None:
    history = RateHistory(0, 0)
    history.add(0.0, 0, 0)
    history.add(0.2, 10, 1)
    assert history.rates() == ()
    history.add(0.25, 20, 2, is_last=True)
    assert [(rate.seconds, rate.rows_a_second) for rate in history.rates()] == [(0.25, 80.0)]
    history.add(0.3, 20, 2, is_last=True)
    assert len(history.rates()) == 1


def test_progress_tells_the_rates(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TICK_SECONDS", 0.0)
    save(tmp_path, batch(400, 20))
    told: list[Progress] = []
    run(accepted(tmp_path, block_bytes=800), cluster, told.append)
    rates = told[-1].to_json()["rates"]
    assert set(rates[0]) == {"seconds", "rows_a_second", "blocks_a_second"}
    ends = [0.0, *(rate["seconds"] for rate in rates)]
    rows = sum(
        (end - start) * rate["rows_a_second"]
        for (start, end), rate in zip(pairwise(ends), rates, strict=True)
    )
    # Seconds are told in thousandths.
    assert rows == pytest.approx(400, rel=0.05)
