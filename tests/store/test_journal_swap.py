"""The group commit in one statement: when it is taken, and that nothing is hidden by it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Update, select, update

from broker.adapters.store import journal_postgresql, journal_swap
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords, append
from broker.adapters.store.schema import (
    audit_records,
    grants,
    issuances,
    login_sessions,
    principals,
)
from broker.adapters.store.tree import AuditTree
from broker.audit.merkle import NO_LEAVES
from broker.audit.record import EventType
from broker.errors import AuditUnavailable
from broker.issuance.journal import Concluded, Intent, State
from tests.store.journal_scene import NEVER, add_person, event, intent, log, outcome, until


class Journal(GroupCommitJournal):
    """With a note of every attempt to swap: whether it was taken."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(database, housekeeping_every=NEVER)
        self.swaps: list[bool] = []

        async def noted(*args: Any) -> Any:
            swapped = await journal_swap.swap(*args)
            self.swaps.append(swapped is not None)
            return swapped

        monkeypatch.setattr(journal_postgresql, "swap", noted)
        # A busy machine is no clock that was set.
        monkeypatch.setattr(journal_swap, "_TOLERANCE", timedelta(minutes=10))

    async def settle(self) -> None:
        """Two flushes that nobody else came between: from here on the head is known."""
        for _ in range(2):
            await self.append(event(EventType.LOGIN_SUCCEEDED))
        self.swaps.clear()

    async def requested(self) -> Intent:
        """An intent on record, and the head known."""
        asked = intent()
        await self.request(asked)
        await self.settle()
        return asked


@pytest.fixture
async def journal(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Journal]:
    await add_person(postgresql_database)
    opened = Journal(postgresql_database, monkeypatch)
    await opened.start()
    yield opened
    await opened.aclose()


async def issuance(database: Database, name: str) -> dict[str, Any]:
    async with database.read() as conn:
        row = (await conn.execute(select(issuances).where(issuances.c.id == name))).one()
    return dict(row._mapping)


async def test_both_ways_leave_the_same_rows_and_records(
    postgresql_database: Database, journal: Journal
) -> None:
    seen = {}
    for way in ("long", "short"):
        if way == "short":
            await journal.settle()
        asked = intent(f"iss-{way}", event=event(EventType.ISSUANCE_REQUESTED, "iss"))
        requested = await journal.request(asked)
        issued = outcome(asked, event=event(EventType.ISSUANCE_ISSUED, "iss", access_key_id="A"))
        concluded = await journal.conclude(issued)
        assert concluded.state is State.ISSUED
        records = {r["seq"]: r for r in await log(postgresql_database)}
        pair = [records[requested.seq], records[concluded.appended.seq]]
        assert all(record.pop("time") and record.pop("seq") for record in pair)
        row = await issuance(postgresql_database, asked.id)
        assert row.pop("requested_at") <= row.pop("concluded_at")
        # These are named after the issuance.
        assert row.pop("id") in row.pop("session_name")
        seen[way] = pair, row
    assert seen["long"] == seen["short"]
    assert journal.swaps == [True, True]


async def test_records_beside_each_other_have_the_same_columns(
    postgresql_database: Database, journal: Journal
) -> None:
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    await journal.settle()
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    assert journal.swaps == [True]
    async with postgresql_database.read() as conn:
        rows = (await conn.execute(select(audit_records).order_by(audit_records.c.seq))).all()
    whose = {(row.type, row.actor_id, row.principal_id) for row in rows}
    assert whose == {("login.succeeded", "p-1", "p-1")}
    assert [row.time for row in rows] == sorted(row.time for row in rows)


Change = Callable[[str], Update]
ENDED: dict[str, Change] = {
    "session_ended": lambda _: update(login_sessions).values(revoked_at=datetime.now(UTC)),
    "suspended": lambda _: update(principals).values(suspended_at=datetime.now(UTC)),
    "grant_revoked": lambda _: update(grants).values(revoked_at=datetime.now(UTC)),
    "grant_expired": lambda _: update(grants).values(expires_at=datetime.now(UTC)),
    "late": lambda name: update(issuances).where(issuances.c.id == name).values(state="failed"),
}


@pytest.mark.parametrize("reason", [*ENDED, "session_expired"])
async def test_what_is_no_longer_in_order_is_found_though_the_head_stands(
    postgresql_database: Database, journal: Journal, reason: str
) -> None:
    asked = await journal.requested()
    expired = update(login_sessions).values(expires_at=datetime.now(UTC))
    change = expired if reason == "session_expired" else ENDED[reason](asked.id)
    async with postgresql_database.begin() as conn:
        await conn.execute(change)
    concluded = await journal.conclude(outcome(asked))
    assert journal.swaps == [False]
    assert concluded.state is State.WITHHELD
    assert concluded.reason == ("session_ended" if reason == "session_expired" else reason)
    assert (await log(postgresql_database))[-1]["detail"]["reason"] == concluded.reason


async def waits_for_a_lock(admin: asyncpg.Connection) -> bool:
    return bool(
        await admin.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND query LIKE '%clear AS MATERIALIZED%')"
        )
    )


