"""Start-up looks at what the database may lose or change."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from broker.adapters.migrations import migrate
from broker.adapters.store.durability import examine, grant_to_application
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.tree import AuditTree
from broker.audit.record import EventType
from tests.conftest import PostgresCluster
from tests.store.journal_scene import add_person, event, intent, outcome
from tests.unit.audit.keys import TestSigner


async def test_sqlite_as_the_broker_opens_it_loses_nothing(sqlite_database: Database) -> None:
    found = await examine(sqlite_database)
    assert (found.refusals, found.warnings) == ((), ())


async def test_sqlite_below_full_is_refused(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.adapters.store.durability._SQLITE_FULL", 4)
    found = await examine(sqlite_database)
    assert "below FULL" in found.refusals[0]


async def test_postgresql_that_syncs_nothing_is_refused(postgresql_database: Database) -> None:
    found = await examine(postgresql_database)  # the tests' own, which is so on purpose
    assert any("fsync=off" in line for line in found.refusals)
    assert not any("synchronous_commit" in line for line in found.refusals)
    async with postgresql_database.begin() as conn:
        name = postgresql_database.url.database
        await conn.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await postgresql_database.engine.dispose()
    found = await examine(postgresql_database)
    assert any("synchronous_commit=off" in line for line in found.refusals)


async def test_aurora_has_no_disk_whose_settings_count(postgresql_database: Database) -> None:
    async with postgresql_database.begin() as conn:
        await conn.exec_driver_sql("SET LOCAL allow_system_table_mods = on")
        await conn.exec_driver_sql(
            "CREATE FUNCTION pg_catalog.aurora_version() RETURNS text"
            " LANGUAGE sql AS $$ SELECT '16.1.0' $$"
        )
    assert (await examine(postgresql_database)).refusals == ()
    async with postgresql_database.begin() as conn:
        name = postgresql_database.url.database
        await conn.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await postgresql_database.engine.dispose()
    (line,) = (await examine(postgresql_database)).refusals
    assert "synchronous_commit=off" in line


async def test_a_role_that_may_change_records_is_warned_of_and_a_granted_one_can_work(
    postgresql: PostgresCluster, postgresql_database: Database
) -> None:
    (warning,) = (await examine(postgresql_database)).warnings
    assert "audit_records" in warning
    assert "--app-role" in warning
    role = f"app_{make_url(postgresql_database.url).database}"
    postgresql.execute(f'CREATE ROLE "{role}" LOGIN')
    await add_person(postgresql_database)
    await grant_to_application(postgresql_database, role)
    limited = Database.open(postgresql_database.url.set(username=role))
    try:
        assert (await examine(limited)).warnings == ()
        # Where the schema is current, migrating needs no more than the server's rights.
        await migrate(limited.url)
        journal = GroupCommitJournal(limited, signer=TestSigner())
        await journal.start()
        one = intent()
        await journal.request(one)
        assert (await journal.conclude(outcome(one))).receipt is not None
        for _ in range(300):
            await journal.append(event(EventType.LOGIN_SUCCEEDED))
        await journal.aclose()
        assert (await AuditTree(limited).edge()).size == 302
        for statement in (
            "UPDATE audit_records SET type = 'x'",
            "DELETE FROM audit_records",
            "TRUNCATE audit_records",
            "DELETE FROM audit_nodes",
            "DELETE FROM audit_head",
            "ALTER TABLE audit_records DISABLE TRIGGER USER",
            "DROP TRIGGER audit_records_no_change ON audit_records",
        ):
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
                async with limited.begin() as conn:
                    await conn.exec_driver_sql(statement)
    finally:
        await limited.aclose()
        async with postgresql_database.begin() as conn:
            await conn.exec_driver_sql(f'DROP OWNED BY "{role}"')
        postgresql.execute(f'DROP ROLE "{role}"')
