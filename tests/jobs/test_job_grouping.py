"""Short blocks go together in a task, long ones alone, and at the end no thread is idle."""

from __future__ import annotations

import pytest

from softxent_service.jobs.grouping import LONG_SECONDS, MOST, SHORT_SECONDS, Grouping

PLACES = 4


def sizes(grouping: Grouping, blocks: int, seconds_each: float) -> list[int]:
    """Return the sizes of tasks that are sent, and done, one after the other."""
    found = []
    while blocks:
        found.append(grouping.next(blocks, PLACES))
        blocks -= found[-1]
        grouping.took(found[-1], found[-1] * seconds_each)
    return found


@pytest.mark.parametrize("seconds_each", [1e-4, 0.03, 0.3, 5.0])
def test_a_task_is_neither_short_nor_long(seconds_each: float) -> None:
    found = sizes(Grouping(), 10_000, seconds_each)
    assert sum(found) == 10_000
    assert found[0] == 1
    middle = found[len(found) // 2]
    assert middle == MOST or middle * seconds_each >= SHORT_SECONDS or middle == 1
    assert middle == 1 or middle * seconds_each <= LONG_SECONDS


@pytest.mark.parametrize("blocks", [1, 3, 4, 5, 50])
def test_the_last_blocks_are_for_all_places(blocks: int) -> None:
    grouping = Grouping()
    sizes(grouping, 1000, 1e-4)
    found = sizes(grouping, blocks, 1e-4)
    assert sum(found) == blocks
    assert found[-min(blocks, PLACES) :] == [1] * min(blocks, PLACES)


def test_blocks_that_become_long_go_alone() -> None:
    grouping = Grouping()
    sizes(grouping, 1000, 1e-4)
    found = sizes(grouping, 1000, LONG_SECONDS + 1)
    assert found[0] == MOST
    assert max(found[7:]) == 1


def test_blocks_whose_columns_are_cut_go_alone() -> None:
    assert set(sizes(Grouping(1), 100, 1e-4)) == {1}
