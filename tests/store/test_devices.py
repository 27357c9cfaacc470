"""Logins that a machine without a browser starts: decided once, redeemed once."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.store.schema import device_logins, login_sessions
from broker.audit.record import EventType
from broker.identity.device import NewDeviceLogin, Polled
from broker.identity.sessions import Refreshed, Token, TokenKind
from tests.store.stores import Stores, event
from tests.store.test_races import both

ROUNDS = 3


async def started(stores: Stores, **changes: Any) -> NewDeviceLogin:
    """A login that waits."""
    values: dict[str, Any] = {
        "id": f"dl-{secrets.token_hex(10)}",
        "device_code_hash": secrets.token_bytes(32),
        "user_code_hash": secrets.token_bytes(32),
        "host_name": "build-7",
        "ip": "192.0.2.8",
        "user_agent": "broker/1",
    }
    new = NewDeviceLogin(**(values | changes))
    assert await stores.devices.open_device_login(new)
    return new


async def decide(stores: Stores, new: NewDeviceLogin, login: Any, *, approve: bool = True) -> bool:
    decided: bool = await stores.devices.decide_device_login(
        new.user_code_hash,
        approve=approve,
        login_session_id=login.session.id,
        event=event(EventType.DEVICE_APPROVED if approve else EventType.DEVICE_DENIED),
    )
    return decided


async def poll(
    stores: Stores,
    new: NewDeviceLogin,
    *,
    access: Token | None = None,
    refresh: Token | None = None,
) -> Any:
    return await stores.devices.poll_device_login(
        new.device_code_hash,
        access=access or Token.new(TokenKind.ACCESS),
        refresh=refresh or Token.new(TokenKind.REFRESH),
        ip="192.0.2.8",
        user_agent="broker/1",
        event=event(EventType.LOGIN_SUCCEEDED),
        reuse_event=event(EventType.SESSION_REVOKED),
    )


async def approver(stores: Stores, name: str = "grace") -> Any:
    login = await stores.log_in(name)
    await stores.enrol(login)
    return login


async def test_an_approved_login_makes_a_device_session_of_the_browsers_login(
    stores: Stores,
) -> None:
    login, new = await approver(stores), await started(stores)
    found = await stores.devices.find_device_login(new.user_code_hash)
    assert (found.id, found.host_name, found.ip) == (new.id, "build-7", "192.0.2.8")
    assert found.expires_at - found.created_at == timedelta(minutes=10)
    assert await decide(stores, new, login)
    assert await stores.devices.find_device_login(new.user_code_hash) is None

    access, refresh = Token.new(TokenKind.ACCESS), Token.new(TokenKind.REFRESH)
    polled, session = await poll(stores, new, access=access, refresh=refresh)
    assert polled is Polled.OK
    assert (session.client, session.expires_at) == ("device", login.session.expires_at)
    seen = await stores.sessions.authenticate(access)
    assert seen.is_device
    assert seen.context.login_session_id == session.id
    assert seen.context.mfa_time is not None
    # Refreshing makes nothing more of it.
    renewed = Token.new(TokenKind.ACCESS)
    rotated, _ = await stores.rotate(refresh, Token.new(TokenKind.REFRESH), renewed)
    assert rotated is Refreshed.ROTATED
    assert (await stores.sessions.authenticate(renewed)).is_device

    approved, succeeded = (await stores.records())[-3:-1]
    machine = {"host_name": "build-7", "ip": "192.0.2.8", "user_agent": "broker/1"}
    assert (approved["type"], succeeded["type"]) == ("device.approved", "login.succeeded")
    for record, of in ((approved, login.session.id), (succeeded, session.id)):
        assert record["actor"]["id"] == login.principal.id
        assert record["subject"] == {
            "principal": login.principal.id,
            "login_session": of,
            "device_login": new.id,
        }
        assert record["detail"]["device"] == machine


async def test_a_factor_shown_after_approving_does_not_reach_the_machine(
    stores: Stores, ago: Any
) -> None:
    login, new = await approver(stores), await started(stores)
    then = ago(minutes=4)
    await stores.change(login_sessions, login_sessions.c.id == login.session.id, mfa_time=then)
    assert await decide(stores, new, login)
    await stores.change(login_sessions, mfa_time=ago(seconds=0))
    _, session = await poll(stores, new)
    assert session.mfa_time == then


async def test_a_user_code_is_used_once_at_a_time(stores: Stores) -> None:
    new = await started(stores)
    again = NewDeviceLogin("dl-2", b"2", new.user_code_hash, None, None, None)
    before = await stores.rows(device_logins)
    assert not await stores.devices.open_device_login(again)
    assert await stores.rows(device_logins) == before


async def test_a_poll_too_soon_slows_down_those_after_it(stores: Stores, ago: Any) -> None:
    new = await started(stores)
    pending, slow_down = (Polled.PENDING, None), (Polled.SLOW_DOWN, None)
    assert await poll(stores, new) == pending
    assert await poll(stores, new) == slow_down
    await stores.change(device_logins, polled_at=ago(seconds=6))  # under the ten of now
    assert await poll(stores, new) == slow_down
    await stores.change(device_logins, polled_at=ago(seconds=15))
    assert await poll(stores, new) == pending
    for _ in range(20):
        assert await poll(stores, new) == slow_down
    [row] = await stores.rows(device_logins)
    assert row["interval_seconds"] == 60


async def test_a_denied_login_stays_denied(stores: Stores) -> None:
    login, new = await approver(stores), await started(stores)
    assert await decide(stores, new, login, approve=False)
    assert not await decide(stores, new, login)
    for _ in range(2):
        assert await poll(stores, new) == (Polled.DENIED, None)
    record = (await stores.records())[-1]
    assert record["type"] == "device.denied"
    assert record["detail"]["device"]["host_name"] == "build-7"


@pytest.mark.parametrize("approved", [False, True])
async def test_it_lasts_ten_minutes_decided_or_not(
    stores: Stores, ago: Any, approved: bool
) -> None:
    login, new = await approver(stores), await started(stores)
    if approved:
        assert await decide(stores, new, login)
    await stores.change(device_logins, expires_at=ago(seconds=0))
    assert await stores.devices.find_device_login(new.user_code_hash) is None
    assert not await decide(stores, new, login)
    assert await poll(stores, new) == (Polled.EXPIRED, None)
    assert all(row["client"] == "browser" for row in await stores.rows(login_sessions))


async def test_showing_a_redeemed_code_again_ends_what_was_made_of_it(stores: Stores) -> None:
    login, new = await approver(stores), await started(stores)
    assert await decide(stores, new, login)
    access = Token.new(TokenKind.ACCESS)
    _, session = await poll(stores, new, access=access)
    assert await poll(stores, new) == (Polled.REUSED, None)
    assert not await stores.alive(access)
    record = (await stores.records())[-1]
    assert record["type"] == "session.revoked"
    assert record["subject"] == {"principal": login.principal.id, "login_session": session.id}
    records = await stores.records()
    assert await poll(stores, new) == (Polled.REFUSED, None)
    assert await stores.records() == records


async def test_who_can_not_decide_decides_nothing(stores: Stores, make_event: Any) -> None:
    new = await started(stores)
    pending = await stores.log_in("pending")
    assert not await decide(stores, new, pending)
    suspended = await approver(stores, "suspended")
    await stores.suspend(suspended.principal.id)
    assert not await decide(stores, new, suspended)
    over = await approver(stores, "over")
    await stores.sessions.end_login_session(over.session.id, make_event(EventType.SESSION_REVOKED))
    records = await stores.records()
    assert not await decide(stores, new, over)
    assert not await decide(stores, new, over, approve=False)
    assert await stores.records() == records
    assert await stores.devices.find_device_login(new.user_code_hash) is not None


@pytest.mark.parametrize("end", ["session", "person"])
async def test_an_approval_dies_with_the_session_or_the_person(
    stores: Stores, make_event: Any, end: str
) -> None:
    login, new = await approver(stores), await started(stores)
    assert await decide(stores, new, login)
    if end == "session":
        await stores.sessions.end_login_session(
            login.session.id, make_event(EventType.SESSION_REVOKED)
        )
    else:
        await stores.suspend(login.principal.id)
    assert await poll(stores, new) == (Polled.DENIED, None)


async def test_an_unknown_code_is_refused(stores: Stores) -> None:
    await started(stores)
    unknown = NewDeviceLogin("dl-x", b"unknown", b"unknown", None, None, None)
    assert await poll(stores, unknown) == (Polled.REFUSED, None)
    assert await stores.devices.find_device_login(b"unknown") is None
    assert not await decide(stores, unknown, await approver(stores))


async def test_one_of_several_browsers_decides(replicas: tuple[Stores, Stores]) -> None:
    logins = [await approver(replicas[0], name) for name in "abcd"]
    for _ in range(ROUNDS):
        new = await started(replicas[0])
        results = await both(
            replicas,
            lambda store, n, new=new: decide(store, new, logins[n], approve=n != 3),
        )
        assert Counter(results) == {True: 1, False: 3}
    types = await replicas[0].record_types()
    assert sum(type_.startswith("device.") for type_ in types) == ROUNDS


async def test_one_of_several_polls_redeems(replicas: tuple[Stores, Stores]) -> None:
    login = await approver(replicas[0])
    for _ in range(ROUNDS):
        new = await started(replicas[0])
        assert await decide(replicas[0], new, login)
        results = await both(replicas, lambda store, _, new=new: poll(store, new))
        # As with authorization codes: two parties hold it, so the winner's session is ended.
        assert Counter(polled for polled, _ in results) == {
            Polled.OK: 1,
            Polled.REUSED: 1,
            Polled.REFUSED: 2,
        }
    made = [row for row in await replicas[0].rows(login_sessions) if row["client"] == "device"]
    assert len(made) == ROUNDS
    assert all(row["revoked_at"] is not None for row in made)


async def test_polling_and_deciding_at_once_never_wait_in_a_circle(
    replicas: tuple[Stores, Stores],
) -> None:
    first, second = replicas
    logins = [await approver(first, name) for name in "ab"]
    for _ in range(ROUNDS):
        new = await started(first)
        results = await asyncio.gather(
            poll(first, new),
            decide(first, new, logins[0]),
            poll(second, new),
            decide(second, new, logins[1], approve=False),
            poll(second, new),
        )
        assert [results[1], results[3]].count(True) == 1
    await first.records()
