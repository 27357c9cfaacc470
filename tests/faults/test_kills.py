"""kill -9 at every step of the path, under load, three server processes on one PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import pytest

from broker.devstack.aws import Fault
from tests.faults import counts
from tests.faults.invariants import Outside
from tests.faults.listing import ANYWHERE, KILLED
from tests.faults.load import Load
from tests.faults.points import ALONE, ISSUANCE, MUTATORS, POINTS, REAPER, Point
from tests.faults.world import World

MOST_PASSES = 4
MANY_KILLS = 250


def in_pairs(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    """Two at a time of those that need the same load."""
    for _, found in groupby(points, lambda point: point.needs):
        alike = list(found)
        for first in range(0, len(alike), 2):
            yield alike[first : first + 2]


async def dead(world: World, port: int, point: Point) -> None:
    fork = world.servers[port]
    ended = await asyncio.to_thread(fork.wait)
    assert ended == -signal.SIGKILL, f"{point.name}: {ended}\n{fork.output()[-4000:]}"
    del world.servers[port]


async def armed(world: World, port: int, point: Point, most_passes: int = MOST_PASSES) -> None:
    """A server on that port, which kills itself at the point."""
    await world.start(port, (point.name, random.randint(1, most_passes)))


async def kill_anywhere(world: World, port: int, kills: Counter[str]) -> None:
    await world.stop(port, signal.SIGKILL)
    kills[ANYWHERE] += 1


async def kill_at(
    world: World, points: Sequence[Point], outside: Outside, kills: Counter[str]
) -> None:
    """Two servers at a time die, each at its point, while a third serves; that is killed as well,
    anywhere, once another has taken its place. All must hold after each pair.
    """
    load = Load(world, [f"http://127.0.0.1:{port}" for port in world.ports])
    for number, pair in enumerate(in_pairs(points)):
        load.wanted = pair[0].needs
        if load.wanted == "refusals":
            world.aws.faults.add(Fault.EMPTY_MESSAGE, times=None)
        survivor = await one_survivor(world, kills, renewed=number % 4 == 0)
        if load.wanted == "grants":
            await outside.admin_is_fresh(f"http://127.0.0.1:{survivor}")
        victims = [port for port in world.ports if port != survivor][: len(pair)]
        dying = list(zip(victims, pair, strict=True))
        await asyncio.gather(*(armed(world, *each) for each in dying))
        async with load.running():
            await asyncio.gather(*(dead(world, *each) for each in dying))
        world.aws.faults.clear()
        kills.update(point.name for point in pair)
        try:
            await outside.all_holds()
        except AssertionError as broken:
            broken.add_note(f"after kills at {[point.name for point in pair]}")
            raise


async def one_survivor(world: World, kills: Counter[str], *, renewed: bool) -> int:
    """The port of the one server that runs. `renewed`: another's, and the last one's was killed
    while it served.
    """
    standing = list(world.servers)
    if renewed or not standing:
        free = [port for port in world.ports if port not in world.servers]
        chosen = free[0] if free else standing.pop()
        if free:
            await world.start(chosen)
    else:
        chosen = standing.pop()
    load = Load(world, [f"http://127.0.0.1:{port}" for port in world.ports])
    if standing:
        async with load.running():
            for port in standing:
                await kill_anywhere(world, port, kills)
    return chosen


async def kill_alone(world: World, outside: Outside, kills: Counter[str]) -> None:
    """One server writes alone, as it must to commit in one statement, and dies there."""
    for port in list(world.servers):
        await kill_anywhere(world, port, kills)
    port = world.ports[0]
    for point in ALONE:
        await armed(world, port, point)
        async with Load(world, [f"http://127.0.0.1:{port}"]).running():
            await dead(world, port, point)
        kills[point.name] += 1
        await outside.all_holds()


async def kill_reapers(world: World, outside: Outside, kills: Counter[str]) -> None:
    """With every server dead, an intent is left open: the first to close it dies of that, twice;
    then somebody closes it, in time.
    """
    for port in list(world.servers):
        await kill_anywhere(world, port, kills)
    port, point = world.ports[0], POINTS["STS not asked"]
    await armed(world, port, point)
    async with Load(world, [f"http://127.0.0.1:{port}"]).running():
        await dead(world, port, point)
    kills[point.name] += 1
    for point in REAPER:
        await armed(world, port, point, most_passes=1)
        await dead(world, port, point)
        kills[point.name] += 1
        await outside.all_holds()
    await world.start_servers()
    await outside.intents_become_terminal()


async def serve_again(world: World) -> None:
    """Every server gives everybody credentials, with nobody's help."""
    async with world.client() as client:
        for port in world.ports:
            for person in world.people:
                while not await world.refresh(client, f"http://127.0.0.1:{port}", person):
                    assert person.ended is None, person.ended
                assert await world.ask(client, f"http://127.0.0.1:{port}", person) == 200


@pytest.mark.timeout(600)
async def test_a_process_killed_at_any_step_loses_and_gives_out_nothing(
    world: World, outside: Outside
) -> None:
    world.settings["BROKER_AUDIT__ORPHAN_AFTER_SECONDS"] = "15"
    kills: Counter[str] = Counter()
    await kill_at(world, [*ISSUANCE, *MUTATORS], outside, kills)
    await kill_alone(world, outside, kills)
    await kill_reapers(world, outside, kills)
    assert set(kills) == set(KILLED)
    await serve_again(world)
    records = await outside.all_holds()
    assert any(record["type"] == "issuance.orphaned" for record in records)
    for port in world.ports:
        assert await world.stop(port, signal.SIGTERM) == 0
    assert (await outside.verified_offline(world.folder)).startswith("authentic: ")


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_hundreds_of_kills(world: World, outside: Outside) -> None:
    """With the settings as they come: each intent is terminal within a minute."""
    kills: Counter[str] = Counter()
    while kills.total() < MANY_KILLS:
        for _ in range(3):
            await kill_at(world, [*ISSUANCE, *MUTATORS], outside, kills)
        await kill_alone(world, outside, kills)
        await kill_reapers(world, outside, kills)
    await serve_again(world)
    await outside.all_holds()
    counts.record("kills", kills)
