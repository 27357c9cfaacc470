"""How the log stands, as the metrics tell it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.standing import log_standing
from broker.errors import AuditUnavailable
from tests.store.journal_scene import NEVER, add_person, intent, outcome


class Told:
    """A JournalObserver that keeps what it is told."""

    def __init__(self) -> None:
        self.flushes: list[tuple[int, bool]] = []
        self.orphans = 0

    def flushed(self, records: int, seconds: float, *, failed: bool) -> None:
        assert seconds > 0
        self.flushes.append((records, failed))

    def orphaned(self, issuances: int) -> None:
        self.orphans += issuances


async def test_the_standing_follows_the_log(database: Database) -> None:
    await add_person(database)
    told = Told()
    journal = GroupCommitJournal(database, housekeeping_every=NEVER, observer=told)
    await journal.start()
    try:
        before = await log_standing(database)
        assert (before.records, before.signed, before.signed_at) == (0, 0, None)
        asked = intent()
        await journal.request(asked)
        assert (await log_standing(database)).open_intents == 1
        await journal.conclude(outcome(asked))
        await journal.request(intent())
        assert await journal.reap(-60) == 1
        now = await log_standing(database)
        assert (now.records, now.open_intents) == (4, 0)
        await SqlCheckpoints(database).add(3, "a note")
        signed = await log_standing(database)
        assert signed.signed == 3
        assert signed.signed_at is not None
        assert abs(signed.signed_at - datetime.now(UTC)) < timedelta(minutes=5)
    finally:
        await journal.aclose()
    assert told.flushes == [(1, False)] * 3
    assert told.orphans == 1


async def test_a_flush_that_fails_is_told_as_one(database: Database) -> None:
    told = Told()
    journal = GroupCommitJournal(database, housekeeping_every=NEVER, observer=told)
    await journal.start()
    try:
        async with database.begin() as conn:
            await conn.exec_driver_sql("ALTER TABLE audit_head RENAME TO audit_head_gone")
        with pytest.raises(AuditUnavailable):
            await journal.request(intent())
    finally:
        async with database.begin() as conn:
            await conn.exec_driver_sql("ALTER TABLE audit_head_gone RENAME TO audit_head")
        await journal.aclose()
    assert told.flushes == [(1, True)]
