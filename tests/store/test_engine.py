"""Opening the database, and what happens when it is out."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import exc, select, text, update

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import audit_head, audit_records, metadata
from broker.errors import AuditUnavailable, StartupError
from tests.conftest import PostgresCluster


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


class TestOpening:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("hunter2 is no url", "is not a URL"),
            ("mysql://u:hunter2@h/d", "sqlite.aiosqlite:/// or postgresql.asyncpg://"),
            ("postgresql://u:hunter2@h/d", "postgresql.asyncpg://"),
            ("sqlite+aiosqlite://", "can't live in memory"),
            ("sqlite+aiosqlite:///:memory:", "can't live in memory"),
            ("sqlite+aiosqlite:////nowhere/at/all/broker.db", "can't create"),
            ("postgresql+asyncpg://u:hunter2@h/d?pgbouncer=maybe", "true or false"),
        ],
    )
    def test_a_url_that_can_not_be_used_is_refused_in_plain_words(
        self, url: str, says: str
    ) -> None:
        with pytest.raises(StartupError, match=says) as refused:
            Database.open(url)
        assert "hunter2" not in str(refused.value)
        assert "\n" not in str(refused.value)

    async def test_the_password_shows_nowhere(self) -> None:
        database = Database.open("postgresql+asyncpg://u:hunter2@127.0.0.1:1/d")
        assert "hunter2" not in f"{database.url} {database.engine!r} {database.url!r}"
        with pytest.raises(AuditUnavailable) as out:
            async with database.read():
                pass
        assert "hunter2" not in f"{out.value} {out.value.log_detail}"
        await database.aclose()

    async def test_a_sqlite_file_is_its_owners_alone_with_all_that_belongs_to_it(
        self, tmp_path: Path
    ) -> None:
        mask = os.umask(0)
        try:
            database = Database.open(f"sqlite+aiosqlite:///{tmp_path}/new.db")
            async with database.begin() as conn:
                await conn.execute(text("CREATE TABLE t (x)"))
                modes = _modes(tmp_path)
            await database.aclose()
        finally:
            os.umask(mask)
        assert modes == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}

    async def test_sqlite_is_durable_and_checks_references(self, sqlite_database: Database) -> None:
        async with sqlite_database.read() as conn:
            pragmas = {
                name: (await conn.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }


class TestTransactions:
    async def test_an_exception_leaves_nothing(self, database: Database) -> None:
        async def fail() -> None:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(seq=7))
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        async with database.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 0

    async def test_a_cancelled_task_leaves_nothing_and_blocks_nobody(
        self, database: Database
    ) -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(seq=7))
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with database.begin() as conn:
            await conn.execute(update(audit_head).values(seq=audit_head.c.seq + 1))
        async with database.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 1

    async def test_readers_do_not_wait_for_a_writer(self, database: Database) -> None:
        async with database.begin() as writer:
            await writer.execute(update(audit_head).values(seq=7))
            async with asyncio.timeout(2), database.read() as reader:
                assert (await reader.execute(select(audit_head.c.seq))).scalar_one() == 0

    async def test_more_tasks_than_connections_all_get_their_turn(self, database: Database) -> None:
        async def add() -> None:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(seq=audit_head.c.seq + 1))

        await asyncio.gather(*(add() for _ in range(60)))
        async with database.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 60

    async def test_the_clock_is_utc_and_goes_on_within_a_transaction(
        self, database: Database
    ) -> None:
        async with database.begin() as conn:
            first = await database.now(conn)
            second = await database.now(conn)
        assert first.utcoffset() == timedelta(0)
        assert first < second


class TestOut:
    """Every way in which a database can be out is the same refusal."""

    async def test_a_lock_that_does_not_come_free(self, database_url: str) -> None:
        first = Database.open(database_url)
        second = Database.open(database_url, patience=0.3)
        async with first.begin() as conn:
            await conn.execute(update(audit_head).values(seq=7))
            with pytest.raises(AuditUnavailable) as out:
                async with second.begin() as other:
                    await other.execute(update(audit_head).values(seq=8))
            assert out.value.log_detail
        async with second.begin() as conn:
            await conn.execute(update(audit_head).values(seq=audit_head.c.seq + 1))
        async with second.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 8
        await first.aclose()
        await second.aclose()

    async def test_sqlite_tasks_that_wait_too_long_for_the_writer(self, sqlite_url: str) -> None:
        database = Database.open(sqlite_url, patience=0.2)
        async with database.begin():
            with pytest.raises(AuditUnavailable):
                async with database.begin():
                    pass
        await database.aclose()

    async def test_a_pool_that_is_used_up(self, database_url: str) -> None:
        database = Database.open(database_url, pool_size=1, patience=0.2)

        async def hold_many() -> None:
            async with AsyncExitStack() as held:
                for _ in range(12):
                    await held.enter_async_context(database.read())

        with pytest.raises(AuditUnavailable):
            await hold_many()
        async with database.read() as conn:
            assert (await conn.execute(text("SELECT 1"))).scalar_one() == 1
        await database.aclose()

    async def test_a_statement_that_takes_too_long(self, postgresql_url: str) -> None:
        database = Database.open(postgresql_url, patience=0.3)
        with pytest.raises(AuditUnavailable):
            async with database.begin() as conn:
                await conn.execute(text("SELECT pg_sleep(30)"))
        async with database.read() as conn:
            assert (await conn.execute(text("SELECT 1"))).scalar_one() == 1
        await database.aclose()

    async def test_the_driver_itself_that_takes_too_long_or_is_given_up(
        self, postgresql_url: str
    ) -> None:
        database = Database.open(postgresql_url, pool_size=1, patience=0.5)

        async def sleep() -> None:
            async with database.driver() as driver:
                await driver.fetchrow("SELECT pg_sleep(30)")

        with pytest.raises(AuditUnavailable):
            await sleep()
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(15):  # more than the pool holds: nothing was lost from it
            async with database.driver() as driver:
                assert await driver.fetchval("SELECT 1") == 1
        with pytest.raises(asyncpg.UndefinedTableError):
            async with database.driver() as driver:
                await driver.fetchrow("SELECT 1 FROM nowhere")
        await database.aclose()

    async def test_a_server_that_went_away_and_came_back(
        self, postgresql_database: Database, postgresql: PostgresCluster
    ) -> None:
        database = postgresql_database
        name = database.url.database

        async def work() -> None:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(seq=audit_head.c.seq + 1))

        await asyncio.gather(work(), work(), work())
        kick = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        stop = (f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false", kick)

        async def work_while_it_stops() -> None:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(seq=0))
                await asyncio.to_thread(postgresql.execute, *stop)

        # The COMMIT fails: nothing may be given out on the strength of it.
        with pytest.raises(AuditUnavailable):
            await work_while_it_stops()
        for _ in range(3):
            with pytest.raises(AuditUnavailable) as out:
                await work()
            assert out.value.code == "audit_unavailable"
        await asyncio.to_thread(
            postgresql.execute, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"
        )
        await work()
        # Connections that were idle while the server restarted are replaced unnoticed.
        await asyncio.to_thread(postgresql.execute, kick)
        await work()
        async with database.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 5

    async def test_a_sqlite_file_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "broker.db"
        path.write_bytes(b"this is no database, whatever its name says" * 100)
        database = Database.open(f"sqlite+aiosqlite:///{path}")
        with pytest.raises(AuditUnavailable):
            async with database.read() as conn:
                await conn.execute(text("SELECT 1 FROM sqlite_master"))
        await database.aclose()

    async def test_a_wrong_statement_is_a_fault_and_no_outage(self, database: Database) -> None:
        with pytest.raises(exc.DBAPIError):
            async with database.begin() as conn:
                await conn.execute(
                    text("INSERT INTO audit_head (id, seq, chain) VALUES (2, 0, '')")
                )

    async def test_no_error_tells_parameters(self, database: Database) -> None:
        with pytest.raises(exc.DBAPIError) as wrong:
            async with database.begin() as conn:
                await conn.execute(
                    text("INSERT INTO grants (id, reason) VALUES (:secret, :secret)"),
                    {"secret": "hunter2"},
                )
        assert "hunter2" not in str(wrong.value.__context__ or "")
        assert "[SQL parameters hidden" in str(wrong.value)


class TestBehindPgbouncer:
    async def test_no_prepared_statement_outlives_its_transaction(
        self, postgresql_url: str
    ) -> None:
        database = Database.open(f"{postgresql_url}&pgbouncer=true", pool_size=1)
        async with database.begin() as conn:
            await conn.execute(update(audit_head).values(seq=1))
        async with database.read() as conn:
            assert (await conn.execute(select(audit_head.c.seq))).scalar_one() == 1
            in_transaction = (
                "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                " AND xact_start < statement_timestamp()"
            )
            assert (await conn.execute(text(in_transaction))).scalar_one() == 1
        await database.aclose()


class TestTheLog:
    async def test_records_can_not_be_changed_or_taken_out(self, database: Database) -> None:
        row = {
            "seq": 1,
            "time": "now",
            "type": "t",
            "actor_id": "a",
            "record": b"r",
            "leaf": b"l",
            "chain": b"c",
        }
        async with database.begin() as conn:
            row["time"] = await database.now(conn)
            await conn.execute(audit_records.insert().values(**row))
        statements = [
            "UPDATE audit_records SET type = 'x'",
            "DELETE FROM audit_records",
        ]
        if database.dialect == "postgresql":
            statements.append("TRUNCATE audit_records")
        for statement in statements:
            with pytest.raises(exc.DBAPIError, match="append-only"):
                async with database.begin() as conn:
                    await conn.execute(text(statement))

    async def test_nothing_the_journal_writes_references_another_table(self) -> None:
        """A foreign key would make it wait for row locks while it holds the audit head."""
        for name in ("issuances", "audit_records", "audit_head", "audit_attachments"):
            assert not metadata.tables[name].foreign_keys


class TestTime:
    async def test_microseconds_and_zones_survive(self, database: Database) -> None:
        moments = [
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        ]
        for moment in moments:
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(time=moment))
                stored = (await conn.execute(select(audit_head.c.time))).scalar_one()
            assert stored == moment
            assert stored.utcoffset() == timedelta(0)

    async def test_a_time_without_a_zone_is_refused(self, database: Database) -> None:
        naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the fault itself
        with pytest.raises(exc.StatementError, match="without a time zone"):
            async with database.begin() as conn:
                await conn.execute(update(audit_head).values(time=naive))

    async def test_sqlite_keeps_numbers_that_compare(self, sqlite_database: Database) -> None:
        async with sqlite_database.begin() as conn:
            await conn.execute(
                update(audit_head).values(time=datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
            )
        with sqlite3.connect(str(sqlite_database.url.database)) as plain:
            assert plain.execute("SELECT time FROM audit_head").fetchone() == (1_000_005,)
        plain.close()
