"""Grants: each lives and ends on its own, ends once, and what is revoked gives nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.access.grant import GrantState, Repeatable, SeenBy
from broker.adapters.store.grants import record_expired
from broker.adapters.store.journal import GroupCommitJournal
from broker.errors import Conflict, NotFound
from broker.identity.sessions import Token, TokenKind
from broker.issuance.journal import State
from tests.store.journal_scene import intent, outcome
from tests.store.stores import Stores

KEY = Repeatable(b"k" * 32, b"r" * 32)


async def ids(stores: Stores, **options: Any) -> list[str]:
    return [one.grant.id for one in await stores.grants.grants(**({"seen_by": None} | options))]


async def test_a_grant_is_kept_as_it_was_given(stores: Stores) -> None:
    grace = (await stores.log_in()).principal
    given = await stores.grant(grace.id, begins=60)
    assert given == await stores.grants.grant(given.grant.id)
    assert (given.state, given.handle) == (GrantState.UPCOMING, grace.handle)
    [record] = [r for r in await stores.records() if r["type"] == "grant.created"]
    assert record["subject"] == {
        "grant": given.grant.id,
        "principal": grace.id,
        "role": "reader",
    }
    assert record["detail"]["reason"] == "on call"
    assert await stores.grants.grant("g-unknown") is None


async def test_nobody_unknown_or_suspended_is_given_anything(stores: Stores) -> None:
    with pytest.raises(NotFound):
        await stores.grant("p-unknown")
    grace = (await stores.log_in()).principal.id
    await stores.suspend(grace)
    with pytest.raises(Conflict, match="suspended"):
        await stores.grant(grace)
    assert await ids(stores) == []


async def test_grants_that_overlap_end_on_their_own(stores: Stores) -> None:
    grace = (await stores.log_in()).principal.id
    short, long, later = [
        (await stores.grant(grace, begins=begins, ends=ends)).grant
        for begins, ends in ((0, 600), (0, 3600), (1200, 7200))
    ]
    assert await stores.grants.current_grants(grace) == (later, long, short)
    assert await stores.revoke(long.id) is True
    assert await stores.grants.current_grants(grace) == (later, short)
    assert (await stores.grants.grant(short.id)).state is GrantState.ACTIVE
    revoked = await stores.grants.grant(long.id)
    assert (revoked.state, revoked.revoked_by) == (GrantState.REVOKED, "p-admin")
    assert revoked.revoked_reason == "over"


async def test_a_grant_ends_once(stores: Stores) -> None:
    grace = (await stores.log_in()).principal.id
    given = (await stores.grant(grace)).grant.id
    over = (await stores.grant(grace, begins=-60, ends=-1)).grant.id
    before = len(await stores.records())
    assert [await stores.revoke(one) for one in (given, given, over, "g-none")] == [
        True,
        False,
        False,
        False,
    ]
    assert len(await stores.records()) == before + 1


async def test_authenticating_tells_whether_there_are_any(stores: Stores) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    grace = (await stores.log_in(cookie=cookie)).principal.id
    seen = []
    for begins, ends in ((-60, -1), (60, 120)):
        await stores.grant(grace, begins=begins, ends=ends)
        seen.append((await stores.sessions.authenticate(cookie)).has_grants)
    assert seen == [False, True]
    for one in await stores.grants.current_grants(grace):
        await stores.revoke(one.id)
    assert not (await stores.sessions.authenticate(cookie)).has_grants


async def test_a_list_shows_what_its_reader_may_see_page_by_page(stores: Stores) -> None:
    ada = (await stores.log_in("ada")).principal.id
    bob = (await stores.log_in("bob")).principal.id
    a1 = (await stores.grant(ada)).grant.id
    b1 = (await stores.grant(bob, by=ada, role="writer")).grant.id
    b2 = (await stores.grant(bob, begins=60)).grant.id
    assert await ids(stores) == [b2, b1, a1]
    assert await ids(stores, limit=2) == [b2, b1]
    assert await ids(stores, after=b1) == [a1]
    assert await ids(stores, after="g-none") == []
    assert await ids(stores, principal_id=bob) == [b2, b1]
    assert await ids(stores, role="writer") == [b1]
    assert await ids(stores, active=True) == [b1, a1]
    assert await ids(stores, active=False) == [b2]
    assert await ids(stores, seen_by=SeenBy(ada)) == [b1, a1]
    assert await ids(stores, seen_by=SeenBy(bob)) == [b2, b1]
    assert await ids(stores, seen_by=SeenBy("p-d", frozenset({"reader"}))) == [b2, a1]
    # A grant that is not on the list is no place on it.
    assert await ids(stores, seen_by=SeenBy(ada), after=b2) == []


async def test_the_same_request_again_gives_the_same_grant_and_no_record(stores: Stores) -> None:
    ada = (await stores.log_in("ada")).principal.id
    first = await stores.grant(ada, repeatable=KEY)
    recorded = len(await stores.records())
    assert await stores.grant(ada, repeatable=KEY) == first
    with pytest.raises(Conflict, match="another request"):
        await stores.grant(ada, repeatable=Repeatable(KEY.key_hash, b"x" * 32))
    assert len(await stores.records()) == recorded
    # The key of one caller says nothing about another's.
    assert (await stores.grant(ada, by="p-other", repeatable=KEY)).grant.id != first.grant.id


async def test_one_request_over_two_replicas_makes_one_grant(
    replicas: tuple[Stores, Stores],
) -> None:
    ada = (await replicas[0].log_in("ada")).principal.id
    made = await asyncio.gather(*(replicas[n % 2].grant(ada, repeatable=KEY) for n in range(6)))
    assert len({one.grant.id for one in made}) == 1
    assert (await replicas[0].record_types()).count("grant.created") == 1


async def test_running_out_is_recorded_once_over_all_replicas(
    replicas: tuple[Stores, Stores],
) -> None:
    first, second = replicas
    ada = (await first.log_in("ada")).principal.id
    for _ in range(7):
        await first.grant(ada, begins=-60, ends=-1)
    await first.grant(ada, ends=600)
    revoked = await first.grant(ada, ends=600)
    await first.revoke(revoked.grant.id)
    counts = await asyncio.gather(
        *(record_expired(one.database, batch=2) for one in (first, second, first, second))
    )
    # Whoever found the rows locked left them to the other.
    counts.append(await record_expired(first.database))
    assert sum(counts) == 7
    assert (await first.record_types()).count("grant.expired") == 7
    assert await record_expired(second.database) == 0


async def test_a_revocation_during_an_issuance_is_before_it_or_withholds_it(
    replicas: tuple[Stores, Stores],
) -> None:
    """Whatever the order, the log tells it: nothing is issued after its grant was revoked."""
    first, second = replicas
    login = await first.log_in("ada")
    for _ in range(8):
        given = (await first.grant(login.principal.id)).grant
        journal = GroupCommitJournal(second.database, capacity=100, patience=30.0)
        await journal.start()
        try:
            asked = intent(
                principal_id=login.principal.id,
                login_session_id=login.session.id,
                grant_id=given.id,
            )
            await journal.request(asked)
            concluded, revoked = await asyncio.gather(
                journal.conclude(outcome(asked)), first.revoke(given.id)
            )
        finally:
            await journal.aclose()
        assert revoked
        records = [
            record
            for record in await first.records()
            if given.id == record["subject"].get("grant")
            or asked.id == record["subject"].get("issuance")
        ]
        order = [record["type"] for record in records]
        if concluded.state is State.ISSUED:
            assert order.index("issuance.issued") < order.index("grant.revoked")
        else:
            assert concluded.reason == "grant_revoked"
            assert order.index("grant.revoked") < order.index("issuance.withheld")
