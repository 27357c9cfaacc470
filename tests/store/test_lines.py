"""Connections that are kept past the pool: what becomes of them when something goes wrong."""

import asyncio
import os
import signal
import sqlite3
import threading
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select

from broker.adapters.store.engine import Database
from broker.errors import AuditUnavailable


def move(path: Path, to: Path) -> None:
    assert not to.exists()
    path.rename(to)


class TestPostgresql:
    async def test_one_connection_serves_one_after_another(
        self, postgresql_database: Database
    ) -> None:
        line = postgresql_database.line()

        async def pid() -> int:
            async with line.driver() as driver:
                return int(await driver.fetchval("SELECT pg_backend_pid()"))

        assert len(set(await asyncio.gather(*(pid() for _ in range(10))))) == 1
        await line.aclose()
        assert await pid()
        await line.aclose()

    async def test_settings_are_set_on_it_and_on_no_other(
        self, postgresql_database: Database
    ) -> None:
        for line, timeout in (
            (postgresql_database.line("idle_in_transaction_session_timeout = '7s'"), "7s"),
            (postgresql_database.line(), "0"),
        ):
            async with line.driver() as driver:
                assert await driver.fetchval("SHOW idle_in_transaction_session_timeout") == timeout
                assert await driver.fetchval("SHOW plan_cache_mode") == "force_generic_plan"

    async def test_what_was_begun_ends_with_the_connection(
        self, postgresql_database: Database
    ) -> None:
        line = postgresql_database.line()
        async with line.driver() as driver:
            before = await driver.fetchval("SELECT pg_backend_pid()")

        async def fail() -> None:
            async with line.driver() as driver:
                await driver.execute("BEGIN; UPDATE audit_head SET seq = 77")
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        async with line.driver() as driver:
            assert await driver.fetchval("SELECT pg_backend_pid()") != before
            assert await driver.fetchval("SELECT seq FROM audit_head") == 0

    async def test_one_that_went_dead_while_nothing_was_asked_harms_nobody(
        self, postgresql_database: Database
    ) -> None:
        """As where a firewall forgets idle connections: nothing comes back, not even an end."""
        line = postgresql_database.line()
        async with line.driver() as driver:
            silent = await driver.fetchval("SELECT pg_backend_pid()")
        os.kill(silent, signal.SIGSTOP)
        try:
            line._used_at -= 60
            async with line.driver() as driver:
                assert await driver.fetchval("SELECT pg_backend_pid()") != silent
        finally:
            os.kill(silent, signal.SIGCONT)

    async def test_the_smallest_pool_keeps_connections_beside_the_lines(
        self, postgresql_url: str
    ) -> None:
        """Else each transaction of such a broker would open one and close it again."""
        database = Database.open(postgresql_url, pool_size=2)
        pids = []
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(database.line().driver())
            for _ in range(4):
                async with database.begin() as conn:
                    pids.append((await conn.execute(select(func.pg_backend_pid()))).scalar_one())
            assert database.in_use == 3
        assert len(set(pids)) == 1
        assert database.capacity == 12
        await database.aclose()

    async def test_closing_the_database_closes_it(self, postgresql_url: str) -> None:
        database, other = Database.open(postgresql_url), Database.open(postgresql_url)
        async with database.line().driver() as driver:
            pid = await driver.fetchval("SELECT pg_backend_pid()")
        await database.aclose()
        async with other.line().driver() as driver:
            query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
            async with asyncio.timeout(60):
                while await driver.fetchval(query, pid):  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)
        await other.aclose()


class TestSqlite:
    async def test_work_is_done_in_order_in_a_thread_of_its_own(
        self, sqlite_database: Database
    ) -> None:
        line = sqlite_database.sqlite_line()
        done: list[int] = []

        def work(number: int, _: sqlite3.Connection) -> int:
            done.append(number)
            return threading.get_ident()

        threads = await asyncio.gather(*(line.run(partial(work, number)) for number in range(20)))
        assert done == list(range(20))
        assert set(threads).isdisjoint({threading.get_ident()})
        assert len(set(threads)) == 1

    async def test_what_was_begun_is_rolled_back_where_it_fails(
        self, sqlite_database: Database
    ) -> None:
        line = sqlite_database.sqlite_line()

        def fail(conn: sqlite3.Connection) -> None:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("UPDATE audit_head SET seq = 77")
            raise LookupError

        with pytest.raises(LookupError):
            await line.run(fail)
        [seq] = await line.run(
            lambda conn: tuple(conn.execute("SELECT seq FROM audit_head").fetchone())
        )
        assert seq == 0

    async def test_pragmas_are_set_on_it(self, sqlite_database: Database) -> None:
        reading = sqlite_database.sqlite_line("query_only=ON")
        with pytest.raises(AuditUnavailable):
            await reading.run(lambda conn: conn.execute("UPDATE audit_head SET seq = 77"))
        assert await reading.run(lambda conn: conn.execute("SELECT 7").fetchone()[0]) == 7

    async def test_a_file_that_is_gone_is_not_made_anew(self, sqlite_database: Database) -> None:
        path = Path(sqlite_database.url.database or "")
        move(path, path.with_suffix(".away"))
        line = sqlite_database.sqlite_line()
        with pytest.raises(AuditUnavailable):
            await line.run(lambda conn: conn.execute("SELECT 1"))
        # Raises where something stands there.
        move(path.with_suffix(".away"), path)
        assert await line.run(lambda conn: conn.execute("SELECT 1").fetchone()[0]) == 1

    async def test_closing_the_database_closes_it_and_later_work_begins_anew(
        self, sqlite_database: Database
    ) -> None:
        line = sqlite_database.sqlite_line()
        conn = await line.run(lambda conn: conn)
        await sqlite_database.aclose()
        with pytest.raises(sqlite3.ProgrammingError):
            conn.execute("SELECT 1")
        assert await line.run(lambda conn: conn.execute("SELECT 1").fetchone()[0]) == 1
