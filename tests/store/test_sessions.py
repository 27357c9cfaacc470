"""Login sessions and their tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.adapters.store.line import Line
from broker.adapters.store.schema import login_sessions, principals, tokens
from broker.adapters.store.sqlite_line import SqliteLine
from broker.audit.record import EventType
from broker.errors import AuditUnavailable, Suspended
from broker.identity.sessions import Refreshed, Token, TokenKind
from tests.store.stores import Stores


async def test_a_cookie_authenticates_who_logged_in(stores: Stores) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie, claims={"team": "blue"})
    await stores.apply()
    seen = await stores.sessions.authenticate(cookie)
    assert seen.context.principal == login.principal
    assert seen.context.principal.groups == {"corp/sre"}
    assert seen.context.principal.claims == {"team": "blue"}
    assert seen.context.login_session_id == login.session.id
    assert seen.context.mfa_time is None
    assert seen.context.methods == {"fed"}
    assert seen.context.login_session_expires_at == login.session.expires_at
    assert (seen.token_kind, seen.token_hash, seen.role) == (
        TokenKind.BROWSER,
        cookie.hash,
        None,
    )
    assert not seen.has_confirmed_factor
    assert not seen.pinned_admin
    assert seen.access_version == 1
    assert seen.context.auth_time <= seen.now


async def test_the_second_factor_and_bound_names_show_at_once(stores: Stores) -> None:
    await stores.apply("corp/grace@example.com")
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    await stores.enrol(login)
    seen = await stores.sessions.authenticate(cookie)
    assert seen.has_confirmed_factor
    assert seen.context.mfa_time is not None
    assert seen.context.methods == {"fed", "otp", "mfa"}
    assert seen.context.principal.user_names == {"corp/grace@example.com"}


async def test_what_is_no_live_token_authenticates_nobody(stores: Stores, ago: Any) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    access, refresh, _ = await stores.cli(login)
    assert await stores.alive(access)
    assert not await stores.alive(Token.new(TokenKind.ACCESS))
    assert not await stores.alive(refresh)
    assert not await stores.alive(Token(TokenKind.ACCESS, cookie.text))
    await stores.change(tokens, tokens.c.hash == access.hash, expires_at=ago(seconds=0))
    assert not await stores.alive(access)
    await stores.change(
        login_sessions, login_sessions.c.id == login.session.id, expires_at=ago(seconds=0)
    )
    assert not await stores.alive(cookie)


async def test_a_suspended_person_is_told_so_and_only_where_nothing_else_is_wrong(
    stores: Stores, ago: Any
) -> None:
    cookie, other = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    await stores.log_in(cookie=other)
    await stores.suspend(login.principal.id)
    with pytest.raises(Suspended):
        await stores.sessions.authenticate(cookie)
    await stores.change(tokens, tokens.c.hash == other.hash, expires_at=ago(seconds=0))
    assert await stores.sessions.authenticate(other) is None


async def test_of_many_who_ask_at_once_each_hears_of_themselves(stores: Stores, ago: Any) -> None:
    """They may share a query."""
    logins = {Token.new(TokenKind.BROWSER): f"person{n}" for n in range(40)}
    for cookie, name in logins.items():
        await stores.log_in(name, cookie=cookie)
    suspended, expired = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
    await stores.suspend((await stores.log_in("mallory", cookie=suspended)).principal.id)
    await stores.log_in(cookie=expired)
    await stores.change(tokens, tokens.c.hash == expired.hash, expires_at=ago(seconds=0))
    nobodies = [expired, Token.new(TokenKind.BROWSER), Token(TokenKind.ACCESS, expired.text)]
    everybody = [*logins, suspended, *nobodies, *logins]
    seen = await asyncio.gather(
        *(stores.sessions.authenticate(token) for token in everybody), return_exceptions=True
    )
    told: dict[Token, Any] = dict(zip(everybody, seen, strict=True))
    assert [told[one].context.principal.subject for one in logins] == list(logins.values())
    assert isinstance(told[suspended], Suspended)
    assert [told[one] for one in nobodies] == [None, None, None]


async def test_while_the_database_is_out_each_hears_of_it_and_later_callers_are_served(
    stores: Stores, monkeypatch: Any
) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    await stores.log_in(cookie=cookie)
    with monkeypatch.context() as outage:
        outage.setattr(Line, "driver", _out)
        outage.setattr(SqliteLine, "run", _out)
        asked = [stores.sessions.authenticate(cookie) for _ in range(5)]
        seen = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in seen] == [AuditUnavailable] * 5
    assert len(set(map(id, seen))) == 5
    assert await stores.alive(cookie)


def _out(*_: object) -> None:
    raise AuditUnavailable(log_detail="out")


async def test_an_access_token_lives_15_minutes_and_not_past_its_session(
    stores: Stores, ago: Any
) -> None:
    login = await stores.log_in()
    access, _, session = await stores.cli(login)
    [row] = [row for row in await stores.rows(tokens) if row["hash"] == access.hash]
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 15 * 60
    assert session.expires_at == login.session.expires_at
    soon = ago(minutes=-5)
    await stores.change(login_sessions, login_sessions.c.id == login.session.id, expires_at=soon)
    late, _, session = await stores.cli(login)
    [row] = [row for row in await stores.rows(tokens) if row["hash"] == late.hash]
    assert row["expires_at"] == session.expires_at == soon


async def test_an_ended_session_ends_its_tokens_once(stores: Stores, make_event: Any) -> None:
    login = await stores.log_in()
    access, refresh, session = await stores.cli(login)
    ended = make_event(EventType.SESSION_REVOKED, reason="signed_out")
    assert await stores.sessions.end_login_session(session.id, ended)
    assert not await stores.alive(access)
    assert await stores.rotate(refresh, Token.new(TokenKind.REFRESH)) == (Refreshed.REFUSED, None)
    assert not await stores.sessions.end_login_session(session.id, ended)
    assert not await stores.sessions.end_login_session("ls-unknown", ended)
    revoked = [r for r in await stores.records() if r["type"] == "session.revoked"]
    assert len(revoked) == 1
    assert revoked[0]["subject"] == {
        "principal": login.principal.id,
        "login_session": session.id,
    }
    assert revoked[0]["actor"]["id"] == login.principal.id
    assert revoked[0]["actor"]["ip"] == "192.0.2.7"


class TestRefresh:
    async def test_rotation_gives_a_working_pair(self, stores: Stores) -> None:
        _, refresh, session = await stores.cli(await stores.log_in())
        new, access = Token.new(TokenKind.REFRESH), Token.new(TokenKind.ACCESS)
        assert await stores.rotate(refresh, new, access) == (Refreshed.ROTATED, session)
        assert await stores.alive(access)
        assert (await stores.rotate(new, Token.new(TokenKind.REFRESH)))[0] is Refreshed.ROTATED

    async def test_a_lost_reply_may_be_asked_for_again(self, stores: Stores) -> None:
        _, first, _ = await stores.cli(await stores.log_in())
        lost, second = Token.new(TokenKind.REFRESH), Token.new(TokenKind.REFRESH)
        assert (await stores.rotate(first, lost))[0] is Refreshed.ROTATED
        assert (await stores.rotate(first, second))[0] is Refreshed.ROTATED
        assert (await stores.rotate(second, Token.new(TokenKind.REFRESH)))[0] is Refreshed.ROTATED

    async def test_who_caught_the_lost_reply_ends_the_family(self, stores: Stores) -> None:
        access, first, _ = await stores.cli(await stores.log_in())
        caught, second = Token.new(TokenKind.REFRESH), Token.new(TokenKind.REFRESH)
        await stores.rotate(first, caught)
        await stores.rotate(first, second)
        assert (await stores.rotate(caught, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REUSED
        assert not await stores.alive(access)
        assert (await stores.rotate(second, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REFUSED

    async def test_once_the_successor_was_used_the_old_token_ends_the_family(
        self, stores: Stores
    ) -> None:
        login = await stores.log_in()
        access, first, session = await stores.cli(login)
        second, third = Token.new(TokenKind.REFRESH), Token.new(TokenKind.REFRESH)
        await stores.rotate(first, second)
        await stores.rotate(second, third)
        stolen = await stores.rotate(first, Token.new(TokenKind.REFRESH))
        assert stolen == (Refreshed.REUSED, None)
        assert (await stores.rotate(third, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REFUSED
        assert not await stores.alive(access)
        last = (await stores.records())[-1]
        assert last["type"] == "session.revoked"
        assert last["subject"] == {"principal": login.principal.id, "login_session": session.id}

    async def test_after_the_grace_the_old_token_ends_the_family(
        self, stores: Stores, ago: Any
    ) -> None:
        access, first, _ = await stores.cli(await stores.log_in())
        second = Token.new(TokenKind.REFRESH)
        await stores.rotate(first, second)
        [row] = [row for row in await stores.rows(tokens) if row["hash"] == first.hash]
        assert (row["grace_until"] - row["retired_at"]).total_seconds() == 60
        await stores.change(tokens, tokens.c.hash == first.hash, grace_until=ago(seconds=0))
        assert (await stores.rotate(first, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REUSED
        assert not await stores.alive(access)

    async def test_what_is_no_live_refresh_token_is_refused(self, stores: Stores, ago: Any) -> None:
        login = await stores.log_in()
        access, refresh, _ = await stores.cli(login)
        before = await stores.everything()
        new = Token.new(TokenKind.REFRESH)
        assert (await stores.rotate(access, new))[0] is Refreshed.REFUSED
        assert (await stores.rotate(Token.new(TokenKind.REFRESH), new))[0] is Refreshed.REFUSED
        assert await stores.everything() == before
        await stores.suspend(login.principal.id)
        assert (await stores.rotate(refresh, new))[0] is Refreshed.REFUSED
        await stores.change(principals, principals.c.id == login.principal.id, suspended_at=None)
        await stores.change(tokens, tokens.c.hash == refresh.hash, expires_at=ago(seconds=0))
        assert (await stores.rotate(refresh, new))[0] is Refreshed.REFUSED

    async def test_the_session_never_grows_longer(self, stores: Stores) -> None:
        _, refresh, session = await stores.cli(await stores.log_in())
        new = Token.new(TokenKind.REFRESH)
        _, rotated = await stores.rotate(refresh, new)
        assert rotated.expires_at == session.expires_at
        [row] = [row for row in await stores.rows(tokens) if row["hash"] == new.hash]
        assert row["expires_at"] == session.expires_at


class TestRevoking:
    async def test_an_access_token_ends_itself_alone(self, stores: Stores, make_event: Any) -> None:
        access, refresh, _ = await stores.cli(await stores.log_in())
        await stores.sessions.revoke_token(access, make_event(EventType.SESSION_REVOKED))
        assert not await stores.alive(access)
        assert (await stores.rotate(refresh, Token.new(TokenKind.REFRESH)))[0] is Refreshed.ROTATED

    async def test_a_refresh_token_ends_the_session_also_when_rotated_out(
        self, stores: Stores, make_event: Any
    ) -> None:
        login = await stores.log_in()
        for rotated_out in (False, True):
            access, refresh, _ = await stores.cli(login)
            if rotated_out:
                await stores.rotate(refresh, Token.new(TokenKind.REFRESH))
            await stores.sessions.revoke_token(refresh, make_event(EventType.SESSION_REVOKED))
            assert not await stores.alive(access)

    async def test_an_unknown_or_ended_one_changes_and_records_nothing(
        self, stores: Stores, make_event: Any
    ) -> None:
        login = await stores.log_in()
        access, refresh, session = await stores.cli(login)
        revoked = make_event(EventType.SESSION_REVOKED)
        await stores.sessions.end_login_session(session.id, revoked)
        before = await stores.everything()
        for token in (access, refresh, Token.new(TokenKind.REFRESH)):
            await stores.sessions.revoke_token(token, revoked)
        assert await stores.everything() == before
