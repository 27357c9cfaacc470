from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from broker.adapters.sealing import UnsealFailed
from broker.audit.record import Event, EventType, Outcome
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
from broker.identity.typed_codes import TypedCodeKind, hash_of_typed, new_enrolment_code


def code_for(world: Any, secret: str, offset: int = 0) -> str:
    return pyotp.TOTP(secret).at(world.store.now, counter_offset=offset)


def happened(world: Any, event_type: EventType, **detail: object) -> Event:
    subject = {"principal": "p-aaaaaaaaaaaaaaaa", "login_session": "ls-1"}
    return Event(event_type, world.actor, Outcome.SUCCESS, subject, detail, "r1")


def failed(world: Any, reason: str, failures: int) -> Event:
    event = happened(world, EventType.MFA_FAILED, reason=reason, failures=failures)
    return replace(event, outcome=Outcome.FAILURE)


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
    old = Token.new(TokenKind.BROWSER)
    await verify(world, code_for(world, enrolled[0]), cookie=cookie, replaces=old)
    assert (world.store.cookie, world.store.replaced) == (cookie, old)
    (factor,) = world.store.factors
    assert world.store.events == [happened(world, EventType.MFA_VERIFIED, factor=factor.id)]


async def test_a_code_works_once(world, enrolled):
    code = code_for(world, enrolled[0])
    await verify(world, code)
    with pytest.raises(WrongCode, match=r"^That code is not right\.$") as refused:
        await verify(world, code)
    assert refused.value.extra == {}
    assert world.store.events[1:] == [failed(world, "wrong_code", 1)]


async def test_a_code_that_another_process_took_just_before_is_a_wrong_one(world, enrolled):
    world.store.beaten = True
    with pytest.raises(WrongCode, match=r"^That code is not right\.$"):
        await verify(world, code_for(world, enrolled[0]))
    world.may_enrol_until = world.store.now + timedelta(minutes=10)
    new = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    with pytest.raises(WrongCode, match=r"^That code is not right\.$"):
        await confirm(world, code_for(world, new.secret))
    assert world.store.events == [failed(world, "replayed", count) for count in (1, 2)]


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
    assert refusal.value.detail == "That code is not right."
    assert world.store.failures == 1
    assert world.store.events == [failed(world, "wrong_code", 1)]


async def test_the_fifth_wrong_code_locks_and_then_the_right_one_is_not_looked_at(world, enrolled):
    for wait in ({}, {}, {}, {}, {"retry_after": 1}):
        with pytest.raises(WrongCode) as wrong:
            await verify(world, "000000")
        assert wrong.value.extra == wait
    locked_event = happened(world, EventType.MFA_LOCKED, failures=5, seconds=1)
    assert world.store.events == [
        *(failed(world, "wrong_code", count) for count in range(1, 6)),
        replace(locked_event, outcome=Outcome.FAILURE),
    ]
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
    with pytest.raises(MfaLocked) as locked:
        await verify(world, code_for(world, enrolled[0]))
    text = "Too many wrong codes; an admin must reset your second factor."
    assert (locked.value.detail, locked.value.retry_after) == (text, 86400)
    world.store.failures, world.store.failed_at = 99, world.store.now
    with pytest.raises(MfaLocked) as locked:
        await verify(world, code_for(world, enrolled[0]))
    assert (locked.value.detail, locked.value.retry_after) == (MfaLocked.message, 900)


async def test_verifying_without_a_factor_says_so(world):
    text = r"^No second factor is enrolled yet; enrol one first\.$"
    with pytest.raises(InvalidRequest, match=text):
        await verify(world, "123456")
    assert world.store.failures == 0


async def test_a_session_that_ended_meanwhile_is_not_raised(world, enrolled):
    world.store.live_sessions.clear()
    with pytest.raises(Unauthenticated, match=r"^This login session has ended; sign in again\.$"):
        await verify(world, code_for(world, enrolled[0]))


