"""SIGTERM to a real server: what is in flight ends well, nothing new begins, the log is whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from bench.stage import people
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from tests.e2e.processes import Process, free_port, until
from tests.sts.misbehaving import Misbehaving

SECONDS = 60.0
DENIED = 4


def refused(port: int) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Running:
    """One server on SQLite, with somebody entitled and somebody who is not."""

    def __init__(self, folder: Path, port: int, entitled: str, outsider: str) -> None:
        self.folder = folder
        self.port = port
        self.entitled = entitled
        self.outsider = outsider
        self.environment = {
            "PATH": os.environ["PATH"],
            "BROKER_CONFIG": str(folder / "broker.toml"),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        command = [sys.executable, "-m", "broker.entry", "server"]
        self.process = Process(command, folder / "server.log", self.environment, folder)
        self.process.wait_for(f"{self.url}/readyz")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def records(self) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.folder / "broker.db")) as database:
            rows = database.execute("SELECT record FROM audit_records ORDER BY seq").fetchall()
        return [json.loads(record) for (record,) in rows]


@pytest.fixture
async def sts() -> AsyncIterator[Misbehaving]:
    server = Misbehaving()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def running(tmp_path: Path, sqlite_url: str, sts: Misbehaving) -> AsyncIterator[Running]:
    port = free_port()
    sts_port = int(sts.url.rpartition(":")[2])
    config = people.settings(sqlite_url, port, sts_port, tmp_path / "keys")
    (tmp_path / "broker.toml").write_text(config)
    FileKeyRing.create(tmp_path / "keys/sealing")
    SigningKeys.create(tmp_path / "keys/signing", f"127.0.0.1:{port}")
    # In threads, so that the stand-in goes on answering.
    (entitled,) = await asyncio.to_thread(people.admit, sqlite_url, 1)
    database = Database.open(sqlite_url)
    try:
        outsider = await people.log_in(database, "outsider", frozenset())
    finally:
        await database.aclose()
    made = await asyncio.to_thread(Running, tmp_path, port, entitled, outsider)
    yield made
    if made.process.child.poll() is None:
        made.process.child.kill()
        made.process.child.wait()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


async def test_sigterm_lets_an_issuance_end_takes_nothing_new_and_writes_the_log(
    running: Running, sts: Misbehaving
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def held_back() -> AsyncIterator[bytes]:
        yield people.REQUEST[:-1]
        begun.set()
        await go_on.wait()
        yield people.REQUEST[-1:]

    async with httpx.AsyncClient(base_url=running.url, timeout=SECONDS, trust_env=False) as client:
        for _ in range(DENIED):
            answer = await client.post(
                "/v1/credentials", content=people.REQUEST, headers=bearer(running.outsider)
            )
            assert answer.status_code == 404, answer.text
        issuance = asyncio.create_task(
            client.post("/v1/credentials", content=held_back(), headers=bearer(running.entitled))
        )
        await begun.wait()
        # An answer that was asked for later: the server has read the beginning by now.
        assert (await client.get("/healthz")).status_code == 200

        running.process.child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: refused(running.port), "a closed port", SECONDS)
        assert running.process.child.poll() is None
        assert sts.assumed == []

        go_on.set()
        answer = await issuance
    assert answer.status_code == 200, answer.text
    issued = answer.json()
    assert issued["credentials"]["secret_access_key"]
    assert await asyncio.to_thread(running.process.child.wait, SECONDS) == 0
    assert "Traceback" not in running.process.output()

    records = running.records()
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    of_it = [
        record["type"]
        for record in records
        if issued["issuance_id"] in json.dumps(record["subject"])
    ]
    assert of_it == ["issuance.requested", "issuance.issued"]
    # The first refusal of a minute is a record, the others are a count, which waited in memory.
    assert sum(_refusals(records)) == DENIED


def _refusals(records: list[dict[str, object]]) -> Iterator[int]:
    for record in records:
        detail = record["detail"]
        assert isinstance(detail, dict)
        if record["type"] == "issuance.denied":
            yield 1
        elif record["type"] == "audit.suppressed":
            yield int(detail["count"])
