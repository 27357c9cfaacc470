from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from broker.adapters.sealing import UnsealFailed
from broker.audit.record import EventType, Outcome
from broker.errors import (
    Conflict,
    InvalidRequest,
    MfaLocked,
    MfaRequired,
    MfaStale,
    Unauthenticated,
)
from broker.identity.second_factor import WrongCode
from broker.identity.sessions import Token, TokenKind
from broker.identity.totp import Enrolment
from broker.identity.typed_codes import new_enrolment_code


def code_for(world: Any, secret: str, offset: int = 0) -> str:
    return pyotp.TOTP(secret).at(world.store.now, counter_offset=offset)


async def verify(world: Any, code: str, **changes: Any) -> None:
    arguments = {"actor": world.actor, "request_id": "r1", "replaces": None, "cookie": None}
    await world.second_factor().verify(world.who(), code, **(arguments | changes))


async def confirm(
    world: Any,
    code: str,
    enrolment_code: str | None = None,
    *,
    enrolment: Enrolment = Enrolment.INVITED,
    **changes: Any,
) -> Any:
    session = changes.pop("session", "ls-1")
    arguments = {
        "is_admin": False,
        "actor": world.actor,
        "request_id": "r1",
        "replaces": None,
        "cookie": None,
    }
    return await world.second_factor(enrolment).confirm_enrolment(
        world.who(session), code, enrolment_code, **(arguments | changes)
    )


@pytest.fixture
async def enrolled(world):
    """A person with a confirmed factor, a minute later; the secret and the recovery codes."""
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    codes = await confirm(world, code_for(world, enrolling.secret), text)
    world.store.now += timedelta(minutes=1)
    world.store.events.clear()
    return enrolling.secret, codes


async def test_a_right_code_raises_the_session_and_swaps_the_cookie(world, enrolled):
    cookie = Token.new(TokenKind.BROWSER)
    await verify(world, code_for(world, enrolled[0]), cookie=cookie)
    assert world.store.cookie is cookie
    (event,) = world.store.events
    assert event.type is EventType.MFA_VERIFIED
    assert event.subject == {"principal": "p-aaaaaaaaaaaaaaaa", "login_session": "ls-1"}


async def test_a_code_works_once(world, enrolled):
    code = code_for(world, enrolled[0])
    await verify(world, code)
    with pytest.raises(WrongCode):
        await verify(world, code)


async def test_the_code_that_confirmed_the_factor_does_not_verify(world):
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    code = code_for(world, enrolling.secret)
    await confirm(world, code, text)
    with pytest.raises(WrongCode):
        await verify(world, code)


@pytest.mark.parametrize(
    "wrong", ["000000", "", "12345", "\uff11\uff12\uff13\uff14\uff15\uff16", "abcdef"]
)
async def test_a_wrong_code_is_counted_and_recorded_without_the_code(world, enrolled, wrong):
    with pytest.raises(WrongCode) as refusal:
        await verify(world, wrong)
    assert refusal.value.code == "invalid_request"
    assert world.store.failures == 1
    (event,) = world.store.events
    assert (event.type, event.outcome) == (EventType.MFA_FAILED, Outcome.FAILURE)
    assert event.detail == {"reason": "wrong_code", "failures": 1}


async def test_the_fifth_wrong_code_locks_and_then_the_right_one_is_not_looked_at(world, enrolled):
    for _ in range(5):
        with pytest.raises(WrongCode):
            await verify(world, "000000")
    assert [e.type for e in world.store.events[-2:]] == [EventType.MFA_FAILED, EventType.MFA_LOCKED]
    right = code_for(world, enrolled[0])
    answers = []
    for code in (right, "000000"):
        with pytest.raises(MfaLocked) as locked:
            await verify(world, code)
        answers.append((locked.value.detail, locked.value.extra))
    assert answers[0] == answers[1] == (MfaLocked.message, {"retry_after": 1})
    assert world.store.failures == 5
    world.store.now += timedelta(seconds=1)
    await verify(world, code_for(world, enrolled[0]))
    assert world.store.failures == 0


async def test_after_a_hundred_failures_only_an_admin_helps(world, enrolled):
    world.store.failures = 100
    world.store.now += timedelta(days=400)
    with pytest.raises(MfaLocked, match="an admin must reset"):
        await verify(world, code_for(world, enrolled[0]))


async def test_verifying_without_a_factor_says_so(world):
    with pytest.raises(InvalidRequest, match="enrol one first"):
        await verify(world, "123456")
    assert world.store.failures == 0


async def test_a_session_that_ended_meanwhile_is_not_raised(world, enrolled):
    world.store.live_sessions.clear()
    with pytest.raises(Unauthenticated):
        await verify(world, code_for(world, enrolled[0]))


async def test_reloading_the_enrolment_page_shows_the_same_secret(world):
    first = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    second = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    assert first == second
    assert first.needs_code
    assert first.secret not in repr(first)
    assert first.secret in first.otpauth_uri