async def test_reloading_the_enrolment_page_shows_the_same_secret(world):
    first = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    second = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    assert first == second
    assert first.needs_code
    assert first.secret not in repr(first)
    parsed = pyotp.parse_uri(first.otpauth_uri)
    assert (parsed.secret, parsed.name) == (first.secret, "ada@example.com")
    assert parsed.issuer == "broker test"
    # Which login session began it is told by the id: older pending factors stay its own.
    assert re.fullmatch(r"f-[0-9a-f]{24}", first.factor_id)
    assert first.factor_id[2:14] == hashlib.sha256(b"ls-1").hexdigest()[:12]


async def test_a_secret_shown_to_one_session_is_never_confirmed_by_another(world):
    """Who stole the first factor opens the page first and waits for the owner's code."""
    thief = await world.second_factor().begin_enrolment(world.who("ls-2"), is_admin=False)
    owner = await world.second_factor().begin_enrolment(world.who("ls-1"), is_admin=False)
    assert owner.secret != thief.secret
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    text_shown = r"^This enrolment is too old; reload the page for a new secret\.$"
    with pytest.raises(InvalidRequest, match=text_shown):
        await confirm(world, code_for(world, thief.secret), text, session="ls-2")
    await confirm(world, code_for(world, owner.secret), text)
    with pytest.raises(WrongCode):
        await verify(world, code_for(world, thief.secret, 1))


async def test_the_first_factor_alone_can_not_enrol_the_second(world):
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    for bad in (None, "", "x", new_enrolment_code()[0]):
        with pytest.raises(WrongCode, match=r"^That enrolment code is not right\.$"):
            await confirm(world, code_for(world, enrolling.secret), bad)
    assert world.store.events == [
        failed(world, "wrong_enrolment_code", count) for count in (1, 2, 3, 4)
    ]
    assert not await world.store.confirmed_factors("p-aaaaaaaaaaaaaaaa")


async def test_an_enrolment_code_is_spent_by_the_enrolment_and_not_by_a_wrong_totp(world):
    text, stored = new_enrolment_code()
    world.store.enrolment_codes = {stored}
    enrolling = await world.second_factor().begin_enrolment(world.who(), is_admin=False)
    with pytest.raises(WrongCode):
        await confirm(world, "000000", text)
    assert world.store.enrolment_codes == {stored}
    old, cookie = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
    right = code_for(world, enrolling.secret)
    codes = await confirm(world, right, text, replaces=old, cookie=cookie)
    assert world.store.enrolment_codes == set()
    assert (world.store.replaced, world.store.cookie) == (old, cookie)
    assert len(set(codes)) == 10
    hashes = {hash_of_typed(TypedCodeKind.RECOVERY, code) for code in codes}
    assert world.store.recovery_codes == hashes
    enrolled = happened(world, EventType.MFA_ENROLLED, factor=enrolling.factor_id)
    assert world.store.events == [failed(world, "wrong_code", 1), enrolled]


async def test_open_enrolment_needs_no_code_but_never_covers_admins(world):
    factor = world.second_factor(Enrolment.OPEN)
    assert not (await factor.begin_enrolment(world.who(), is_admin=False)).needs_code
    assert (await factor.begin_enrolment(world.who(), is_admin=True)).needs_code
    enrolling = await factor.begin_enrolment(world.who(), is_admin=True)
    with pytest.raises(WrongCode, match=r"^That enrolment code is not right\.$"):
        await confirm(
            world, code_for(world, enrolling.secret), enrolment=Enrolment.OPEN, is_admin=True
        )
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
    assert world.store.events == [happened(world, EventType.MFA_VERIFIED, method="recovery_code")]
    world.store.failures = 0
    for count, typed in enumerate((codes[3], "no code"), 1):
        with pytest.raises(WrongCode, match=r"^That code is not right\.$"):
            await factor.spend_recovery_code(world.who(), typed, actor=world.actor, request_id="r1")
        assert world.store.events[-1] == failed(world, "wrong_recovery_code", count)
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
