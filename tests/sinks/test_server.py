"""Real servers' sinks: nobody waits for one that hangs, and kill -9 costs no record."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.adapters.store.engine import Database
from broker.adapters.store.records import AuditRecords
from broker.audit.verify import export_line
from broker.devstack.aws import AwsStandIn
from tests.faults.world import World
from tests.sinks.conftest import until
from tests.sinks.receivers import Answer, WebhookReceiver, webhook_receiver

SECRET = "a secret of enough length"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver(SECRET.encode()) as made:
        yield made


@pytest.fixture
async def world(
    tmp_path: Path, database_url: str, receiver: WebhookReceiver
) -> AsyncIterator[World]:
    with AwsStandIn.start() as aws:
        opened = await World.open(tmp_path, database_url, aws, people=3)
        opened.settings["BROKER_AUDIT__SINKS"] = json.dumps(sinks(tmp_path, receiver))
        try:
            yield opened
        finally:
            await opened.aclose()


def sinks(folder: Path, receiver: WebhookReceiver) -> list[dict[str, Any]]:
    secret = folder / "webhook-secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    siem: dict[str, Any] = {"name": "siem", "kind": "webhook", "url": receiver.url}
    siem |= {"secret_file": str(secret), "linger_seconds": 0, "timeout_seconds": 60}
    disk: dict[str, Any] = {"name": "disk", "kind": "file", "path": str(folder / "audit.jsonl")}
    disk |= {"max_bytes": 20_000, "keep": 1000}
    return [one | {"from": "beginning"} for one in (siem, disk)]


def written(folder: Path) -> list[str]:
    """Every line of the file and of what it was rotated to, oldest first."""

    def number(path: Path) -> int:
        return int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0

    files = sorted(folder.glob("audit.jsonl*"), key=number, reverse=True)
    return [line for file in files for line in file.read_text().splitlines()]


def posted(receiver: WebhookReceiver) -> list[str]:
    return [line for body in list(receiver.taken) for line in body.decode().splitlines()]


async def exported(url: str) -> list[str]:
    database = Database.open(url)
    try:
        rows = AuditRecords(database).export()
        return [export_line(r.record, r.leaf, r.chain).decode().rstrip("\n") async for r in rows]
    finally:
        await database.aclose()


def holds_all(lines: list[str], log: list[str]) -> bool:
    """Every record of the log, each for the first time after the one before it."""
    return list(dict.fromkeys(lines))[: len(log)] == log


@pytest.mark.parametrize(
    "database_url",
    ["postgresql", pytest.param("sqlite", marks=pytest.mark.long)],
    indirect=True,
)
async def test_a_sink_that_hangs_and_a_server_that_is_killed_cost_no_record(
    world: World, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    doomed, spare = world.ports[0], world.ports[1]
    receiver.script = [Answer(503, {"Retry-After": "1"})] * 1000
    first = await world.start(doomed)
    async with world.client() as client:
        url = f"http://127.0.0.1:{doomed}"
        ada, *others = world.people
        # Ready all the same, and it says what is behind.
        await until(lambda: readiness(client, url, {"status": "degraded", "detail": "sink siem"}))
        receiver.script.clear()
        await until(lambda: readiness(client, url, {"status": "ok"}))

        receiver.hold.clear()
        seen = len(receiver.seen)
        assert await world.ask(client, url, ada) == 200
        await until(lambda: len(receiver.seen) > seen)
        # It is given a batch, and hangs. Nobody waits for it.
        for _ in range(5):
            assert await world.ask(client, url, ada) == 200
        second = await world.start(spare)

        # Killed while a batch is in flight, and while credentials are asked for.
        asking = [asyncio.create_task(keep_asking(world, client, url, who)) for who in others]
        before = len(world.given.issued)
        await until(lambda: len(world.given.issued) >= before + 10)
        assert await world.stop(doomed, signal.SIGKILL) == -signal.SIGKILL
        await asyncio.gather(*asking)
        receiver.hold.set()

        # The other one takes over by itself, and all of it arrives everywhere.
        assert await world.ask(client, f"http://127.0.0.1:{spare}", ada) == 200
    log = await exported(world.database_url)
    await until(lambda: holds_all(posted(receiver), log))
    await until(lambda: holds_all(written(tmp_path), log))
    added = [line for line in log if "audit.sinks_changed" in line]
    assert len(added) == 2
    assert receiver.url.removesuffix("/in") in added[0]
    assert await world.stop(spare, signal.SIGTERM) == 0
    for text in (*log, first.output(), second.output()):
        assert SECRET not in text


async def readiness(client: aiohttp.ClientSession, url: str, expected: dict[str, str]) -> bool:
    async with client.get(f"{url}/readyz") as answer:
        return answer.status == 200 and await answer.json() == expected


async def keep_asking(world: World, client: aiohttp.ClientSession, url: str, who: Any) -> None:
    while await world.ask(client, url, who) is not None:
        pass