async def test_a_secret_shown_to_one_session_is_never_confirmed_by_another(world):
    """Who stole the first factor opens the page first and waits for the owner's code."""
    thief = await world.second_factor().begin_enrolment(world.who("ls-2"), is_admin=False)
    owner = await world.second_factor().begin_enrolment(world.who("ls-1"), is_admin=False)
    assert owner.secret != thief.secret
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    with pytest.raises(InvalidRequest, match="reload"):
        await confirm(world, code_for(world, thief.secret), text, session="ls-2")
    await confirm(world, code_for(world, owner.secret), text)
    with pytest.raises(WrongCode):
        await verify(world, code_for(world, thief.secret, 1))


async def test_the_first_factor_alone_can_not_enrol_the_second(world):
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    for bad in (None, "", "x", new_enrolment_code()[0]):
        with pytest.raises(WrongCode, match="enrolment code"):
            await confirm(world, code_for(world, enrolling.secret), bad)
    assert {e.detail.get("reason") for e in world.store.events} == {"wrong_enrolment_code"}
    assert not await world.store.confirmed_factors("")


async def test_an_enrolment_code_is_spent_by_the_enrolment_and_not_by_a_wrong_totp(world):
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    with pytest.raises(WrongCode):
        await confirm(world, "000000", text)
    assert world.store.enrolment_codes == {stored}
    codes = await confirm(world, code_for(world, enrolling.secret), text)
    assert world.store.enrolment_codes == set()
    assert len(set(codes)) == 10
    assert world.store.events[-1].type is EventType.MFA_ENROLLED


async def test_open_enrolment_needs_no_code_but_never_covers_admins(world):
    factor = world.second_factor(Enrolment.OPEN)
    assert not (await factor.begin_enrolment(world.who(), is_admin=False)).needs_code
    assert (await factor.begin_enrolment(world.who(), is_admin=True)).needs_code
    world.pinned_admin = True
    assert (await factor.begin_enrolment(world.who(), is_admin=False)).needs_code


async def test_open_enrolment_does_not_replace_a_factor_confirmed_meanwhile(world):
    stale = world.who("ls-2")
    factor = world.second_factor(Enrolment.OPEN)
    enrolling = await factor.begin_enrolment(world.who(), is_admin=False)
    await confirm(world, code_for(world, enrolling.secret), enrolment=Enrolment.OPEN)
    late = await factor.begin_enrolment(stale, is_admin=False)
    with pytest.raises(Conflict):
        await factor.confirm_enrolment(
            stale,
            code_for(world, late.secret),
            None,
            is_admin=False,
            actor=world.actor,
            request_id="r1",
            replaces=None,
            cookie=None,
        )


async def test_a_confirmed_factor_must_be_shown_before_a_new_one_is_enrolled(world, enrolled):
    factor = world.second_factor()
    with pytest.raises(MfaRequired):
        await factor.begin_enrolment(world.who(), is_admin=False)
    world.mfa_time = world.store.now - timedelta(minutes=5)
    with pytest.raises(MfaStale):
        await factor.begin_enrolment(world.who(), is_admin=False)
    world.mfa_time = world.store.now
    world.store.may_replace = True
    new = await factor.begin_enrolment(world.who(), is_admin=False)
    assert not new.needs_code
    await confirm(world, code_for(world, new.secret))
    world.store.now += timedelta(minutes=1)
    with pytest.raises(WrongCode):
        await verify(world, code_for(world, enrolled[0]))
    await verify(world, code_for(world, new.secret))


async def test_a_recovery_code_opens_enrolment_once_and_nothing_else(world, enrolled):
    _, codes = enrolled
    factor = world.second_factor()
    await factor.spend_recovery_code(
        world.who(), codes[3].upper(), actor=world.actor, request_id="r1"
    )
    assert world.store.may_enrol == {"ls-1"}
    assert world.store.events[-1].detail == {"method": "recovery_code"}
    with pytest.raises(WrongCode):
        await factor.spend_recovery_code(world.who(), codes[3], actor=world.actor, request_id="r2")
    assert world.store.events[-1].detail["reason"] == "wrong_recovery_code"
    world.may_enrol_until = world.store.now + timedelta(seconds=1)
    assert not (await factor.begin_enrolment(world.who(), is_admin=False)).needs_code
    world.may_enrol_until = world.store.now
    with pytest.raises(MfaRequired):
        await factor.begin_enrolment(world.who(), is_admin=False)


async def test_recovery_and_enrolment_attempts_meet_the_same_lock(world, enrolled):
    world.store.failures, world.store.failed_at = 20, world.store.now
    with pytest.raises(MfaLocked):
        await world.second_factor().spend_recovery_code(
            world.who(), enrolled[1][0], actor=world.actor, request_id="r1"
        )
    world.mfa_time = world.store.now
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    with pytest.raises(MfaLocked):
        await confirm(world, code_for(world, enrolling.secret))


async def test_a_secret_copied_to_another_persons_row_does_not_open(world, enrolled):
    (factor,) = world.store.factors
    world.store.factors = [replace(factor, principal_id="p-bbbbbbbbbbbbbbbb")]
    with pytest.raises(UnsealFailed):
        await verify(world, code_for(world, enrolled[0]))
