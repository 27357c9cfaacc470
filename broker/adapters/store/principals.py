"""Principals as rows: reading them, and locking them first in every verb about a person.

Owns: the mapping between rows and `Principal`, the person's lock, and filling in
who acts where only the store knows. Does not own: what changes a principal
(`logins`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.login_sessions import to_login_session
from broker.adapters.store.schema import login_sessions, principals, user_bindings
from broker.audit.record import Event
from broker.errors import Conflict, Suspended
from broker.identity.people import email_key
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.sessions import LoginSession

# Who is who: creating principals, binding `user:` names and pinning the first admin.
_WHO_IS_WHO = 0x77686F  # "who"


async def lock_person(conn: AsyncConnection, principal_id: str) -> Row[Any] | None:
    """The principal's row, locked until the transaction ends; None where there is none.

    Every verb about a person takes this lock before it touches their other rows, so that
    two of them can't wait for each other. It lets rows that reference the person be
    inserted meanwhile. On SQLite the transaction holds the whole database already.
    """
    query = select(principals).where(principals.c.id == principal_id)
    return (await conn.execute(query.with_for_update(key_share=True))).one_or_none()


async def lock_who_is_who(conn: AsyncConnection) -> None:
    """Held while principals are created or named, before any row lock.

    Without it a first login and the policy that names that person could each miss the
    other's uncommitted rows, and two first logins could both become the one first admin.
    """
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WHO_IS_WHO})


async def require_not_suspended(conn: AsyncConnection, principal_id: str) -> None:
    """Raises Suspended where whoever acts was suspended after their request was let in: what is
    still in flight must not administer. No second person's lock is taken; it stays so where the
    caller holds `lock_who_is_who`, under which people are suspended.
    """
    query = select(principals.c.suspended_at).where(principals.c.id == principal_id)
    if (await conn.execute(query)).scalar_one_or_none() is not None:
        raise Suspended


async def user_names(conn: AsyncConnection, principal_id: str) -> frozenset[str]:
    """The `user:` names of the access policy that are bound to this principal."""
    query = select(user_bindings.c.name).where(user_bindings.c.principal_id == principal_id)
    return frozenset((await conn.execute(query)).scalars())


def to_principal(row: Row[Any], names: frozenset[str]) -> Principal:
    """`row` holds every column of `principals`."""
    return Principal(
        id=row.id,
        kind=PrincipalKind(row.kind),
        issuer=row.issuer,
        subject=row.subject,
        provider=row.provider,
        handle=row.handle,
        email=row.email,
        groups=frozenset(row.groups),
        claims=dict(row.claims),
        user_names=names,
        suspended_at=row.suspended_at,
    )


def of_person(event: Event, person: Row[Any], login_session_id: str) -> Event:
    """The event about this person's login session. An anonymous actor is who the token is of."""
    actor = event.actor
    if actor.kind == "anonymous":
        actor = replace(actor, id=person.id, kind=person.kind, handle=person.handle)
    subject = {"principal": person.id, "login_session": login_session_id, **event.subject}
    return replace(event, actor=actor, subject=subject)


class SqlPeople:
    """Implements `identity.people.People`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def principal(self, principal_id: str) -> Principal | None:
        """The principal of this id."""
        return self._one(await self._find(principals.c.id == principal_id))

    async def find_by_subject(self, issuer: str, subject: str) -> Principal | None:
        """The principal that this issuer calls so."""
        return self._one(
            await self._find(principals.c.issuer == issuer, principals.c.subject == subject)
        )

    async def find_by_email(self, provider: str, email: str) -> Principal | None:
        """Raises Conflict where several had the address, one after the other."""
        return self._one(
            await self._find(
                principals.c.provider == provider,
                principals.c.email_key == email_key(email),
                principals.c.email_verified,
            )
        )

    async def newest_login(self, principal_id: str) -> LoginSession | None:
        """The live login session whose second factor was shown last."""
        async with self._database.read() as conn:
            query = (
                select(login_sessions)
                .where(
                    login_sessions.c.principal_id == principal_id,
                    login_sessions.c.revoked_at.is_(None),
                    login_sessions.c.expires_at > await self._database.now(conn),
                )
                .order_by(
                    login_sessions.c.mfa_time.desc().nulls_last(),
                    login_sessions.c.created_at.desc(),
                )
                .limit(1)
            )
            row = (await conn.execute(query)).one_or_none()
        return None if row is None else to_login_session(row)

    async def is_pinned_admin(self, principal_id: str) -> bool:
        """Whether this principal was bootstrapped as an admin."""
        query = select(principals.c.id).where(
            principals.c.id == principal_id, principals.c.pinned_admin_at.is_not(None)
        )
        async with self._database.read() as conn:
            return (await conn.execute(query)).first() is not None

    async def has_admin(self) -> bool:
        """Whether anybody was bootstrapped as an admin."""
        async with self._database.read() as conn:
            return await has_pinned_admin(conn)

    async def _find(self, *conditions: ColumnElement[bool]) -> list[Principal]:
        async with self._database.read() as conn:
            rows = (await conn.execute(select(principals).where(*conditions).limit(2))).all()
            return [to_principal(row, await user_names(conn, row.id)) for row in rows]

    @staticmethod
    def _one(found: list[Principal]) -> Principal | None:
        if len(found) > 1:
            raise Conflict("Several people had this e-mail address; name issuer and subject.")
        return found[0] if found else None


async def has_pinned_admin(conn: AsyncConnection) -> bool:
    """Whether anybody was bootstrapped as an admin."""
    query = select(principals.c.id).where(principals.c.pinned_admin_at.is_not(None)).limit(1)
    return (await conn.execute(query)).first() is not None
