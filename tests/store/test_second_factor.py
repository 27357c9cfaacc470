"""The second factor: attempts, burned steps, enrolment, recovery, reset."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.store.schema import (
    enrolment_codes,
    factors,
    login_sessions,
    mfa_failures,
    recovery_codes,
)
from broker.audit.record import EventType
from broker.errors import NotFound
from broker.identity.login import LoggedIn
from broker.identity.sessions import Token, TokenKind
from broker.identity.totp import HARD_STOP_RETRY_AFTER, Burned
from tests.store.stores import Stores


class TestAttempts:
    async def test_they_are_counted_before_any_check(self, stores: Stores) -> None:
        login = await stores.log_in()
        counted = [await stores.factors.count_attempt(login.principal.id) for _ in range(5)]
        assert [attempt.failures for attempt in counted] == [1, 2, 3, 4, 5]
        assert {attempt.retry_after for attempt in counted} == {None}

    async def test_from_the_fifth_on_the_account_is_locked_and_that_is_not_counted(
        self, stores: Stores
    ) -> None:
        login = await stores.log_in()
        for _ in range(5):
            await stores.factors.count_attempt(login.principal.id)
        locked = await stores.factors.count_attempt(login.principal.id)
        assert (locked.failures, locked.retry_after) == (5, 1)
        [row] = await stores.rows(mfa_failures)
        assert row["failures"] == 5

    async def test_the_lock_lasts_as_the_backoff_says(self, stores: Stores, ago: Any) -> None:
        login = await stores.log_in()
        await stores.factors.count_attempt(login.principal.id)
        await stores.change(mfa_failures, failures=20, last_failure_at=ago(minutes=14))
        assert 50 <= (await stores.factors.count_attempt(login.principal.id)).retry_after <= 60
        await stores.change(mfa_failures, last_failure_at=ago(minutes=15, seconds=1))
        attempt = await stores.factors.count_attempt(login.principal.id)
        assert (attempt.failures, attempt.retry_after) == (21, None)

    async def test_after_the_hard_stop_only_a_reset_helps(
        self, stores: Stores, ago: Any, make_event: Any
    ) -> None:
        login = await stores.log_in()
        await stores.factors.count_attempt(login.principal.id)
        await stores.change(mfa_failures, failures=100, last_failure_at=ago(days=300))
        attempt = await stores.factors.count_attempt(login.principal.id)
        assert attempt.retry_after == HARD_STOP_RETRY_AFTER
        await stores.factors.reset_factors(login.principal.id, make_event(EventType.MFA_RESET))
        attempt = await stores.factors.count_attempt(login.principal.id)
        assert (attempt.failures, attempt.retry_after) == (1, None)

    async def test_nobody_has_no_attempts(self, stores: Stores) -> None:
        with pytest.raises(NotFound):
            await stores.factors.count_attempt("p-unknown")

    async def test_failures_and_locks_are_recorded_together(
        self, stores: Stores, make_event: Any
    ) -> None:
        failed, locked = make_event(EventType.MFA_FAILED), make_event(EventType.MFA_LOCKED)
        await stores.factors.record_failure(failed, locked=None)
        await stores.factors.record_failure(failed, locked=locked)
        assert await stores.record_types() == ["mfa.failed", "mfa.failed", "mfa.locked"]


class TestBurning:
    async def test_a_later_step_raises_the_session_and_forgets_failures(
        self, stores: Stores
    ) -> None:
        first = await stores.log_in()
        factor = await stores.enrol(first, step=100)
        cookie, raised = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
        login = await stores.log_in(cookie=cookie)
        await stores.factors.count_attempt(login.principal.id)
        burned = await stores.burn(factor, 101, login.session, replaces=cookie, cookie=raised)
        assert burned is Burned.ACCEPTED
        assert not await stores.alive(cookie)
        seen = await stores.sessions.authenticate(raised)
        assert seen.context.login_session_id == login.session.id
        assert seen.context.mfa_time is not None
        assert await stores.rows(mfa_failures) == []
        assert (await stores.factors.confirmed_factors(login.principal.id))[0].last_step == 101

    async def test_a_step_counts_once_and_no_earlier_one_after_it(self, stores: Stores) -> None:
        login = await stores.log_in()
        factor = await stores.enrol(login, step=100)
        assert await stores.burn(factor, 102, login.session) is Burned.ACCEPTED
        before = await stores.everything()
        for step in (102, 101, 100, 1):
            assert await stores.burn(factor, step, login.session) is Burned.REPLAYED
        assert await stores.everything() == before

    async def test_it_needs_a_live_session_of_the_factors_person(
        self, stores: Stores, ago: Any, make_event: Any
    ) -> None:
        grace, mallory = await stores.log_in(), await stores.log_in("mallory")
        factor = await stores.enrol(grace)
        ended = await stores.log_in()
        await stores.sessions.end_login_session(
            ended.session.id, make_event(EventType.SESSION_REVOKED)
        )
        expired = await stores.log_in()
        await stores.change(
            login_sessions,
            login_sessions.c.id == expired.session.id,
            expires_at=ago(seconds=0),
        )
        before = await stores.everything()
        for login in (mallory, ended, expired):
            assert await stores.burn(factor, 200, login.session) is Burned.GONE
        wrong_cookie = Token.new(TokenKind.BROWSER)
        burned = await stores.burn(factor, 200, grace.session, replaces=wrong_cookie)
        assert burned is Burned.GONE
        assert await stores.everything() == before

    async def test_a_pending_or_dropped_factor_opens_nothing(self, stores: Stores) -> None:
        login = await stores.log_in()
        pending = await stores.start_factor(login.principal.id)
        assert await stores.burn(pending, 200, login.session) is Burned.GONE
        await stores.start_factor(login.principal.id)
        assert await stores.burn(pending, 200, login.session) is Burned.GONE

    async def test_a_suspended_person_raises_no_session(self, stores: Stores) -> None:
        login = await stores.log_in()
        factor = await stores.enrol(login)
        await stores.suspend(login.principal.id)
        assert await stores.burn(factor, 200, login.session) is Burned.GONE


class TestEnrolling:
    async def test_a_pending_factor_is_the_only_one_and_for_ten_minutes(
        self, stores: Stores, ago: Any
    ) -> None:
        login = await stores.log_in()
        who = login.principal.id
        assert await stores.factors.pending_factor(who) is None
        await stores.start_factor(who)
        second = await stores.start_factor(who)
        assert await stores.factors.pending_factor(who) == second
        assert await stores.factors.confirmed_factors(who) == ()
        await stores.change(factors, created_at=ago(minutes=10))
        assert await stores.factors.pending_factor(who) is None

    async def test_nobody_has_no_factor(self, stores: Stores) -> None:
        with pytest.raises(NotFound):
            await stores.start_factor("p-unknown")

    async def test_confirming_makes_it_the_one_factor_with_new_recovery_codes(
        self, stores: Stores
    ) -> None:
        cookie, raised = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
        login = await stores.log_in(cookie=cookie)
        await stores.factors.count_attempt(login.principal.id)
        old = await stores.enrol(login, codes=(b"1", b"2"), replaces=cookie, cookie=raised)
        assert not await stores.alive(cookie)
        assert await stores.alive(raised)
        new = await stores.enrol(login, step=300, codes=(b"3",))
        [factor] = await stores.factors.confirmed_factors(login.principal.id)
        assert factor.id == new.id != old.id
        assert factor.last_step == 300
        assert factor.sealed_secret == new.sealed_secret
        assert [row["code_hash"] for row in await stores.rows(recovery_codes)] == [b"3"]
        assert await stores.rows(mfa_failures) == []
        assert await stores.burn(old, 400, login.session) is Burned.GONE

    async def test_a_factor_is_confirmed_once(self, stores: Stores) -> None:
        login = await stores.log_in()
        factor = await stores.enrol(login)
        assert await stores.confirm(factor, login, step=200) is Burned.GONE

    async def test_nobody_confirms_for_somebody_else(self, stores: Stores) -> None:
        grace, mallory = await stores.log_in(), await stores.log_in("mallory")
        factor = await stores.start_factor(grace.principal.id)
        assert await stores.confirm(factor, mallory) is Burned.GONE

    async def test_a_session_that_never_showed_the_factor_can_not_replace_it(
        self, stores: Stores
    ) -> None:
        """Its page was opened while there was none: another browser has enrolled since."""
        late = await stores.log_in()
        await stores.enrol(await stores.log_in())
        factor = await stores.start_factor(late.principal.id)
        before = await stores.everything()
        assert await stores.confirm(factor, late) is Burned.GONE
        assert await stores.everything() == before

    async def test_an_enrolment_code_is_spent_with_it(
        self, stores: Stores, code_hash: bytes
    ) -> None:
        login = await stores.log_in()
        await stores.invite(code_hash, principal_id=login.principal.id)
        assert await stores.factors.find_enrolment_code(code_hash, login.principal.id)
        await stores.enrol(login, enrolment_code=code_hash)
        assert await stores.rows(enrolment_codes) == []
        assert not await stores.factors.find_enrolment_code(code_hash, login.principal.id)

    async def test_without_its_code_nothing_is_confirmed(
        self, stores: Stores, code_hash: bytes
    ) -> None:
        login = await stores.log_in()
        factor = await stores.start_factor(login.principal.id)
        before = await stores.everything()
        assert await stores.confirm(factor, login, enrolment_code=code_hash) is Burned.GONE
        assert await stores.everything() == before


class TestEnrolmentCodes:
    async def test_one_lasts_a_day_for_its_person_alone(
        self, stores: Stores, code_hash: bytes, ago: Any
    ) -> None:
        grace, mallory = await stores.log_in(), await stores.log_in("mallory")
        expires_at = await stores.invite(code_hash, principal_id=grace.principal.id)
        assert abs(expires_at - ago(hours=-24)) < timedelta(minutes=1)
        assert not await stores.factors.find_enrolment_code(code_hash, mallory.principal.id)
        assert not await stores.factors.find_enrolment_code(code_hash, "p-unknown")
        assert not await stores.factors.find_enrolment_code(b"other", grace.principal.id)
        factor = await stores.start_factor(mallory.principal.id)
        assert await stores.confirm(factor, mallory, enrolment_code=code_hash) is Burned.GONE
        await stores.change(enrolment_codes, expires_at=ago(seconds=0))
        assert not await stores.factors.find_enrolment_code(code_hash, grace.principal.id)

    async def test_for_an_address_whose_person_comes_later(
        self, stores: Stores, code_hash: bytes
    ) -> None:
        await stores.invite(code_hash, provider="corp", email="Grace@example.com")
        unverified = await stores.log_in("mallory", email="grace@example.com", email_verified=False)
        other = await stores.log_in("eve", provider="other", email="grace@example.com")
        for login in (unverified, other):
            assert not await stores.factors.find_enrolment_code(code_hash, login.principal.id)
        grace = await stores.log_in()
        assert await stores.factors.find_enrolment_code(code_hash, grace.principal.id)

    async def test_a_new_one_voids_the_older_however_they_name_the_person(
        self, stores: Stores
    ) -> None:
        login = await stores.log_in()
        who = login.principal.id
        by_id = {"principal_id": who}
        by_email = {"provider": "corp", "email": "grace@example.com"}
        await stores.invite(b"unrelated", provider="corp", email="ada@example.com")
        order = (by_id, by_id, by_email, by_email, by_id)
        for number, target in enumerate(order):
            await stores.invite(bytes([number]), **target)
            live = [
                n for n in range(10) if await stores.factors.find_enrolment_code(bytes([n]), who)
            ]
            assert live == [number]
        assert len(await stores.rows(enrolment_codes)) == 2

    async def test_it_is_for_one_person(self, stores: Stores, code_hash: bytes) -> None:
        before = await stores.everything()
        with pytest.raises(NotFound):
            await stores.invite(code_hash, principal_id="p-unknown")
        with pytest.raises(ValueError, match="for a principal, or"):
            await stores.invite(code_hash)
        with pytest.raises(ValueError, match="for a principal, or"):
            await stores.invite(code_hash, provider="corp")
        with pytest.raises(ValueError, match="for a principal, or"):
            await stores.invite(code_hash, principal_id="p-x", provider="corp", email="a@b")
        assert await stores.everything() == before


class TestRecovery:
    async def spend(
        self, stores: Stores, make_event: Any, login: LoggedIn, code_hash: bytes
    ) -> bool:
        spent: bool = await stores.factors.spend_recovery_code(
            login.principal.id, code_hash, login.session.id, make_event(EventType.MFA_VERIFIED)
        )
        return spent

    async def test_a_code_opens_enrolment_and_nothing_else(
        self, stores: Stores, make_event: Any
    ) -> None:
        await stores.enrol(await stores.log_in(), codes=(b"1", b"2"))
        cookie = Token.new(TokenKind.BROWSER)
        login = await stores.log_in(cookie=cookie)
        await stores.factors.count_attempt(login.principal.id)
        assert await self.spend(stores, make_event, login, b"1")
        seen = await stores.sessions.authenticate(cookie)
        assert seen.context.mfa_time is None
        assert timedelta(minutes=9) < seen.may_enrol_until - seen.now <= timedelta(minutes=10)
        assert len(await stores.rows(mfa_failures)) == 1
        await stores.enrol(login, step=500)
        seen = await stores.sessions.authenticate(cookie)
        assert seen.context.mfa_time is not None
        assert seen.may_enrol_until is None

    async def test_a_code_is_good_once_for_its_person_in_their_session(
        self, stores: Stores, make_event: Any
    ) -> None:
        grace, mallory = await stores.log_in(), await stores.log_in("mallory")
        await stores.enrol(grace, codes=(b"1", b"2"))
        assert await self.spend(stores, make_event, grace, b"1")
        before = await stores.everything()
        assert not await self.spend(stores, make_event, grace, b"1")
        assert not await self.spend(stores, make_event, mallory, b"2")
        for principal, session in ((grace, mallory), (mallory, grace)):
            assert not await stores.factors.spend_recovery_code(
                principal.principal.id,
                b"2",
                session.session.id,
                make_event(EventType.MFA_VERIFIED),
            )
        assert await stores.everything() == before


async def test_a_reset_leaves_the_person_with_no_factor_and_no_session(
    stores: Stores, make_event: Any
) -> None:
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    access, _, _ = await stores.cli(login)
    await stores.enrol(login, codes=(b"1",))
    await stores.start_factor(login.principal.id)
    await stores.factors.count_attempt(login.principal.id)
    other = Token.new(TokenKind.BROWSER)
    await stores.log_in("ada", cookie=other)
    reset = make_event(EventType.MFA_RESET)
    assert await stores.factors.reset_factors(login.principal.id, reset)
    assert not await stores.alive(cookie)
    assert not await stores.alive(access)
    assert await stores.alive(other)
    for table in (factors, recovery_codes, mfa_failures):
        assert await stores.rows(table) == []
    assert not await stores.factors.reset_factors("p-unknown", reset)
    assert (await stores.record_types()).count("mfa.reset") == 1
