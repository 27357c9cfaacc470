"""The journal when the database is slow, full of waiting callers, gone, or back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import insert, select, update

from broker.adapters.store import journal_postgresql
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords, append
from broker.adapters.store.schema import audit_head, principals
from broker.audit.record import Appended, EventType
from broker.errors import AuditUnavailable
from broker.issuance.journal import State
from tests.store.journal_scene import (
    NEVER,
    add_person,
    event,
    intent,
    log,
    outcome,
    stored,
    until,
)


@pytest.fixture
async def database(database: Database) -> Database:
    """The common fixture's, with a person in it."""
    await add_person(database)
    return database


@asynccontextmanager
async def running(database: Database, **settings: Any) -> AsyncIterator[GroupCommitJournal]:
    journal = GroupCommitJournal(database, **({"housekeeping_every": NEVER} | settings))
    await journal.start()
    try:
        yield journal
    finally:
        await journal.aclose()


@asynccontextmanager
async def head_held(url: str) -> AsyncIterator[None]:
    """Another process's transaction that holds the head."""
    other = Database.open(url)
    try:
        async with other.begin() as conn:
            await conn.execute(select(audit_head).with_for_update())
            yield
    finally:
        await other.aclose()


async def in_flight(journal: GroupCommitJournal) -> None:
    """Until the appender has taken all that waits into its transaction."""

    async def taken() -> bool:
        return not journal._waiting

    await until(taken)


async def test_more_than_can_wait_are_refused_at_once(
    database: Database, database_url: str
) -> None:
    async with running(database, capacity=4) as journal:
        async with head_held(database_url):
            first = asyncio.create_task(journal.append(event(EventType.LOGIN_SUCCEEDED)))
            await asyncio.sleep(0)
            await in_flight(journal)
            waiting = [
                asyncio.create_task(journal.append(event(EventType.LOGIN_SUCCEEDED)))
                for _ in range(4)
            ]
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(AuditUnavailable):
                    await journal.append(event(EventType.LOGIN_SUCCEEDED))
        answers = await asyncio.gather(first, *waiting)
    assert sorted(answer.seq for answer in answers) == [1, 2, 3, 4, 5]
    assert len(await log(database)) == 5


