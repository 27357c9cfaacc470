"""The verbs of signing in through a provider.

Owns: one login as one transaction: who it is, what they are called by the
policy, whether they become the first admin, and the browser's login session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.bindings import bind_pending
from broker.adapters.store.engine import Database
from broker.adapters.store.login_sessions import end_sessions, open_session, store_token
from broker.adapters.store.principals import (
    has_pinned_admin,
    lock_person,
    lock_who_is_who,
    to_principal,
    user_names,
)
from broker.adapters.store.records import append
from broker.adapters.store.schema import factors, login_attempts, login_sessions, principals, tokens
from broker.audit.record import Actor, Event, EventType, Outcome, clean_text
from broker.errors import Suspended
from broker.identity.login import (
    LOGIN_ATTEMPT_LIFETIME,
    BootstrapAdmin,
    LoggedIn,
    LoginAttempt,
    ProviderIdentity,
)
from broker.identity.people import email_key
from broker.identity.principal import PrincipalKind, new_principal_id
from broker.identity.sessions import LOGIN_SESSION_LIFETIME, LoginSession, Token


class SqlLoginStore:
    """Implements `identity.login.LoginStore`. `deny` takes failed logins where it is given: of a
    flood, which anybody can cause, the journal keeps the first of each kind and counts.
    """

    def __init__(
        self, database: Database, *, deny: Callable[[Event], Awaitable[None]] | None = None
    ) -> None:
        self._database = database
        self._deny = deny

    async def open_login_attempt(self, binding_hash: bytes, provider: str, next_path: str) -> None:
        """Remember the attempt for LOGIN_ATTEMPT_LIFETIME."""
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            await conn.execute(
                insert(login_attempts).values(
                    binding_hash=binding_hash,
                    provider=provider,
                    next_path=next_path,
                    expires_at=now + LOGIN_ATTEMPT_LIFETIME,
                )
            )

    async def take_login_attempt(self, binding_hash: bytes) -> LoginAttempt | None:
        """The attempt, deleted by being read: of two callbacks one gets it."""
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            taken = await conn.execute(
                delete(login_attempts)
                .where(login_attempts.c.binding_hash == binding_hash)
                .returning(*login_attempts.c)
            )
            row = taken.one_or_none()
        if row is None or row.expires_at <= now:
            return None
        return LoginAttempt(row.binding_hash, row.provider, row.next_path, row.expires_at)

    async def log_in(
        self,
        identity: ProviderIdentity,
        *,
        cookie: Token,
        ip: str | None,
        user_agent: str | None,
        replaces: Token | None,
        bootstrap: tuple[BootstrapAdmin, ...],
        request_id: str,
    ) -> LoggedIn:
        """Raises Suspended for a suspended principal; login.failed is then recorded."""
        login = _Login(identity, ip, user_agent, request_id)
        async with self._database.begin() as conn:
            await lock_who_is_who(conn)
            now = await self._database.now(conn)
            person, login.new = await _upsert(conn, identity, now)
            if person.suspended_at is None:
                logged_in = await _admit(conn, person, login, cookie, replaces, bootstrap, now)
            else:
                await append(conn, [login.refused(person)])
        if person.suspended_at is not None:
            raise Suspended
        return logged_in

    async def record_login_failure(self, event: Event) -> None:
        """Append login.failed."""
        if self._deny is not None:
            await self._deny(event)
            return
        async with self._database.begin() as conn:
            await append(conn, [event])


@dataclass(slots=True)
class _Login:
    """One login as its record tells it."""

    identity: ProviderIdentity
    ip: str | None
    user_agent: str | None
    request_id: str
    new: bool = False
    bound: tuple[str, ...] = ()
    replaced: tuple[str, ...] = field(default_factory=tuple)

    def succeeded(self, person: Row[Any], session: LoginSession) -> Event:
        detail: dict[str, object] = {
            "client": "browser",
            "email": self.identity.email,
            "email_verified": self.identity.email_verified,
            "groups": sorted(self.identity.groups),
            "first_login": self.new,
            "user_names_bound": list(self.bound),
            "login_sessions_ended": list(self.replaced),
        }
        return self._event(EventType.LOGIN_SUCCEEDED, Outcome.SUCCESS, person, detail, session)

    def bootstrapped(self, person: Row[Any], session: LoginSession, rule: str) -> Event:
        detail: dict[str, object] = {
            "rule": rule,
            "issuer": person.issuer,
            "subject": person.subject,
        }
        return self._event(EventType.ADMIN_BOOTSTRAPPED, Outcome.SUCCESS, person, detail, session)

    def refused(self, person: Row[Any]) -> Event:
        return self._event(
            EventType.LOGIN_FAILED, Outcome.DENIED, person, {"reason": "suspended"}, None
        )

    def _event(
        self,
        type_: EventType,
        outcome: Outcome,
        person: Row[Any],
        detail: dict[str, object],
        session: LoginSession | None,
    ) -> Event:
        subject: dict[str, object] = {"principal": person.id, "provider": self.identity.provider}
        if session is not None:
            subject["login_session"] = session.id
        actor = Actor(person.id, person.kind, person.handle, self.ip, self.user_agent)
        return Event(type_, actor, outcome, subject, detail, self.request_id)


async def _admit(
    conn: AsyncConnection,
    person: Row[Any],
    login: _Login,
    cookie: Token,
    replaces: Token | None,
    bootstrap: tuple[BootstrapAdmin, ...],
    now: datetime,
) -> LoggedIn:
    identity = login.identity
    if person.email_key is not None and person.email_verified:
        login.bound = await bind_pending(conn, person.id, person.provider, person.email_key, now)
    rule = await _pin_first_admin(conn, person, identity, bootstrap, now)
    if replaces is not None:
        login.replaced = await _end_session_of(conn, replaces, now)
    session = await open_session(
        conn,
        principal_id=person.id,
        client="browser",
        # A provider's clock may run ahead of ours.
        auth_time=min(identity.auth_time or now, now),
        mfa_time=None,
        expires_at=now + LOGIN_SESSION_LIFETIME,
        ip=login.ip,
        user_agent=login.user_agent,
        now=now,
    )
    await store_token(conn, cookie, session, now)
    has_factor = select(
        exists().where(factors.c.principal_id == person.id, factors.c.confirmed_at.is_not(None))
    )
    has_confirmed_factor = bool((await conn.execute(has_factor)).scalar_one())
    names = await user_names(conn, person.id)
    events = [login.succeeded(person, session)]
    if rule is not None:
        events.append(login.bootstrapped(person, session, rule))
    await append(conn, events)
    return LoggedIn(to_principal(person, names), session, has_confirmed_factor, rule is not None)


async def _upsert(
    conn: AsyncConnection, identity: ProviderIdentity, now: datetime
) -> tuple[Row[Any], bool]:
    """The person's row, locked, with what the provider says now; and whether it is new.

    A suspended person's row stays as it was: nothing about them was admitted.
    """
    known = await conn.execute(
        select(principals.c.id).where(
            principals.c.issuer == identity.issuer, principals.c.subject == identity.subject
        )
    )
    principal_id = known.scalar_one_or_none()
    email = None if identity.email is None else clean_text(identity.email)
    values = {
        "provider": identity.provider,
        "handle": clean_text(identity.handle),
        "email": email,
        "email_key": None if email is None else email_key(email),
        "email_verified": identity.email_verified,
        # Those of this login and no older ones: who left a group has lost it.
        "groups": sorted(identity.groups),
        "claims": dict(identity.claims),
        "last_login_at": now,
    }
    if principal_id is not None:
        row = await lock_person(conn, principal_id)
        if row is not None and row.suspended_at is not None:
            return row, False
        changed = await conn.execute(
            update(principals)
            .where(principals.c.id == principal_id)
            .values(**values)
            .returning(*principals.c)
        )
        return changed.one(), False
    made = await conn.execute(
        insert(principals)
        .values(
            **values,
            id=new_principal_id(PrincipalKind.PERSON),
            kind=PrincipalKind.PERSON.value,
            issuer=identity.issuer,
            subject=identity.subject,
            created_at=now,
        )
        .returning(*principals.c)
    )
    return made.one(), True


async def _pin_first_admin(
    conn: AsyncConnection,
    person: Row[Any],
    identity: ProviderIdentity,
    bootstrap: tuple[BootstrapAdmin, ...],
    now: datetime,
) -> str | None:
    """Pin the person where a rule of the settings says so, and return that rule's kind.

    An address can be passed on to somebody else: it counts only while nobody is pinned, and
    only if the provider verified it. Issuer and subject are for ever the same person.
    """
    if person.pinned_admin_at is not None:
        return None
    rule: str | None = None
    for entry in bootstrap:
        if (entry.issuer, entry.subject) == (identity.issuer, identity.subject):
            rule = "subject"
            break
        if _by_email(entry, identity) and not await has_pinned_admin(conn):
            rule = "email"
    if rule is not None:
        await conn.execute(
            update(principals).where(principals.c.id == person.id).values(pinned_admin_at=now)
        )
    return rule


def _by_email(entry: BootstrapAdmin, identity: ProviderIdentity) -> bool:
    return (
        entry.email is not None
        and identity.email is not None
        and identity.email_verified
        and entry.provider == identity.provider
        and email_key(entry.email) == email_key(identity.email)
    )


async def _end_session_of(conn: AsyncConnection, cookie: Token, now: datetime) -> tuple[str, ...]:
    """End the session that the browser had before: an attacker may have planted it."""
    query = (
        select(login_sessions.c.id)
        .join(tokens, tokens.c.login_session_id == login_sessions.c.id)
        .where(tokens.c.hash == cookie.hash)
    )
    session_id = (await conn.execute(query)).scalar_one_or_none()
    return () if session_id is None else await end_sessions(conn, now, login_session_id=session_id)
