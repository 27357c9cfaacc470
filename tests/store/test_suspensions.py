"""Suspending ends everything at once, on every replica; an admin is always left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from broker.access.policy import EMPTY, Group, User
from broker.adapters.store.schema import issuances, principals
from broker.errors import Conflict, PreconditionFailed, Suspended
from broker.identity.login import BootstrapAdmin
from broker.identity.oauth import Redeemed
from broker.identity.sessions import Refreshed, Token, TokenKind
from tests.store.stores import ISSUER, Stores

SRE = replace(EMPTY, admins=(Group("corp/sre"),))


async def put_issuance(
    stores: Stores, name: str, principal_id: str, *, arn: str = "Reader", **values: Any
) -> None:
    now = datetime.now(UTC)
    row = {
        "id": name,
        "principal_id": principal_id,
        "login_session_id": "ls-1",
        "role": arn.lower(),
        "role_arn": f"arn:aws:iam::111122223333:role/{arn}",
        "account_id": "111122223333",
        "session_name": f"ada-{name}",
        "source_identity": principal_id,
        "duration_seconds": 3600,
        "state": "issued",
        "requested_at": now,
        "expires_at": now + timedelta(hours=1),
        "assumed_role_id": f"AROA:{name}",
    }
    async with stores.database.begin() as conn:
        await conn.execute(insert(issuances).values(**(row | values)))


async def test_all_of_theirs_ends_at_once_on_every_replica(
    replicas: tuple[Stores, Stores],
) -> None:
    here, there = replicas
    cookie = Token.new(TokenKind.BROWSER)
    login = await here.log_in(cookie=cookie, groups=frozenset())
    access, refresh, _ = await here.cli(login)
    code = await here.code(login)
    current = await here.grant(login.principal.id)
    upcoming = await here.grant(login.principal.id, begins=60)
    other = Token.new(TokenKind.BROWSER)
    await here.log_in("ada", cookie=other)

    done = await here.suspend_all(login.principal.id)

    assert done.newly
    assert len(done.login_sessions) == 2
    assert set(done.grants) == {current.grant.id, upcoming.grant.id}
    assert not await there.alive(cookie)
    assert not await there.alive(access)
    assert (await there.rotate(refresh, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REFUSED
    assert (await there.redeem(code))[0] is Redeemed.REFUSED
    with pytest.raises(Suspended):
        await there.log_in()
    assert await there.grants.current_grants(login.principal.id) == ()
    assert await there.alive(other)
    [requested] = [r for r in await here.records() if r["type"] == "revocation.requested"]
    assert requested["subject"] == {"principal": login.principal.id}
    assert requested["detail"]["reason"] == "stolen laptop"
    assert requested["detail"]["login_sessions_ended"] == 2


async def test_suspending_again_changes_and_records_nothing(stores: Stores) -> None:
    grace = (await stores.log_in()).principal.id
    first = await stores.suspend_all(grace)
    before = await stores.everything()
    again = await stores.suspend_all(grace)
    assert (again.newly, again.suspended_at) == (False, first.suspended_at)
    assert again.reason == "stolen laptop"
    assert await stores.everything() == before
    assert await stores.suspend_all("p-unknown") is None


async def test_what_still_lives_is_told_by_role(stores: Stores) -> None:
    grace = (await stores.log_in()).principal.id
    soon = datetime.now(UTC) + timedelta(minutes=20)
    await put_issuance(stores, "i1", grace, expires_at=soon)
    await put_issuance(stores, "i2", grace)
    await put_issuance(stores, "i3", grace, arn="Admin")
    await put_issuance(stores, "over", grace, expires_at=datetime.now(UTC))
    await put_issuance(stores, "kept-back", grace, state="withheld")
    await put_issuance(stores, "other", "p-other")
    live = (await stores.suspend_all(grace)).live
    assert [(one.role, one.count) for one in live.roles] == [("admin", 1), ("reader", 2)]
    assert {one.id for one in live.issuances} == {"i1", "i2", "i3"}
    assert live.issuances[-1].id == "i1"
    reader = live.roles[1]
    assert reader.last_expires_at > soon
    assert (await stores.reinstate(grace)).live == live == await stores.suspensions.live(grace)


async def test_reinstated_people_sign_in_anew_with_the_factor_they_had(stores: Stores) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    await stores.enrol(login)
    await stores.grant(login.principal.id)
    await stores.suspend_all(login.principal.id)
    done = await stores.reinstate(login.principal.id)
    assert done.principal_id == login.principal.id
    assert not await stores.alive(cookie)
    assert await stores.grants.current_grants(login.principal.id) == ()
    assert (await stores.log_in()).has_confirmed_factor
    with pytest.raises(Conflict):
        await stores.reinstate(login.principal.id)
    assert await stores.reinstate("p-unknown") is None
    [row] = [r for r in await stores.rows(principals) if r["id"] == login.principal.id]
    assert row["suspended_at"] is row["suspended_reason"] is None


@pytest.mark.parametrize("subject", [Group("corp/sre"), User("corp/grace@example.com")])
async def test_the_last_admin_stays(stores: Stores, subject: Any) -> None:
    await stores.apply("corp/grace@example.com")
    policy = replace(EMPTY, number=1, admins=(subject,))
    grace = (await stores.log_in()).principal.id
    with pytest.raises(Conflict, match="last admin"):
        await stores.suspend_all(grace, policy)
    bootstrap = (BootstrapAdmin(issuer=ISSUER, subject="root"),)
    root = (await stores.log_in("root", groups=frozenset(), bootstrap=bootstrap)).principal.id
    assert (await stores.suspend_all(grace, policy)).newly
    # A suspended admin is none.
    with pytest.raises(Conflict, match="last admin"):
        await stores.suspend_all(root, policy)
    assert (await stores.suspend_all((await stores.log_in("x", groups=frozenset())).principal.id,
                                     policy)).newly  # fmt: skip


async def test_a_policy_that_moved_meanwhile_is_looked_at_again(stores: Stores) -> None:
    grace = (await stores.log_in()).principal.id
    await stores.apply()
    with pytest.raises(PreconditionFailed):
        await stores.suspend_all(grace)


async def test_two_admins_who_suspend_each_other_leave_one(
    replicas: tuple[Stores, Stores],
) -> None:
    here, there = replicas
    one = (await here.log_in("one")).principal.id
    two = (await here.log_in("two")).principal.id
    results = await asyncio.gather(
        here.suspend_all(one, SRE), there.suspend_all(two, SRE), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Suspension"]


async def test_a_login_beside_a_suspension_leaves_nothing_alive(
    replicas: tuple[Stores, Stores],
) -> None:
    here, there = replicas
    for round_ in range(6):
        subject = f"s{round_}"
        who = (await here.log_in(subject)).principal.id
        cookie = Token.new(TokenKind.BROWSER)
        await asyncio.gather(
            here.suspend_all(who), there.log_in(subject, cookie=cookie), return_exceptions=True
        )
        assert not await here.alive(cookie)
        assert await here.directory.live_sessions(who) == ()


async def test_a_suspended_admin_undoes_nothing_with_a_request_in_flight(stores: Stores) -> None:
    """The request was let in before; its transaction comes after the suspension's."""
    mallory = (await stores.log_in("mallory")).principal.id
    grace = (await stores.log_in()).principal.id
    await stores.suspend_all(mallory)
    before = await stores.everything()
    with pytest.raises(Suspended):
        await stores.reinstate(mallory, by=mallory)
    with pytest.raises(Suspended):
        await stores.suspend_all(grace, by=mallory)
    with pytest.raises(Suspended):
        await stores.grant(grace, by=mallory)
    with pytest.raises(Suspended):
        await stores.invite(b"c" * 32, by=mallory, provider="corp", email="second@example.com")
    assert await stores.everything() == before


async def test_who_is_just_being_suspended_does_not_reinstate_themselves(
    replicas: tuple[Stores, Stores],
) -> None:
    here, there = replicas
    mallory = (await here.log_in("mallory")).principal.id
    done = await asyncio.gather(
        here.suspend_all(mallory),
        *(there.reinstate(mallory, by=mallory) for _ in range(5)),
        return_exceptions=True,
    )
    assert all(isinstance(one, Conflict | Suspended) for one in done[1:])
    [row] = [r for r in await here.rows(principals) if r["id"] == mallory]
    assert row["suspended_at"] is not None
