"""Where each sink of the log has got to: kept, leased, taken over, and never moved in silence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, text, update

from broker.adapters.store import sinks
from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.adapters.store.schema import audit_records, audit_sinks
from broker.adapters.store.sinks import RecordMissing, SinkEntry, SinkStanding, SqlSinks
from broker.audit.record import EventType
from tests.store.journal_scene import event, log

SIEM = SinkEntry("siem", {"kind": "webhook", "url": "https://siem.example.com/in"})
ARCHIVE = SinkEntry("archive", {"kind": "s3", "bucket": "logs"}, start="beginning")


@pytest.fixture(autouse=True)
def _long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """None ends by itself, however slow the machine is."""
    monkeypatch.setattr(sinks, "LEASE", timedelta(hours=1))


async def record(database: Database, count: int, size: int = 1) -> None:
    async with database.begin() as conn:
        await append(
            conn, [event(EventType.LOGIN_SUCCEEDED, n=n, pad="x" * size) for n in range(count)]
        )


async def changes(database: Database) -> list[dict[str, Any]]:
    return [
        one["detail"] | one["subject"]
        for one in await log(database)
        if one["type"] == "audit.sinks_changed"
    ]


async def standing(store: SqlSinks, name: str = "siem", me: str = "") -> SinkStanding:
    (found,) = [one for one in await store.standings(me) if one.name == name]
    return found


async def test_a_new_sink_starts_where_the_settings_say_and_is_on_record(
    database: Database,
) -> None:
    await record(database, 5)
    store = SqlSinks(database)
    await store.configure([SIEM, ARCHIVE])
    assert (await standing(store)).position == 5
    assert (await standing(store, "archive")).position == 0
    # What it gets first says that it was added.
    assert [one["seq"] for one in await log(database) if one["type"] == "audit.sinks_changed"] == [
        6, 7,
    ]  # fmt: skip
    added, archived = await changes(database)
    assert (added["change"], added["sink"], added["position"]) == ("added", "siem", 5)
    assert (added["before"], added["after"]) == (None, dict(SIEM.description))
    assert archived["sink"] == "archive"
    await store.configure([SIEM, ARCHIVE])
    assert len(await changes(database)) == 2


async def test_what_changes_is_on_record_with_what_it_was(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    await record(database, 3)
    elsewhere = SinkEntry("siem", {"kind": "webhook", "url": "https://mallory.example"})
    await store.configure([elsewhere])
    await store.configure([])
    await store.configure([SIEM])
    added, changed, removed, again = await changes(database)
    assert added["change"] == "added"
    assert changed["change"] == "changed"
    assert changed["before"] == dict(SIEM.description)
    assert changed["after"] == dict(elsewhere.description)
    assert (removed["change"], removed["before"]) == ("removed", dict(elsewhere.description))
    assert (again["change"], again["after"]) == ("added", dict(SIEM.description))
    # What comes back goes on where it was: nothing is skipped.
    assert (await standing(store)).position == added["position"] == again["position"] == 0


async def test_one_of_two_processes_that_start_at_once_enters_the_sink(database_url: str) -> None:
    opened = [Database.open(database_url) for _ in range(2)]
    await asyncio.gather(*(SqlSinks(one).configure([SIEM, ARCHIVE]) for one in opened))
    assert sorted(one["sink"] for one in await changes(opened[0])) == ["archive", "siem"]
    for one in opened:
        await one.aclose()


async def test_one_process_at_a_time_holds_a_sink(database_url: str) -> None:
    first, second = Database.open(database_url), Database.open(database_url)
    one, two = SqlSinks(first), SqlSinks(second)
    await one.configure([SIEM])
    await record(first, 4)
    claims = await asyncio.gather(
        one.claim("siem", SIEM.text, "a"), two.claim("siem", SIEM.text, "b")
    )
    (held,) = [claim for claim in claims if claim is not None]
    winner, loser = ("a", "b") if claims[0] is not None else ("b", "a")
    assert held.position == 0
    assert (await standing(one, me=winner)).free
    assert not (await standing(one, me=loser)).free
    assert not await two.begin_batch("siem", loser, 4)
    assert not await two.advance("siem", loser, 4)
    assert await one.begin_batch("siem", winner, 4)
    assert await one.advance("siem", winner, 4)
    assert (await standing(two)).position == 4
    await one.release("siem", winner)
    assert await two.claim("siem", SIEM.text, loser) is not None
    await first.aclose()
    await second.aclose()


async def test_a_dead_process_loses_its_sink_and_its_batch_is_repeated_to_the_same_end(
    database: Database,
) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    await record(database, 9)
    assert await store.claim("siem", SIEM.text, "dead")
    assert await store.begin_batch("siem", "dead", 7)
    assert await store.claim("siem", SIEM.text, "heir") is None
    await expire(database)
    claim = await store.claim("siem", SIEM.text, "heir")
    assert claim is not None
    assert (claim.position, claim.batch_end) == (0, 7)
    batch = await store.batch(claim.position, end=claim.batch_end, limit=3, max_bytes=1)
    assert [one.seq for one in batch] == list(range(1, 8))
    # Whoever was only asleep moves nothing.
    assert not await store.advance("siem", "dead", 7)
    assert await store.advance("siem", "heir", 7)
    claim = await store.claim("siem", SIEM.text, "heir")
    assert claim is not None
    assert (claim.position, claim.batch_end) == (7, None)


async def expire(database: Database) -> None:
    """As if the lease's ten seconds were over."""
    async with database.begin() as conn:
        past = await database.now(conn) - sinks.LEASE
        await conn.execute(update(audit_sinks).values(held_until=past))