async def test_patience_ends_and_what_nobody_waits_for_is_not_begun(
    database: Database, database_url: str
) -> None:
    async with running(database) as journal:
        concluding = intent("iss-2")
        await journal.request(concluding)
        journal._patience = 0.05
        async with head_held(database_url):
            first = asyncio.create_task(journal.append(event(EventType.LOGIN_SUCCEEDED)))
            await asyncio.sleep(0)
            await in_flight(journal)
            answers = await asyncio.gather(
                first,
                journal.request(intent("iss-1")),
                journal.conclude(outcome(concluding)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [AuditUnavailable] * 3
        journal._patience = 20.0
        await journal.append(event(EventType.LOGIN_SUCCEEDED))
    # The event was in flight and may be there. The intent was not: STS is not called for it.
    # The outcome had its credentials already, so they are on record, as given to nobody.
    assert await stored(database, "iss-1") is None
    row = await stored(database, "iss-2")
    assert (row.state, row.access_key_id) == ("withheld", "ASIAEXAMPLE")
    withheld = [r for r in await log(database) if r["type"] == "issuance.withheld"]
    assert [r["detail"]["reason"] for r in withheld] == ["late"]


async def test_a_caller_cancelled_in_flight_harms_nobody(
    database: Database, database_url: str
) -> None:
    async with running(database) as journal:
        async with head_held(database_url):
            tasks = [
                asyncio.create_task(journal.append(event(EventType.LOGIN_SUCCEEDED)))
                for _ in range(10)
            ]
            await asyncio.sleep(0)
            await in_flight(journal)
            for task in tasks[::2]:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError, Appended] * 5
        assert (await journal.append(event(EventType.LOGIN_SUCCEEDED))).seq == 11
    assert len(await log(database)) == 11


async def test_closing_writes_what_waits_and_refuses_what_comes(database: Database) -> None:
    journal = GroupCommitJournal(database, housekeeping_every=NEVER)
    with pytest.raises(AuditUnavailable):
        await journal.append(event(EventType.LOGIN_SUCCEEDED))
    await journal.start()
    tasks = [
        asyncio.create_task(journal.append(event(EventType.LOGIN_SUCCEEDED))) for _ in range(50)
    ]
    await asyncio.sleep(0)
    await journal.aclose()
    assert sorted(answer.seq for answer in await asyncio.gather(*tasks)) == list(range(1, 51))
    for refused in (
        journal.append(event(EventType.LOGIN_SUCCEEDED)),
        journal.request(intent()),
        journal.deny(event(EventType.ISSUANCE_DENIED)),
    ):
        with pytest.raises(AuditUnavailable):
            await refused
    assert len(await log(database)) == 50


def move(path: Path, to: Path) -> None:
    path.rename(to)


@asynccontextmanager
async def gone(database: Database) -> AsyncIterator[None]:
    """The database out of reach: the file moved away, or the server letting nobody in."""
    if database.dialect == "sqlite":
        path = Path(database.url.database or "")
        sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
        away = path.with_suffix(".away")
        move(path, away)
        yield
        move(away, path)
        return
    name = database.url.database
    admin = await asyncpg.connect(
        database.url.set(drivername="postgresql", database="postgres").render_as_string(False)
    )
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    finally:
        await admin.close()


async def test_a_lost_database_refuses_all_and_heals_by_itself(database: Database) -> None:
    asked = intent("iss-1")
    async with running(database) as journal:
        if database.dialect == "postgresql":  # an open SQLite file is never out of reach
            await journal.request(asked)
        async with gone(database):
            answers = await asyncio.gather(
                *(journal.append(event(EventType.LOGIN_SUCCEEDED)) for _ in range(20)),
                journal.request(intent("iss-2")),
                journal.deny(event(EventType.ISSUANCE_DENIED)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [AuditUnavailable] * 22
            with pytest.raises(AuditUnavailable):
                await journal.conclude(outcome(asked))
            with pytest.raises(AuditUnavailable):
                await journal.reap(-1)
        await journal.deny(event(EventType.ISSUANCE_DENIED))
        if database.dialect == "sqlite":
            await journal.request(asked)
        assert (await journal.conclude(outcome(asked))).state is State.ISSUED
    types = sorted(r["type"] for r in await log(database))
    # The denial that could not be written did not use up its minute.
    assert types == ["issuance.denied", "issuance.issued", "issuance.requested"]


async def test_database_gone_at_the_end_does_not_hang_the_shutdown(
    postgresql_database: Database,
) -> None:
    async with running(postgresql_database) as journal:
        for _ in range(3):
            await journal.deny(event(EventType.ISSUANCE_DENIED))
        async with gone(postgresql_database), asyncio.timeout(10):
            await journal.aclose()


async def test_a_lost_answer_to_commit_is_no_success(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_person(postgresql_database)
    asked = intent("iss-1")
    commit = journal_postgresql.commit

    async def lost(driver: Any) -> None:
        await commit(driver)
        raise ConnectionResetError("the line broke")

    async with running(postgresql_database) as journal:
        await journal.request(asked)
        with monkeypatch.context() as patch:
            patch.setattr(journal_postgresql, "commit", lost)
            with pytest.raises(AuditUnavailable):
                await journal.conclude(outcome(asked))
        assert (await journal.conclude(outcome(asked))).reason == "late"
    types = [r["type"] for r in await log(postgresql_database)]
    assert types == ["issuance.requested", "issuance.issued", "issuance.withheld"]


async def test_mutators_and_the_journal_never_wait_for_each_other_in_a_circle(
    database: Database,
) -> None:
    async def suspend(n: int) -> None:
        async with database.begin() as conn:
            await conn.execute(update(principals).values(suspended_reason=str(n)))
            await append(conn, [event(EventType.SESSION_REVOKED, n=n)])

    async def issue() -> State:
        asked = intent()
        await journal.request(asked)
        return (await journal.conclude(outcome(asked))).state

    async with running(database) as journal:
        answers = await asyncio.gather(*(issue() for _ in range(60)), *map(suspend, range(30)))
    assert answers[:60] == [State.ISSUED] * 60
    assert len(await log(database)) == 150


async def test_the_chain_is_not_begun_anew_where_the_head_is_gone(database: Database) -> None:
    async with running(database) as journal:
        await journal.append(event(EventType.LOGIN_SUCCEEDED))
        async with database.begin() as conn:
            head = (await conn.execute(select(audit_head))).one()
            await conn.execute(audit_head.delete())
        with pytest.raises(AuditUnavailable):
            await journal.append(event(EventType.LOGIN_SUCCEEDED))
        async with database.begin() as conn:
            await conn.execute(insert(audit_head).values(**head._mapping))
        assert (await journal.append(event(EventType.LOGIN_SUCCEEDED))).seq == 2
    assert (await AuditRecords(database).head()).seq == 2