@pytest.mark.parametrize("reason", ["session_ended", "suspended", "grant_revoked"])
async def test_a_revocation_that_the_swap_waited_for_is_seen(
    postgresql_database: Database, postgresql_url: str, journal: Journal, reason: str
) -> None:
    """The statement began before the revocation was committed: its snapshot does not show it."""
    asked = await journal.requested()
    admin = await asyncpg.connect(postgresql_url.replace("+asyncpg", ""))
    try:
        async with postgresql_database.begin() as conn:
            await conn.execute(ENDED[reason](asked.id))
            await append(conn, [event(EventType.SESSION_REVOKED)])
            concluding = asyncio.create_task(journal.conclude(outcome(asked)))
            await until(lambda: waits_for_a_lock(admin))
        concluded = await concluding
    finally:
        await admin.close()
    assert journal.swaps == [False]
    assert (concluded.state, concluded.reason) == (State.WITHHELD, reason)
    types = [r["type"] for r in await log(postgresql_database)]
    assert types[-2:] == ["session.revoked", "issuance.withheld"]


async def test_a_transaction_that_is_rolled_back_is_not_in_the_way(
    postgresql_database: Database, postgresql_url: str, journal: Journal
) -> None:
    asked = await journal.requested()
    admin = await asyncpg.connect(postgresql_url.replace("+asyncpg", ""))
    try:
        async with postgresql_database.begin() as conn:
            await conn.execute(ENDED["session_ended"](asked.id))
            await append(conn, [event(EventType.SESSION_REVOKED)])
            concluding = asyncio.create_task(journal.conclude(outcome(asked)))
            await until(lambda: waits_for_a_lock(admin))
            await conn.rollback()
        assert (await concluding).state is State.ISSUED
    finally:
        await admin.close()
    assert journal.swaps == [True]


async def test_a_head_that_somebody_else_moved_is_built_on_the_long_way(
    postgresql_database: Database, journal: Journal
) -> None:
    asked = await journal.requested()
    async with postgresql_database.begin() as conn:
        await append(conn, [event(EventType.LOGIN_SUCCEEDED)])
    assert (await journal.conclude(outcome(asked))).state is State.ISSUED
    # Somebody else is at work: not tried again before two flushes found the head in place.
    for _ in range(3):
        await journal.append(event(EventType.LOGIN_SUCCEEDED))
    assert journal.swaps == [False, True, True]
    assert len(await log(postgresql_database)) == 3 + 1 + 1 + 3


async def test_an_id_that_is_taken_is_refused_and_harms_nobody_beside_it(
    postgresql_database: Database, journal: Journal
) -> None:
    asked = await journal.requested()
    answers = await asyncio.gather(
        journal.request(asked), journal.request(intent("iss-new")), return_exceptions=True
    )
    assert isinstance(answers[0], AuditUnavailable)
    assert not isinstance(answers[1], BaseException)
    assert journal.swaps == [False]
    assert len(await log(postgresql_database)) == 4


async def test_of_two_outcomes_in_one_batch_one_is_issued(
    postgresql_database: Database, journal: Journal
) -> None:
    asked = await journal.requested()
    answers: tuple[Concluded, ...] = await asyncio.gather(
        journal.conclude(outcome(asked)), journal.conclude(outcome(asked, "ASIAOTHER"))
    )
    assert sorted((a.state.value, a.reason) for a in answers) == [
        ("issued", None),
        ("withheld", "late"),
    ]
    assert len(await log(postgresql_database)) == 5


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_was_set_is_read_anew(
    postgresql_database: Database, journal: Journal, hours: int
) -> None:
    await journal.settle()
    ledger: Any = journal._ledger
    head = ledger._known.head
    # As if the database's clock had been this far off until now.
    off = timedelta(hours=hours)
    ledger._known = replace(
        ledger._known, head=replace(head, now=head.now + off, time=head.time + off)
    )
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    assert journal.swaps == [False]
    written = datetime.fromisoformat((await log(postgresql_database))[-1]["time"])
    assert abs(written - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("committed", [False, True])
async def test_a_lost_answer_is_no_success(
    postgresql_database: Database,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    asked = await journal.requested()

    async def lost(*args: Any) -> None:
        if committed:
            await journal_swap.swap(*args)
        raise ConnectionResetError("the line broke")

    with monkeypatch.context() as patch:
        patch.setattr(journal_postgresql, "swap", lost)
        with pytest.raises(AuditUnavailable):
            await journal.conclude(outcome(asked))
    again = await journal.conclude(outcome(asked))
    assert again.reason == ("late" if committed else None)
    types = [r["type"] for r in await log(postgresql_database)]
    assert types.count("issuance.issued") == 1


async def test_tiles_and_large_details_are_stored_beside_the_records(
    postgresql_database: Database, journal: Journal
) -> None:
    await journal.settle()
    large = [event(EventType.ISSUANCE_DENIED, text="x" * 70_000) for _ in range(2)]
    await asyncio.gather(*(journal.append(one) for one in large))
    for _ in range(3):
        await asyncio.gather(
            *(journal.append(event(EventType.LOGIN_SUCCEEDED)) for _ in range(200))
        )
    assert journal.swaps
    assert all(journal.swaps)
    record = (await log(postgresql_database))[2]
    body = await AuditRecords(postgresql_database).attachment(
        record["detail"]["attachment"]["sha256"]
    )
    assert body is not None
    leaves = [row.leaf async for row in AuditRecords(postgresql_database).export()]
    tree = AuditTree(postgresql_database)
    for size in (256, 512, len(leaves)):
        assert await tree.root(size) == NO_LEAVES.extend(leaves[:size]).after.root
