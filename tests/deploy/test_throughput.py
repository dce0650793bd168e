"""What the balancer and a second replica come to; every answer is compared with the library's bits.

Nothing is asserted of times: all parts and the clients share one machine.
"""

from __future__ import annotations

import asyncio

import pytest
from figures import figure
from load.cases import make_cases
from load.figures import figures
from load.loops import Load, Run
from load.senders import RawSender
from stack import Stack, container

SECONDS = 5.0
CASES = {"small calls, 1 x 10 in JSON": "1x10:json", "bulk, 16 MiB binary": "4096x1024:binary"}


@pytest.mark.parametrize("name", CASES)
def test_two_replicas_behind_the_balancer_answer_right(stack: Stack, name: str) -> None:
    networks = stack.containers.inspect(container("api-1"))["NetworkSettings"]["Networks"]
    alone = f"http://{networks['softxent_front']['IPAddress']}:8000"
    rates = []
    for url in (alone, stack.url):
        load = asyncio.run(measured(url, stack.secret("client.key"), CASES[name]))
        found = figures(load.samples, load.seconds)
        assert found.failures == {}
        rates.append(found.rate)
    told = f"{rates[0]:.0f}/s one alone, {rates[1]:.0f}/s two behind the balancer"
    figure(f"Throughput, {name}", told)


async def measured(url: str, key: str, cases: str) -> Load:
    sender = RawSender(url, key, 4)
    try:
        return await Run(sender, make_cases(cases), lambda *_: None).closed(4, SECONDS)
    finally:
        await sender.close()
