"""Three server processes behind a plain TCP balancer, restarted one after another under load."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.faults.balancer import Balancer
from tests.faults.counts import record
from tests.faults.invariants import Outside
from tests.faults.world import ASKING, Person, World

# A moment's rest of each person: the restarts matter, not how many requests a second there are.
REST = 0.2
LITTLE_REST = 0.02
ROUNDS = 6


async def use(world: World, url: str, person: Person, over: asyncio.Event, rest: float) -> None:
    """One person's terminal, on a connection that it keeps; a new pair of tokens now and then."""
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(timeout=ASKING, connector=connector) as client:
        turn = 0
        while not over.is_set():
            turn += 1
            await world.ask(client, url, person)
            if turn % 10 == 0:
                while not await world.refresh(client, url, person):
                    assert person.ended is None, person.ended
            await asyncio.sleep(rest)


@asynccontextmanager
async def in_use(world: World, balancer: Balancer, rest: float = REST) -> AsyncIterator[None]:
    over = asyncio.Event()
    with balancer.running():
        async with asyncio.TaskGroup() as group:
            for person in world.people:
                group.create_task(use(world, balancer.url, person, over, rest))
            try:
                yield
            finally:
                over.set()


async def until_asked(world: World, times: int) -> None:
    goal = world.given.asked + times
    while world.given.asked < goal:  # noqa: ASYNC110 - counted by tasks that know nothing of this
        await asyncio.sleep(LITTLE_REST)


async def restart_each(world: World, balancer: Balancer, requests: int) -> None:
    """SIGTERM, its end, a new start: with so many requests before each, and after the last."""
    for port in world.ports:
        await until_asked(world, requests)
        fork = world.servers[port]
        assert await world.stop(port, signal.SIGTERM) == 0, fork.output()
        await world.start(port)
        while not balancer.takes(port):  # noqa: ASYNC110 - another thread's finding
            await asyncio.sleep(LITTLE_REST)
    await until_asked(world, requests)


async def one_chain_and_nothing_twice(world: World, outside: Outside) -> None:
    records = await outside.all_holds()
    kinds = [record["type"] for record in records]
    given = world.given
    # Whoever was told nothing may have been given nothing, but no intent is open.
    await outside.intents_become_terminal()
    assert kinds.count("issuance.issued") == len({a["issuance_id"] for a in given.issued})
    assert kinds.count("issuance.issued") == kinds.count("issuance.requested")
    assert len(world.aws.calls.of("AssumeRole")) == kinds.count("issuance.requested")
    assert not any(record["type"] == "session.revoked" for record in records)


@pytest.mark.timeout(600)
async def test_no_request_is_lost_when_each_of_three_is_restarted(
    world: World, outside: Outside
) -> None:
    await world.start_servers()
    refusing = Balancer(world.ports)
    async with in_use(world, refusing):
        # Those that are started from now on are for a balancer that goes by /readyz.
        world.settings["BROKER_SERVER__DRAIN_SECONDS"] = "1.5"
        await restart_each(world, refusing, 20)
    probing = Balancer(world.ports, probing=True)
    async with in_use(world, probing):
        await restart_each(world, probing, 20)
    assert world.given.unanswered == 0
    assert not world.given.refused
    await one_chain_and_nothing_twice(world, outside)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_of_thousands_of_requests_one_in_a_thousand_is_lost_at_most(
    world: World, outside: Outside
) -> None:
    await world.start_servers()
    balancer = Balancer(world.ports)
    async with in_use(world, balancer, LITTLE_REST):
        for _ in range(ROUNDS):
            await restart_each(world, balancer, 250)
    lost = world.given.unanswered + world.given.refused.total()
    assert world.given.asked >= 5000
    assert lost <= world.given.asked / 1000, (lost, world.given)
    if lost == 0:
        await one_chain_and_nothing_twice(world, outside)
    else:
        await outside.all_holds()
    record(
        "restarts",
        {"restarts": ROUNDS * len(world.ports), "requests": world.given.asked, "lost": lost},
    )
