"""Nothing changes without a record, and no record is written without the change."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from broker.access.grant import Repeatable
from broker.adapters.store.grants import record_expired
from broker.adapters.store.schema import audit_head
from broker.audit.record import EventType
from broker.errors import AuditUnavailable, Suspended
from broker.identity.login import BootstrapAdmin
from broker.identity.sessions import Token, TokenKind
from broker.identity.totp import Invitation
from tests.store.stores import Stores

Act = Callable[[], Awaitable[object]]
# Sets the scene and returns the one call that is looked at.
Scene = Callable[[Any, Any], Awaitable[Act]]


async def log_in(stores: Stores, event: Any) -> Act:
    return stores.log_in


async def log_in_as_first_admin(stores: Stores, event: Any) -> Act:
    await stores.apply("corp/grace@example.com")
    planted = Token.new(TokenKind.BROWSER)
    await stores.log_in("mallory", cookie=planted)
    by_email = (BootstrapAdmin(provider="corp", email="grace@example.com"),)
    return lambda: stores.log_in(bootstrap=by_email, replaces=planted)


async def log_in_suspended(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.suspend(login.principal.id)

    async def act() -> None:
        with pytest.raises(Suspended):
            await stores.log_in()

    return act


async def fail_to_log_in(stores: Stores, event: Any) -> Act:
    return lambda: stores.logins.record_login_failure(event(EventType.LOGIN_FAILED))


async def end_session(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    return lambda: stores.sessions.end_login_session(
        login.session.id, event(EventType.SESSION_REVOKED)
    )


async def rotate(stores: Stores, event: Any) -> Act:
    _, refresh, _ = await stores.cli(await stores.log_in())
    return lambda: stores.rotate(refresh, Token.new(TokenKind.REFRESH))


async def rotate_after_a_lost_reply(stores: Stores, event: Any) -> Act:
    _, refresh, _ = await stores.cli(await stores.log_in())
    await stores.rotate(refresh, Token.new(TokenKind.REFRESH))
    return lambda: stores.rotate(refresh, Token.new(TokenKind.REFRESH))


async def reuse_refresh(stores: Stores, event: Any) -> Act:
    _, refresh, _ = await stores.cli(await stores.log_in())
    second = Token.new(TokenKind.REFRESH)
    await stores.rotate(refresh, second)
    await stores.rotate(second, Token.new(TokenKind.REFRESH))
    return lambda: stores.rotate(refresh, Token.new(TokenKind.REFRESH))


async def revoke_access(stores: Stores, event: Any) -> Act:
    access, _, _ = await stores.cli(await stores.log_in())
    return lambda: stores.sessions.revoke_token(access, event(EventType.SESSION_REVOKED))


async def revoke_refresh(stores: Stores, event: Any) -> Act:
    _, refresh, _ = await stores.cli(await stores.log_in())
    return lambda: stores.sessions.revoke_token(refresh, event(EventType.SESSION_REVOKED))


async def redeem(stores: Stores, event: Any) -> Act:
    code = await stores.code(await stores.log_in())
    return lambda: stores.redeem(code)


async def reuse_code(stores: Stores, event: Any) -> Act:
    code = await stores.code(await stores.log_in())
    await stores.redeem(code)
    return lambda: stores.redeem(code)


async def burn(stores: Stores, event: Any) -> Act:
    cookie = Token.new(TokenKind.BROWSER)
    login = await stores.log_in(cookie=cookie)
    factor = await stores.enrol(login)
    await stores.factors.count_attempt(login.principal.id)
    return lambda: stores.burn(
        factor, 900, login.session, replaces=cookie, cookie=Token.new(TokenKind.BROWSER)
    )


async def confirm(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.enrol(login, codes=(b"old",))
    await stores.invite(b"code", principal_id=login.principal.id)
    await stores.factors.count_attempt(login.principal.id)
    factor = await stores.start_factor(login.principal.id)
    return lambda: stores.confirm(
        factor,
        login,
        codes=(b"1", b"2"),
        enrolment_code=b"code",
        cookie=Token.new(TokenKind.BROWSER),
    )


async def fail_factor(stores: Stores, event: Any) -> Act:
    return lambda: stores.factors.record_failure(
        event(EventType.MFA_FAILED), locked=event(EventType.MFA_LOCKED)
    )


async def invite(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.invite(b"older", provider="corp", email="grace@example.com")
    return lambda: stores.invite(b"code", principal_id=login.principal.id)


async def recover(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.enrol(login, codes=(b"1",))
    return lambda: stores.factors.spend_recovery_code(
        login.principal.id, b"1", login.session.id, event(EventType.MFA_VERIFIED)
    )


async def reset(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.enrol(login, codes=(b"1",))
    return lambda: stores.factors.reset_factors(login.principal.id, event(EventType.MFA_RESET))


async def apply(stores: Stores, event: Any) -> Act:
    await stores.log_in()
    await stores.apply("corp/gone@example.com")
    return lambda: stores.apply("corp/grace@example.com", "corp/ada@example.com", expected=1)


async def give_grant(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    key = Repeatable(b"k" * 32, b"r" * 32)
    return lambda: stores.grant(login.principal.id, repeatable=key)


async def revoke_grant(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    given = await stores.grant(login.principal.id)
    return lambda: stores.revoke(given.grant.id)


async def run_out(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.grant(login.principal.id, begins=-7200, ends=-3600)
    return lambda: record_expired(stores.database)


async def suspend(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.cli(login)
    await stores.grant(login.principal.id)
    await stores.grant(login.principal.id, begins=60)
    return lambda: stores.suspend_all(login.principal.id)


async def reinstate(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.suspend_all(login.principal.id)
    return lambda: stores.reinstate(login.principal.id)


async def end_sessions(stores: Stores, event: Any) -> Act:
    login = await stores.log_in()
    await stores.log_in()
    return lambda: stores.directory.end_login_sessions(
        login.principal.id, event(EventType.SESSION_REVOKED)
    )


async def invite_several(stores: Stores, event: Any) -> Act:
    people = [(await stores.log_in(name)).principal.id for name in ("ada", "bob")]
    invitations = [
        Invitation(one, one.encode(), event(EventType.ENROLMENT_CODE_CREATED)) for one in people
    ]
    return lambda: stores.factors.create_enrolment_codes(invitations, created_by="p-admin")


MUTATORS: dict[Scene, list[str]] = {
    log_in: ["login.succeeded"],
    log_in_as_first_admin: ["login.succeeded", "admin.bootstrapped"],
    log_in_suspended: ["login.failed"],
    fail_to_log_in: ["login.failed"],
    end_session: ["session.revoked"],
    rotate: ["session.refreshed"],
    rotate_after_a_lost_reply: ["session.refreshed"],
    reuse_refresh: ["session.revoked"],
    revoke_access: ["session.revoked"],
    revoke_refresh: ["session.revoked"],
    redeem: ["login.succeeded"],
    reuse_code: ["session.revoked"],
    burn: ["mfa.verified"],
    confirm: ["mfa.enrolled"],
    fail_factor: ["mfa.failed", "mfa.locked"],
    invite: ["enrolment_code.created"],
    recover: ["mfa.verified"],
    reset: ["mfa.reset"],
    apply: ["access.applied"],
    give_grant: ["grant.created"],
    revoke_grant: ["grant.revoked"],
    run_out: ["grant.expired"],
    suspend: ["revocation.requested", "session.revoked", "grant.revoked", "grant.revoked"],
    reinstate: ["revocation.lifted"],
    end_sessions: ["session.revoked"],
    invite_several: ["enrolment_code.created", "enrolment_code.created"],
}


@pytest.mark.parametrize("scene", MUTATORS, ids=lambda scene: scene.__name__)
async def test_a_mutator_leaves_its_record_and_without_it_changes_nothing(
    stores: Stores, make_event: Any, scene: Scene
) -> None:
    act = await scene(stores, make_event)
    async with stores.database.begin() as conn:
        head = (await conn.execute(select(audit_head))).one()._mapping
        await conn.execute(delete(audit_head))
    before = await stores.everything()
    with pytest.raises(AuditUnavailable):
        await act()
    assert await stores.everything() == before

    async with stores.database.begin() as conn:
        await conn.execute(insert(audit_head).values(**head))
    recorded = await stores.record_types()
    await act()
    assert (await stores.record_types())[len(recorded) :] == MUTATORS[scene]


async def test_every_mutator_is_looked_at_here(stores: Stores) -> None:
    """Verbs that take an event, by their signatures."""
    takes_event = {
        f"{type(store).__name__}.{name}"
        for store in (
            stores.logins,
            stores.sessions,
            stores.factors,
            stores.codes,
            stores.access,
            stores.grants,
            stores.directory,
            stores.suspensions,
        )
        for name in dir(store)
        if not name.startswith("_") and "event" in getattr(store, name).__annotations__
    }
    assert takes_event == {
        "SqlLoginStore.record_login_failure",
        "SqlSessionStore.end_login_session",
        "SqlSessionStore.rotate_refresh_token",
        "SqlSessionStore.revoke_token",
        "SqlFactorStore.record_failure",
        "SqlFactorStore.burn_totp_step",
        "SqlFactorStore.confirm_factor",
        "SqlFactorStore.create_enrolment_code",
        "SqlFactorStore.spend_recovery_code",
        "SqlFactorStore.reset_factors",
        "SqlCodeStore.redeem_code",
        "SqlAccessStore.apply_policy",
        "SqlGrants.create_grant",
        "SqlGrants.revoke_grant",
        "SqlDirectory.end_login_sessions",
        "SqlSuspensions.suspend",
        "SqlSuspensions.reinstate",
    }


async def test_records_of_many_verbs_at_once_are_one_gapless_chain(
    replicas: tuple[Stores, Stores],
) -> None:
    first, second = replicas
    await asyncio.gather(
        *(
            store.log_in(f"{number}-{secrets.token_hex(4)}")
            for number in range(8)
            for store in (first, second)
        )
    )
    assert len(await first.records()) == 16
