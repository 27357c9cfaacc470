"""Signing in: who it is, what they are called by the policy, and the first admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.store.schema import login_attempts, login_sessions, principals
from broker.audit.record import EventType
from broker.errors import Suspended
from broker.identity.login import BootstrapAdmin
from broker.identity.sessions import Token, TokenKind
from tests.store.stores import Stores

BY_SUBJECT = (BootstrapAdmin(issuer="https://id.example.com", subject="grace"),)
BY_EMAIL = (BootstrapAdmin(provider="corp", email="Grace@example.com"),)


async def test_an_attempt_is_taken_once_and_in_time(stores: Stores, ago: Any) -> None:
    await stores.logins.open_login_attempt(b"1" * 32, "corp", "/device")
    attempt = await stores.logins.take_login_attempt(b"1" * 32)
    assert (attempt.provider, attempt.next_path) == ("corp", "/device")
    assert await stores.logins.take_login_attempt(b"1" * 32) is None
    assert await stores.logins.take_login_attempt(b"2" * 32) is None
    await stores.logins.open_login_attempt(b"3" * 32, "corp", "/")
    [row] = await stores.rows(login_attempts)
    assert row["expires_at"] - ago() > timedelta(minutes=9)
    await stores.change(login_attempts, expires_at=ago(seconds=0))
    assert await stores.logins.take_login_attempt(b"3" * 32) is None


async def test_a_person_is_issuer_and_subject_and_never_their_address(stores: Stores) -> None:
    first = await stores.log_in("grace")
    again = await stores.log_in("grace", email="new@example.com", handle="new")
    other = await stores.log_in("mallory", email="new@example.com")
    elsewhere = await stores.log_in("grace", issuer="https://other.example.com")
    assert again.principal.id == first.principal.id
    assert again.principal.handle == "new"
    assert len({first.principal.id, other.principal.id, elsewhere.principal.id}) == 3


async def test_groups_are_those_of_this_login_and_never_older_ones(stores: Stores) -> None:
    await stores.log_in(groups=frozenset({"corp/sre", "corp/admins"}))
    login = await stores.log_in(groups=frozenset())
    assert login.principal.groups == frozenset()
    assert (await stores.people.principal(login.principal.id)).groups == frozenset()


async def test_a_login_opens_a_12_hour_session_with_the_factor_pending(
    stores: Stores, ago: Any
) -> None:
    hours_ago = ago(hours=5)
    login = await stores.log_in(auth_time=hours_ago)
    session = login.session
    assert session.client == "browser"
    assert session.mfa_time is None
    assert session.may_enrol_until is None
    assert session.auth_time == hours_ago
    assert session.expires_at - session.created_at == timedelta(hours=12)
    assert not login.has_confirmed_factor
    await stores.enrol(login)
    assert (await stores.log_in()).has_confirmed_factor


async def test_a_providers_fast_clock_makes_no_future_login(stores: Stores, ago: Any) -> None:
    login = await stores.log_in(auth_time=ago(hours=-1))
    assert login.session.auth_time == login.session.created_at


async def test_the_browsers_former_session_ends_whosever_it_was(stores: Stores) -> None:
    planted = Token.new(TokenKind.BROWSER)
    former = await stores.log_in("mallory", cookie=planted)
    await stores.log_in("grace", replaces=planted)
    assert not await stores.alive(planted)
    assert (await stores.records())[-1]["detail"]["login_sessions_ended"] == [former.session.id]


async def test_the_record_tells_who_from_where_with_which_groups(stores: Stores) -> None:
    login = await stores.log_in()
    [record] = await stores.records()
    assert record["type"] == "login.succeeded"
    assert record["actor"] == {
        "id": login.principal.id,
        "kind": "person",
        "handle": "grace@example.com",
        "ip": "192.0.2.7",
        "user_agent": "test",
    }
    assert record["subject"] == {
        "principal": login.principal.id,
        "login_session": login.session.id,
        "provider": "corp",
    }
    assert record["detail"]["groups"] == ["corp/sre"]
    assert record["detail"]["first_login"] is True
    assert record["request_id"] == "r-1"


async def test_what_a_browser_sends_of_itself_can_not_stop_its_login(stores: Stores) -> None:
    odd = "odd\x00\ud800@example.com"
    login = await stores.log_in(
        "odd", handle=odd, email=odd, claims={"team": odd}, user_agent="\x00\ud800" + "x" * 9999
    )
    assert login.session.user_agent.startswith("\ufffd\ufffdxxx")
    assert len(login.session.user_agent) <= 512


async def test_a_suspended_person_gets_nothing_but_a_record(stores: Stores) -> None:
    login = await stores.log_in()
    await stores.suspend(login.principal.id)
    before = await stores.everything()
    cookie = Token.new(TokenKind.BROWSER)
    with pytest.raises(Suspended):
        await stores.log_in(cookie=cookie, bootstrap=BY_SUBJECT, groups=frozenset({"corp/new"}))
    after = await stores.everything()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"audit_records", "audit_head"}
    record = (await stores.records())[-1]
    assert (record["type"], record["outcome"]) == ("login.failed", "denied")
    assert record["detail"] == {"reason": "suspended"}
    assert record["subject"]["principal"] == login.principal.id


async def test_a_failure_is_recorded(stores: Stores, make_event: Any) -> None:
    await stores.logins.record_login_failure(make_event(EventType.LOGIN_FAILED, reason="x"))
    assert await stores.record_types() == ["login.failed"]


class TestFirstAdmin:
    async def test_by_issuer_and_subject(self, stores: Stores) -> None:
        assert not await stores.people.has_admin()
        login = await stores.log_in(bootstrap=BY_SUBJECT)
        assert login.bootstrapped
        assert await stores.people.has_admin()
        assert await stores.people.is_pinned_admin(login.principal.id)
        assert await stores.record_types() == ["login.succeeded", "admin.bootstrapped"]
        assert not (await stores.log_in(bootstrap=BY_SUBJECT)).bootstrapped
        assert (await stores.record_types())[2:] == ["login.succeeded"]

    async def test_by_verified_address_while_there_is_none(self, stores: Stores) -> None:
        assert not (await stores.log_in(email_verified=False, bootstrap=BY_EMAIL)).bootstrapped
        assert not (await stores.log_in(provider="other", bootstrap=BY_EMAIL)).bootstrapped
        assert not (await stores.log_in(email=None, bootstrap=BY_EMAIL)).bootstrapped
        assert (await stores.log_in(bootstrap=BY_EMAIL)).bootstrapped

    async def test_an_address_pins_nobody_once_there_is_an_admin(self, stores: Stores) -> None:
        await stores.log_in(bootstrap=BY_EMAIL)
        heir = await stores.log_in("heir", email="grace@example.com", bootstrap=BY_EMAIL)
        assert not heir.bootstrapped
        assert not await stores.people.is_pinned_admin(heir.principal.id)

    async def test_another_subject_named_in_the_settings_is_pinned_too(
        self, stores: Stores
    ) -> None:
        await stores.log_in(
            "ada", bootstrap=(BootstrapAdmin(provider="corp", email="ada@example.com"),)
        )
        assert (await stores.log_in(bootstrap=BY_SUBJECT)).bootstrapped

    async def test_nobody_else_becomes_one(self, stores: Stores) -> None:
        login = await stores.log_in("mallory", bootstrap=(*BY_SUBJECT, *BY_EMAIL))
        assert not login.bootstrapped
        assert not await stores.people.has_admin()

    async def test_a_lookalike_address_is_not_the_address(self, stores: Stores) -> None:
        # The Kelvin sign lowers to `k` in Unicode.
        kelvin = (BootstrapAdmin(provider="corp", email="kim@example.com"),)
        login = await stores.log_in("kim", email="\u212aim@example.com", bootstrap=kelvin)
        assert not login.bootstrapped


class TestNames:
    async def test_a_person_seen_before_is_bound_at_apply(self, stores: Stores) -> None:
        login = await stores.log_in()
        await stores.apply("corp/Grace@Example.com", "corp/ada@example.com")
        person = await stores.people.principal(login.principal.id)
        assert person.user_names == {"corp/Grace@Example.com"}
        assert await stores.access.pending_user_names() == {"corp/ada@example.com"}

    async def test_a_person_never_seen_is_bound_at_the_first_login(self, stores: Stores) -> None:
        await stores.apply("corp/grace@example.com")
        assert (await stores.log_in(email_verified=False)).principal.user_names == frozenset()
        assert (await stores.log_in(provider="other")).principal.user_names == frozenset()
        login = await stores.log_in()
        assert login.principal.user_names == {"corp/grace@example.com"}
        assert (await stores.records())[-1]["detail"]["user_names_bound"] == [
            "corp/grace@example.com"
        ]
        assert await stores.access.pending_user_names() == frozenset()

    async def test_a_binding_never_moves_to_who_has_the_address_later(self, stores: Stores) -> None:
        await stores.apply("corp/grace@example.com")
        login = await stores.log_in()
        heir = await stores.log_in("heir", email="grace@example.com")
        assert heir.principal.user_names == frozenset()
        await stores.apply(expected=1)
        await stores.apply("corp/grace@example.com", expected=2)
        assert (await stores.log_in("heir", email="grace@example.com")).principal.user_names == (
            frozenset()
        )
        assert (await stores.people.principal(login.principal.id)).user_names == {
            "corp/grace@example.com"
        }

    async def test_an_address_that_was_passed_on_waits_for_a_login(self, stores: Stores) -> None:
        await stores.log_in()
        await stores.log_in("heir", email="grace@example.com")
        await stores.apply("corp/grace@example.com")
        assert await stores.access.pending_user_names() == {"corp/grace@example.com"}
        heir = await stores.log_in("heir", email="grace@example.com")
        assert heir.principal.user_names == {"corp/grace@example.com"}

    async def test_a_name_taken_out_before_it_was_bound_binds_nobody(self, stores: Stores) -> None:
        await stores.apply("corp/grace@example.com")
        await stores.apply(expected=1)
        assert (await stores.log_in()).principal.user_names == frozenset()

    async def test_a_principal_id_needs_no_binding(self, stores: Stores) -> None:
        await stores.apply("p-aaaaaaaaaaaaaaaa")
        assert await stores.access.pending_user_names() == frozenset()


class TestPeople:
    async def test_looking_up(self, stores: Stores) -> None:
        login = await stores.log_in()
        people, person = stores.people, login.principal
        assert await people.principal(person.id) == person
        assert await people.find_by_subject("https://id.example.com", "grace") == person
        assert await people.find_by_email("corp", "GRACE@example.com") == person
        assert await people.principal("p-unknown") is None
        assert await people.find_by_subject("https://id.example.com", "ada") is None
        assert await people.find_by_email("other", "grace@example.com") is None

    async def test_an_unverified_address_finds_nobody(self, stores: Stores) -> None:
        await stores.log_in(email_verified=False)
        assert await stores.people.find_by_email("corp", "grace@example.com") is None

    async def test_the_suspension_shows(self, stores: Stores) -> None:
        login = await stores.log_in()
        await stores.suspend(login.principal.id)
        [row] = await stores.rows(principals)
        person = await stores.people.principal(login.principal.id)
        assert person.suspended_at == row["suspended_at"]

    async def test_the_newest_login_is_the_live_one_with_the_newest_factor(
        self, stores: Stores, ago: Any
    ) -> None:
        first = await stores.log_in()
        person = first.principal.id
        assert (await stores.people.newest_login(person)) == first.session
        await stores.enrol(first)
        later = await stores.log_in()  # its factor is pending
        newest = await stores.people.newest_login(person)
        assert newest.id == first.session.id
        assert newest.mfa_time is not None
        ended = login_sessions.c.id == first.session.id
        await stores.change(login_sessions, ended, expires_at=ago(seconds=0))
        assert (await stores.people.newest_login(person)).id == later.session.id
        revoked = login_sessions.c.id == later.session.id
        await stores.change(login_sessions, revoked, revoked_at=ago(seconds=0))
        assert await stores.people.newest_login(person) is None
        assert await stores.people.newest_login("p-unknown") is None
