"""A thousand forked calls beside their parent's: none lost, none swapped."""

from __future__ import annotations

from functools import partial

import pytest

from fork_support import answer, in_child

FORKS = 1_000
BATCHES = 7


@pytest.mark.timeout(1800)
def test_a_thousand_forked_calls_give_their_own_answers() -> None:
    wanted = [answer(seed) for seed in range(BATCHES)]
    assert len({loss_sum for _, loss_sum in wanted}) == BATCHES
    for number in range(FORKS):
        seed = number % BATCHES
        found = in_child(partial(answer, seed))
        assert found == wanted[seed], number
        assert answer(number * 3 % BATCHES) == wanted[number * 3 % BATCHES], number
