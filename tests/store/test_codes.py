"""OAuth authorization codes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.store.schema import login_sessions, oauth_codes
from broker.audit.record import EventType
from broker.identity.oauth import Redeemed
from broker.identity.sessions import Token, TokenKind
from tests.store.stores import Stores


async def test_a_code_makes_a_cli_session_of_the_browsers_login(stores: Stores) -> None:
    login = await stores.log_in()
    await stores.enrol(login)
    access = Token.new(TokenKind.ACCESS)
    redeemed, session = await stores.redeem(await stores.code(login), access=access)
    assert redeemed is Redeemed.OK
    seen = await stores.sessions.authenticate(access)
    assert seen.context.login_session_id == session.id != login.session.id
    assert seen.context.mfa_time is not None
    assert (session.client, session.user_agent, session.ip) == ("cli", "cli", "192.0.2.8")
    assert session.auth_time == login.session.auth_time
    assert session.expires_at == login.session.expires_at
    record = (await stores.records())[-1]
    assert record["type"] == "login.succeeded"
    assert record["actor"]["id"] == login.principal.id
    assert record["actor"]["handle"] == "grace@example.com"
    assert record["subject"] == {"principal": login.principal.id, "login_session": session.id}


async def test_it_lasts_a_minute(stores: Stores, ago: Any) -> None:
    code = await stores.code(await stores.log_in())
    [row] = await stores.rows(oauth_codes)
    assert row["expires_at"] - row["created_at"] == timedelta(seconds=60)
    await stores.change(oauth_codes, expires_at=ago(seconds=0))
    assert await stores.redeem(code) == (Redeemed.REFUSED, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "other"},
        {"redirect_uri": "http://127.0.0.1:2/callback"},
        {"code_challenge": "D" * 43},
        {"code_challenge": "\udcff"},
    ],
)
async def test_a_stolen_code_is_no_good_and_spent_by_the_attempt(
    stores: Stores, wrong: Any
) -> None:
    code = await stores.code(await stores.log_in())
    records = await stores.records()
    assert await stores.redeem(code, **wrong) == (Redeemed.REFUSED, None)
    assert await stores.redeem(code) == (Redeemed.REFUSED, None)
    assert len(await stores.rows(login_sessions)) == 1
    assert await stores.records() == records


async def test_showing_it_again_ends_what_was_made_of_it(stores: Stores) -> None:
    login = await stores.log_in()
    code, access = await stores.code(login), Token.new(TokenKind.ACCESS)
    _, session = await stores.redeem(code, access=access)
    assert await stores.redeem(code, code_challenge="D" * 43) == (Redeemed.REUSED, None)
    assert not await stores.alive(access)
    record = (await stores.records())[-1]
    assert record["type"] == "session.revoked"
    assert record["subject"] == {"principal": login.principal.id, "login_session": session.id}
    records = await stores.records()
    assert await stores.redeem(code) == (Redeemed.REFUSED, None)
    assert await stores.records() == records


async def test_it_dies_with_its_browser_session(stores: Stores, make_event: Any) -> None:
    login = await stores.log_in()
    code = await stores.code(login)
    await stores.sessions.end_login_session(login.session.id, make_event(EventType.SESSION_REVOKED))
    assert await stores.redeem(code) == (Redeemed.REFUSED, None)


async def test_a_suspended_person_redeems_nothing(stores: Stores) -> None:
    login = await stores.log_in()
    code = await stores.code(login)
    await stores.suspend(login.principal.id)
    assert await stores.redeem(code) == (Redeemed.REFUSED, None)


async def test_an_unknown_one_is_refused(stores: Stores) -> None:
    assert await stores.redeem(b"unknown") == (Redeemed.REFUSED, None)
