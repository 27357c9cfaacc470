"""The stored log, as mutators append to it and auditors read it."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.records import AuditRecords, append
from broker.adapters.store.schema import audit_head, audit_records, throttle_counters
from broker.audit.chain import EMPTY, Head
from broker.audit.record import Actor, Event, EventType, NotStorable, Outcome
from broker.audit.verify import Verification, Verifier, export_line
from broker.errors import AuditUnavailable


def event(kind: EventType = EventType.LOGIN_SUCCEEDED, **detail: Any) -> Event:
    return Event(kind, Actor("p-1", "person", "ada"), Outcome.SUCCESS, {"principal": "p-2"}, detail)


async def append_one(database: Database, one: Event) -> int:
    async with database.begin() as conn:
        (appended,) = await append(conn, [one])
    return appended.seq


async def verify_log(database: Database) -> Verification:
    verifier = Verifier()
    async for row in AuditRecords(database).export():
        verifier.feed(export_line(row.record, row.leaf, row.chain))
    return verifier.close()


async def drop_guards(conn: AsyncConnection) -> None:
    """What whoever owns the database can do to its triggers."""
    if conn.dialect.name == "postgresql":
        await conn.exec_driver_sql("ALTER TABLE audit_records DISABLE TRIGGER USER")
        return
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_records'"
    for name in (await conn.exec_driver_sql(query)).scalars().all():
        await conn.exec_driver_sql(f"DROP TRIGGER {name}")


async def test_an_empty_log(database: Database) -> None:
    log = AuditRecords(database)
    assert await log.head() == EMPTY
    assert await log.records() == ()
    assert (await verify_log(database)).count == 0


async def test_what_commits_is_in_the_log_and_what_rolls_back_is_not(database: Database) -> None:
    async with database.begin() as conn:
        first, second = await append(conn, [event(n=1), event(n=2)])
        (third,) = await append(conn, [event(n=3)])
        assert await append(conn, []) == ()
    assert (first.seq, second.seq, third.seq) == (1, 2, 3)

    class Undone(Exception):
        pass

    async def append_and_fail() -> None:
        async with database.begin() as conn:
            await append(conn, [event(n="undone")])
            raise Undone

    with pytest.raises(Undone):
        await append_and_fail()
    assert await append_one(database, event(n=4)) == 4

    log = AuditRecords(database)
    stored = await log.records()
    assert [json.loads(row.record)["detail"]["n"] for row in stored] == [1, 2, 3, 4]
    assert [row.leaf for row in stored[:3]] == [first.leaf, second.leaf, third.leaf]
    found = await verify_log(database)
    assert found.consistent
    assert found.head == await log.head() == Head(4, stored[3].chain)


async def test_a_fault_in_an_event_is_raised_before_anything_is_written(database: Database) -> None:
    async def append_badly() -> None:
        async with database.begin() as conn:
            try:
                await append(conn, [event(), event(bad=0.5)])
            finally:
                await append(conn, [event()])

    with pytest.raises(NotStorable):
        await append_badly()
    assert await AuditRecords(database).head() == EMPTY


async def test_hostile_text_is_one_record_like_any_other(database: Database) -> None:
    hostile = "\0\ud800\udfff\x1b[2J\n'; DROP TABLE audit_head; --\u202e"
    actor = Actor(hostile, hostile, hostile, hostile, hostile)
    made = Event(
        EventType.LOGIN_FAILED,
        actor,
        Outcome.FAILURE,
        {"principal": hostile},
        {"reason": hostile},
        hostile,
    )
    assert await append_one(database, made) == 1
    (row,) = await AuditRecords(database).records(
        principal=hostile.replace("\0", "\ufffd")[:0] or None
    )
    assert json.loads(row.record)["detail"]["reason"].startswith("\ufffd\ufffd\ufffd\x1b")
    assert (await verify_log(database)).consistent


async def test_pages_and_filters(database: Database) -> None:
    people = ["p-1", "p-2", "p-3"]
    async with database.begin() as conn:
        for n in range(30):
            kind = EventType.LOGIN_SUCCEEDED if n % 2 else EventType.MFA_VERIFIED
            who = people[n % 3]
            about = {"principal": people[(n + 1) % 3]} if n % 5 else {}
            await append(
                conn, [Event(kind, Actor(who, "person"), Outcome.SUCCESS, about, {"n": n})]
            )
    log = AuditRecords(database)
    everything = await log.records(limit=100)
    assert [row.seq for row in everything] == list(range(1, 31))

    pages: list[int] = []
    while page := await log.records(after=pages[-1] if pages else 0, limit=7):
        pages += [row.seq for row in page]
    assert pages == list(range(1, 31))

    parsed = [json.loads(row.record) for row in everything]
    of_type = await log.records(type="mfa.verified", limit=100)
    assert [row.seq for row in of_type] == [r["seq"] for r in parsed if r["type"] == "mfa.verified"]
    of_person = await log.records(principal="p-2", limit=100)
    assert [row.seq for row in of_person] == [
        r["seq"]
        for r in parsed
        if r["actor"]["id"] == "p-2" or r["subject"].get("principal") == "p-2"
    ]
    cut = datetime.fromisoformat(parsed[12]["time"])
    earlier = await log.records(until=cut, limit=100)
    later = await log.records(since=cut, limit=100)
    assert [row.seq for row in (*earlier, *later)] == list(range(1, 31))
    assert later[0].seq <= 13
    assert await log.records(type="mfa.verified", principal="p-2", after=30) == ()


async def test_times_never_go_back_with_the_clock(database: Database) -> None:
    await append_one(database, event())
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    async with database.begin() as conn:
        await conn.execute(update(audit_head).values(time=ahead))
    await append_one(database, event())
    _, row = await AuditRecords(database).records()
    assert datetime.fromisoformat(json.loads(row.record)["time"]) == ahead
    async with database.read() as conn:
        times = (await conn.execute(select(audit_records.c.time).order_by("seq"))).scalars().all()
    assert times[1] == ahead
    assert abs(times[0] - datetime.now(UTC)) < timedelta(minutes=5)


async def test_an_oversize_detail_stands_beside_its_record(database: Database) -> None:
    text = "\u00e9" * 300_000
    for _ in range(2):  # the same again is the same attachment
        await append_one(database, event(text=text))
    log = AuditRecords(database)
    for row in await log.records():
        assert len(row.record) <= 60 * 1024
        named = json.loads(row.record)["detail"]["attachment"]
        body = await log.attachment(named["sha256"])
        assert body is not None
        assert len(body) == named["bytes"]
        assert hashlib.sha256(body).hexdigest() == named["sha256"]
        assert json.loads(body) == {"text": text}
    assert await log.attachment("00" * 32) is None
    assert (await verify_log(database)).consistent


async def test_a_chain_never_starts_anew_by_itself(database: Database) -> None:
    await append_one(database, event())
    async with database.begin() as conn:
        await conn.execute(delete(audit_head))
    with pytest.raises(AuditUnavailable):
        await append_one(database, event())
    with pytest.raises(AuditUnavailable):
        await AuditRecords(database).head()


async def test_the_database_itself_refuses_to_change_a_record(database: Database) -> None:
    await append_one(database, event())
    for change in (delete(audit_records), update(audit_records).values(record=b"{}")):
        with pytest.raises(DBAPIError):
            async with database.begin() as conn:
                await conn.execute(change)
    assert (await verify_log(database)).count == 1


async def test_tampering_with_rows_shows_in_an_export(database: Database) -> None:
    for n in range(5):
        await append_one(database, event(n=n))
    async with database.begin() as conn:
        await drop_guards(conn)
        row = (await conn.execute(select(audit_records).where(audit_records.c.seq == 3))).one()
        forged = row.record.replace(b'"n":2', b'"n":9')
        assert forged != row.record
        await conn.execute(
            update(audit_records).where(audit_records.c.seq == 3).values(record=forged)
        )
    found = await verify_log(database)
    assert found.problem is not None
    assert found.problem.seq == 3


async def test_rows_missing_at_the_end_stop_an_export(database: Database) -> None:
    for n in range(5):
        await append_one(database, event(n=n))
    async with database.begin() as conn:
        await drop_guards(conn)
        await conn.execute(delete(audit_records).where(audit_records.c.seq > 3))
    with pytest.raises(AuditUnavailable):
        await verify_log(database)


async def test_an_export_ends_at_the_head_it_began_with(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.adapters.store.records._EXPORT_BATCH", 3)
    for n in range(8):
        await append_one(database, event(n=n))
    seen = []
    async for row in AuditRecords(database).export(after=2):
        seen.append(row.seq)
        await append_one(database, event())
    assert seen == [3, 4, 5, 6, 7, 8]


async def test_many_mutators_at_once_make_one_order(database: Database) -> None:
    now = datetime.now(UTC)

    async def mutate(n: int) -> int:
        async with database.begin() as conn:
            await conn.execute(
                insert(throttle_counters).values(
                    name="x", key_hash=n.to_bytes(4), window_number=1, admitted=1, expires_at=now
                )
            )
            (appended,) = await append(conn, [event(n=n)])
        return appended.seq

    seqs = await asyncio.gather(*(mutate(n) for n in range(50)))
    assert sorted(seqs) == list(range(1, 51))
    found = await verify_log(database)
    assert found.consistent
    assert found.count == 50
    async for row in AuditRecords(database).export():
        assert json.loads(row.record)["detail"]["n"] == seqs.index(row.seq)
