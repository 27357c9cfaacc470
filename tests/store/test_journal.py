"""The journal on both databases: what is recorded, what is withheld, what is refused."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.logins import SqlLoginStore
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.schema import grants, login_sessions, principals
from broker.audit import record as audit
from broker.audit.chain import MAX_RECORD_BYTES
from broker.audit.record import Actor, Event, EventType, prepare, rfc3339
from broker.errors import AuditUnavailable
from broker.issuance.journal import Concluded, State
from tests.store.journal_scene import (
    EXPIRES,
    LONG_AGO,
    NEVER,
    add_person,
    event,
    intent,
    log,
    outcome,
    stored,
    until,
)


@pytest.fixture(autouse=True)
async def _person(database: Database) -> None:
    await add_person(database)


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[GroupCommitJournal]:
    opened = GroupCommitJournal(database, housekeeping_every=NEVER)
    await opened.start()
    yield opened
    await opened.aclose()


# --- One issuance ------------------------------------------------------------------------


async def test_an_issuance_from_intent_to_outcome(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = intent("iss-1")
    requested = await journal.request(asked)
    row = await stored(database, "iss-1")
    assert (row.state, row.access_key_id, row.concluded_at) == ("requested", None, None)

    concluded = await journal.conclude(outcome(asked))
    assert (concluded.state, concluded.reason) == (State.ISSUED, None)
    row = await stored(database, "iss-1")
    assert row.state == "issued"
    assert (row.access_key_id, row.expires_at) == ("ASIAEXAMPLE", EXPIRES)
    assert (row.assumed_role_id, row.sts_request_id) == ("AROAEXAMPLE:ada", "sts-1")
    assert row.assumed_role_arn == "arn:aws:sts::111122223333:assumed-role/Reader/ada"
    assert (row.grant_id, row.duration_seconds, row.policy_sha256) == ("g-1", 3600, "ab" * 32)
    assert abs(row.requested_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert row.concluded_at >= row.requested_at

    records = await log(database)
    assert [r["type"] for r in records] == ["issuance.requested", "issuance.issued"]
    assert [r["seq"] for r in records] == [requested.seq, concluded.appended.seq] == [1, 2]
    assert records[1]["detail"] == {"access_key_id": "ASIAEXAMPLE"}
    rows = await AuditRecords(database).records(principal="p-1")
    assert [row.leaf for row in rows] == [requested.leaf, concluded.appended.leaf]


async def test_a_failure_closes_the_issuance(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = intent("iss-1")
    await journal.request(asked)
    appended = await journal.fail(asked, event(EventType.ISSUANCE_FAILED, code="aws_denied"))
    row = await stored(database, "iss-1")
    assert (row.state, row.access_key_id) == ("failed", None)
    assert row.concluded_at is not None
    records = await log(database)
    assert appended.seq == 2
    assert (records[1]["type"], records[1]["detail"]) == ("issuance.failed", {"code": "aws_denied"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (update(principals).values(suspended_at=LONG_AGO), "suspended"),
        (update(login_sessions).values(revoked_at=LONG_AGO), "session_ended"),
        (update(login_sessions).values(expires_at=LONG_AGO), "session_ended"),
        (delete(login_sessions), "session_ended"),
        (update(grants).values(revoked_at=LONG_AGO), "grant_revoked"),
        (update(grants).values(revoked_at=LONG_AGO, expires_at=LONG_AGO), "grant_revoked"),
        (update(grants).values(expires_at=LONG_AGO), "grant_expired"),
        (delete(grants), "grant_revoked"),
    ],
)
async def test_what_was_revoked_meanwhile_is_withheld(
    database: Database, journal: GroupCommitJournal, change: Any, reason: str
) -> None:
    asked = intent("iss-1")
    await journal.request(asked)
    async with database.begin() as conn:
        await conn.execute(change)
    concluded = await journal.conclude(outcome(asked))
    assert (concluded.state, concluded.reason) == (State.WITHHELD, reason)
    row = await stored(database, "iss-1")
    assert (row.state, row.access_key_id, row.expires_at) == ("withheld", "ASIAEXAMPLE", EXPIRES)
    record = (await log(database))[-1]
    assert (record["type"], record["outcome"]) == ("issuance.withheld", "denied")
    assert record["subject"] == {"issuance": "iss-1", "principal": "p-1", "role": "reader"}
    assert record["detail"] == {
        "access_key_id": "ASIAEXAMPLE",
        "expires_at": "2026-12-01T12:30:00.000000Z",
        "reason": reason,
    }


async def test_who_is_not_in_the_database_gets_nothing(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = intent("iss-1", principal_id="p-unknown")
    await journal.request(asked)
    assert (await journal.conclude(outcome(asked))).reason == "suspended"


async def test_no_grant_no_recheck_of_one(database: Database, journal: GroupCommitJournal) -> None:
    asked = intent("iss-1", grant_id=None)
    await journal.request(asked)
    assert (await journal.conclude(outcome(asked))).state is State.ISSUED


async def test_the_good_of_a_batch_are_not_held_back_by_the_revoked(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = [intent(f"iss-{n}", grant_id=None if n % 2 else "g-1") for n in range(20)]
    await asyncio.gather(*map(journal.request, asked))
    async with database.begin() as conn:
        await conn.execute(update(grants).values(revoked_at=LONG_AGO))
    concluded = await asyncio.gather(*(journal.conclude(outcome(one)) for one in asked))
    assert [c.state for c in concluded] == [State.WITHHELD, State.ISSUED] * 10
    for one, answer in zip(asked, concluded, strict=True):
        assert (await stored(database, one.id)).state == answer.state.value
    assert len(await log(database)) == 40


# --- Too late, twice, hostile ------------------------------------------------------------


async def test_an_outcome_after_the_reaper_is_withheld_and_its_key_is_on_record(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked, other = intent("iss-1"), intent("iss-2")
    await journal.request(asked)
    await journal.request(other)
    assert await journal.reap(NEVER) == 0
    assert await journal.reap(-1) == 2
    assert await journal.reap(-1) == 0
    row = await stored(database, "iss-1")
    assert (row.state, row.access_key_id) == ("orphaned", None)
    assert row.concluded_at is not None

    concluded = await journal.conclude(outcome(asked))
    assert (concluded.state, concluded.reason) == (State.WITHHELD, "late")
    row = await stored(database, "iss-1")
    assert (row.state, row.access_key_id, row.expires_at) == ("orphaned", "ASIAEXAMPLE", EXPIRES)
    await journal.fail(other, event(EventType.ISSUANCE_FAILED, "iss-2"))
    assert (await stored(database, "iss-2")).state == "orphaned"

    records = (await log(database))[2:]
    assert [r["type"] for r in records] == [
        "issuance.orphaned",
        "issuance.orphaned",
        "issuance.withheld",
        "issuance.failed",
    ]
    assert {r["subject"]["issuance"] for r in records[:2]} == {"iss-1", "iss-2"}
    assert records[0]["actor"]["id"] == "system"
    assert records[0]["subject"]["principal"] == "p-1"
    assert records[0]["detail"]["session_name"].startswith("ada-iss-")
    assert records[2]["detail"]["reason"] == "late"
    assert records[2]["detail"]["access_key_id"] == "ASIAEXAMPLE"
    assert records[3]["detail"] == {"late": True}


async def test_two_outcomes_of_one_issuance_have_one_winner(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = intent("iss-1")
    await journal.request(asked)
    both = await asyncio.gather(
        journal.conclude(outcome(asked, "ASIAONE")), journal.conclude(outcome(asked, "ASIATWO"))
    )
    assert sorted(c.state for c in both) == [State.ISSUED, State.WITHHELD]
    assert (await journal.conclude(outcome(asked, "ASIATHREE"))).reason == "late"
    winner = "ASIAONE" if both[0].state is State.ISSUED else "ASIATWO"
    assert (await stored(database, "iss-1")).access_key_id == winner
    types = Counter(r["type"] for r in await log(database))
    assert types == {"issuance.requested": 1, "issuance.issued": 1, "issuance.withheld": 2}


async def test_an_id_is_taken_once(database: Database, journal: GroupCommitJournal) -> None:
    answers = await asyncio.gather(
        journal.request(intent("iss-1")),
        journal.request(intent("iss-1")),
        journal.request(intent("iss-2")),
        return_exceptions=True,
    )
    assert Counter(map(type, answers))[AuditUnavailable] == 1
    with pytest.raises(AuditUnavailable):
        await journal.request(intent("iss-1"))
    assert [r["subject"]["issuance"] for r in await log(database)] == ["iss-1", "iss-2"]


async def test_an_entry_the_database_refuses_fails_alone(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = [intent(f"iss-{n}", duration_seconds=2**80 if n == 3 else 3600) for n in range(8)]
    answers = await asyncio.gather(*map(journal.request, asked), return_exceptions=True)
    assert [isinstance(a, AuditUnavailable) for a in answers] == [n == 3 for n in range(8)]
    assert len(await log(database)) == 7


async def test_an_event_that_is_not_json_ready_is_refused_alone(
    database: Database, journal: GroupCommitJournal
) -> None:
    bad = event(EventType.LOGIN_FAILED, bad=0.5)
    good = event(EventType.LOGIN_FAILED)
    answers = await asyncio.gather(
        journal.append(good), journal.append(bad), journal.append(good), return_exceptions=True
    )
    assert [type(a) for a in answers] == [audit.Appended, AuditUnavailable, audit.Appended]
    assert len(await log(database)) == 2


async def test_hostile_text_is_recorded(database: Database, journal: GroupCommitJournal) -> None:
    hostile = "\0\ud800'\"\\\u202e"
    actor = Actor("p-1", "person", hostile, hostile, hostile)
    requested = replace(event(EventType.ISSUANCE_REQUESTED), actor=actor)
    asked = intent("iss-1", role=hostile, event=requested)
    await journal.request(asked)
    odd = outcome(asked, hostile, sts_request_id=hostile, assumed_role_arn=hostile)
    assert (await journal.conclude(odd)).state is State.ISSUED
    await journal.deny(
        Event(EventType.ISSUANCE_DENIED, actor, audit.Outcome.DENIED, {"role": hostile})
    )
    assert (await stored(database, "iss-1")).access_key_id == "\ufffd\ufffd'\"\\\u202e"
    assert len(await log(database)) == 3


async def test_an_oversize_detail_stands_beside_the_withheld_too(
    database: Database, journal: GroupCommitJournal
) -> None:
    asked = intent("iss-1", event=event(EventType.ISSUANCE_REQUESTED, text="x" * 70_000))
    await journal.request(asked)
    async with database.begin() as conn:
        await conn.execute(update(principals).values(suspended_at=LONG_AGO))
    # Over the limit only once the reason is added.
    empty = prepare(event(EventType.ISSUANCE_ISSUED, text="")).record(10**18, rfc3339(EXPIRES))
    largest = event(EventType.ISSUANCE_ISSUED, text="x" * (MAX_RECORD_BYTES - len(empty)))
    assert prepare(largest).attachment is None
    await journal.conclude(outcome(asked, event=largest))
    for record in await log(database):
        body = await AuditRecords(database).attachment(record["detail"]["attachment"]["sha256"])
        assert body is not None
        assert len(json.loads(body)["text"]) > 60_000


# --- Floods --------------------------------------------------------------------------------


def denied(who: str, role: str) -> Event:
    return Event(
        EventType.ISSUANCE_DENIED,
        Actor(who, "person", ip="192.0.2.1"),
        audit.Outcome.DENIED,
        {"principal": who, "role": role},
        {"code": "not_entitled"},
    )


async def test_a_flood_of_denials_is_few_records_and_hides_no_probe(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    monkeypatch.setattr(GroupCommitJournal, "_now", staticmethod(lambda: noon))
    journal = GroupCommitJournal(database, housekeeping_every=NEVER)
    await journal.start()
    flood = [denied("p-1", f"role-{n % 10}") for n in range(2000)]
    await asyncio.gather(*map(journal.deny, flood), journal.deny(denied("p-2", "admin")))
    await journal.aclose()
    records = await log(database)
    first = [r["subject"] for r in records if r["type"] == "issuance.denied"]
    assert len(first) == 11
    assert {"principal": "p-2", "role": "admin"} in first
    counted = [r for r in records if r["type"] == "audit.suppressed"]
    assert {r["subject"]["role"] for r in counted} == {f"role-{n}" for n in range(10)}
    assert sum(r["detail"]["count"] for r in counted) == 1990
    assert len(records) == 21


async def test_counts_are_written_when_their_minute_is_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, 12, 0, 59, tzinfo=UTC)
    monkeypatch.setattr(GroupCommitJournal, "_now", staticmethod(lambda: now))
    journal = GroupCommitJournal(database, housekeeping_every=0.01)
    await journal.start()
    for _ in range(3):
        await journal.deny(denied("p-1", "admin"))
    now += timedelta(seconds=1)
    log_of = AuditRecords(database)

    async def written() -> bool:
        return bool(await log_of.records(type="audit.suppressed"))

    await until(written)
    await journal.aclose()
    assert [r["type"] for r in await log(database)] == ["issuance.denied", "audit.suppressed"]


async def test_the_reaper_runs_by_itself(database: Database) -> None:
    journal = GroupCommitJournal(database, housekeeping_every=0.01, reap_after=-1)
    await journal.start()
    await journal.request(intent("iss-1"))

    async def reaped() -> bool:
        return str((await stored(database, "iss-1")).state) == "orphaned"

    await until(reaped)
    await journal.aclose()
    assert [r["type"] for r in await log(database)] == ["issuance.requested", "issuance.orphaned"]


async def test_reapers_and_outcomes_at_once_give_each_issuance_one_end(
    database: Database, database_url: str
) -> None:
    databases = [database, Database.open(database_url)]
    journals = [GroupCommitJournal(d, housekeeping_every=NEVER) for d in databases]
    for journal in journals:
        await journal.start()
    asked = [intent(f"iss-{n}") for n in range(40)]
    await asyncio.gather(*map(journals[0].request, asked))
    answers = await asyncio.gather(
        *(journals[n % 2].conclude(outcome(one)) for n, one in enumerate(asked[:20])),
        journals[0].reap(-1),
        journals[1].reap(-1),
        *(journals[n % 2].conclude(outcome(one)) for n, one in enumerate(asked[20:])),
    )
    for journal in journals:
        await journal.aclose()
    await databases[1].aclose()
    concluded = [a for a in answers if isinstance(a, Concluded)]
    reaped = sum(a for a in answers if isinstance(a, int))
    records = await log(database)
    orphaned = [r["subject"]["issuance"] for r in records if r["type"] == "issuance.orphaned"]
    issued = [r["subject"]["issuance"] for r in records if r["type"] == "issuance.issued"]
    assert len(orphaned) == len(set(orphaned)) == reaped
    assert len(issued) == len(set(issued)) == sum(c.state is State.ISSUED for c in concluded)
    assert sorted(orphaned + issued) == sorted(one.id for one in asked)
    for name in orphaned:
        assert (await stored(database, name)).state == "orphaned"


async def test_anybodys_flood_of_failed_logins_is_few_records(database: Database) -> None:
    journal = GroupCommitJournal(database, housekeeping_every=NEVER)
    await journal.start()
    logins = SqlLoginStore(database, deny=journal.deny)
    nobody = Actor("anonymous", "anonymous", ip="192.0.2.9")
    failed = Event(EventType.LOGIN_FAILED, nobody, audit.Outcome.FAILURE, {}, {"reason": "state"})
    for _ in range(200):
        await logins.record_login_failure(failed)
    await journal.aclose()
    # Two firsts and two counts where the minute turned meanwhile.
    assert len(await log(database)) in {2, 3, 4}
    counted = [r["detail"]["count"] for r in await log(database) if r["type"] == "audit.suppressed"]
    assert sum(counted) in {198, 199}