async def test_renewing_keeps_a_sink(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    assert await store.claim("siem", SIEM.text, "a")
    await expire(database)
    assert await store.renew("siem", "a")
    assert await store.claim("siem", SIEM.text, "b") is None
    assert not await store.renew("siem", "b")


async def test_a_failure_lets_go_and_says_why_until_it_heals(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    await record(database, 2)
    for _ in range(2):
        await store.configure([SIEM])  # as a process that starts does: tried at once
        assert await store.claim("siem", SIEM.text, "a")
        await store.fail("siem", "a", "answered 503", retry_in=60)
    now = await standing(store, me="b")
    assert (now.failures, now.last_error, now.free, now.holder) == (2, "answered 503", False, None)
    assert now.failing_since is not None
    assert await store.claim("siem", SIEM.text, "b") is None
    async with database.begin() as conn:
        await conn.execute(update(audit_sinks).values(retry_at=await database.now(conn)))
    claim = await store.claim("siem", SIEM.text, "b")
    assert claim is not None
    assert claim.failures == 2
    assert await store.advance("siem", "b", 2)
    healed = await standing(store)
    assert (healed.failures, healed.last_error, healed.failing_since) == (0, None, None)
    assert healed.delivered_at is not None


async def test_a_sink_that_changed_is_lost_to_who_knows_it_as_it_was(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    assert await store.claim("siem", SIEM.text, "old")
    changed = SinkEntry("siem", {"kind": "webhook", "url": "https://other.example.com"})
    await store.configure([changed])
    assert not await store.renew("siem", "old")
    assert await store.claim("siem", SIEM.text, "old") is None
    assert await store.claim("siem", changed.text, "new")
    await store.configure([])
    assert await store.claim("siem", changed.text, "new") is None


async def test_positions_are_moved_on_record_alone(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    await record(database, 4)
    assert await store.claim("siem", SIEM.text, "a")
    assert await store.move("siem", 3) == 3
    assert not await store.advance("siem", "a", 5)
    assert await store.move("siem", "beginning") == 0
    assert await store.move("siem", "now") == 7
    moves = [one for one in await changes(database) if one["change"] == "moved"]
    assert [(one["before"]["position"], one["after"]["position"]) for one in moves] == [
        (0, 3), (3, 0), (0, 7),
    ]  # fmt: skip
    for wrong in (-1, 99):
        with pytest.raises(ValueError, match="records 1 to 8"):
            await store.move("siem", wrong)
    with pytest.raises(LookupError):
        await store.move("nobody", 0)
    assert (await standing(store)).position == 7


async def test_only_a_sink_that_is_out_of_use_is_forgotten(database: Database) -> None:
    store = SqlSinks(database)
    await store.configure([SIEM])
    with pytest.raises(ValueError, match="take it out of the settings"):
        await store.forget("siem")
    await store.configure([])
    await store.forget("siem")
    assert await store.standings() == ()
    assert [one["change"] for one in await changes(database)] == ["added", "removed", "forgotten"]
    with pytest.raises(LookupError):
        await store.forget("siem")


async def test_batches_have_ends_in_number_and_in_bytes(database: Database) -> None:
    store = SqlSinks(database)
    await record(database, 250)
    batch = await store.batch(0, end=None, limit=230, max_bytes=10_000_000)
    assert [one.seq for one in batch] == list(range(1, 231))
    batch = await store.batch(230, end=None, limit=500, max_bytes=10_000_000)
    assert [one.seq for one in batch] == list(range(231, 251))
    await record(database, 5, size=20_000)
    batch = await store.batch(250, end=None, limit=500, max_bytes=50_000)
    assert [one.seq for one in batch] == [251, 252]
    batch = await store.batch(252, end=None, limit=500, max_bytes=1)
    assert [one.seq for one in batch] == [253]
    assert await store.batch(255, end=None, limit=500, max_bytes=1) == ()


async def test_a_hole_in_the_log_is_never_passed_over(sqlite_database: Database) -> None:
    await record(sqlite_database, 6)
    async with sqlite_database.begin() as conn:
        await conn.execute(text("DROP TRIGGER audit_records_no_delete"))
        await conn.execute(delete(audit_records).where(audit_records.c.seq == 4))
    store = SqlSinks(sqlite_database)
    with pytest.raises(RecordMissing, match="record 4 is missing"):
        await store.batch(0, end=None, limit=10, max_bytes=10_000)
