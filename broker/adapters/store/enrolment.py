"""Enrolment codes and recovery codes as rows, inside the caller's transaction.

Owns: that each is spent once (it is deleted by being spent; the record stays)
and that a person has at most one live enrolment code.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.principals import (
    lock_person,
    lock_who_is_who,
    require_not_suspended,
)
from broker.adapters.store.schema import enrolment_codes, principals, recovery_codes
from broker.errors import NotFound
from broker.identity.people import email_key
from broker.identity.totp import ENROLMENT_CODE_LIFETIME


async def create_code(
    conn: AsyncConnection,
    database: Database,
    code_hash: bytes,
    *,
    principal_id: str | None,
    provider: str | None,
    email: str | None,
    created_by: str,
) -> datetime:
    """Store the code and void the person's older ones; when it expires.

    Raises NotFound for no such principal, Suspended for a suspended creator.
    """
    by_email = provider is not None and email is not None
    if (principal_id is None) != by_email:
        raise ValueError("an enrolment code is for a principal, or for a provider and an address")
    await lock_who_is_who(conn)
    await require_not_suspended(conn, created_by)
    key = None if email is None else email_key(email)
    if principal_id is not None:
        person = await lock_person(conn, principal_id)
        if person is None:
            raise NotFound
        older = _is_for(person)
    else:
        holders = select(principals.c.id).where(
            principals.c.provider == provider,
            principals.c.email_key == key,
            principals.c.email_verified,
        )
        older = or_(
            and_(enrolment_codes.c.provider == provider, enrolment_codes.c.email_key == key),
            enrolment_codes.c.principal_id.in_(holders),
        )
    now = await database.now(conn)
    expires_at = now + ENROLMENT_CODE_LIFETIME
    await conn.execute(delete(enrolment_codes).where(older))
    await conn.execute(
        insert(enrolment_codes).values(
            code_hash=code_hash,
            principal_id=principal_id,
            provider=None if principal_id is not None else provider,
            email_key=None if principal_id is not None else key,
            created_by=created_by,
            created_at=now,
            expires_at=expires_at,
        )
    )
    return expires_at


async def find_code(
    conn: AsyncConnection, code_hash: bytes, principal_id: str, now: datetime
) -> bool:
    """Whether this live code is for this principal."""
    person = (
        await conn.execute(select(principals).where(principals.c.id == principal_id))
    ).one_or_none()
    if person is None:
        return False
    query = select(enrolment_codes.c.code_hash).where(_live(code_hash, person, now))
    return (await conn.execute(query)).first() is not None


async def spend_enrolment_code(
    conn: AsyncConnection, code_hash: bytes, person: Row[Any], now: datetime
) -> bool:
    """False where it is not there, not live or not this person's."""
    spent = await conn.execute(delete(enrolment_codes).where(_live(code_hash, person, now)))
    return spent.rowcount == 1


async def replace_recovery_codes(
    conn: AsyncConnection, principal_id: str, hashes: Iterable[bytes], now: datetime
) -> None:
    """These and no others."""
    await conn.execute(delete(recovery_codes).where(recovery_codes.c.principal_id == principal_id))
    rows = [{"principal_id": principal_id, "code_hash": one, "created_at": now} for one in hashes]
    if rows:
        await conn.execute(insert(recovery_codes), rows)


async def spend_recovery_code(conn: AsyncConnection, principal_id: str, code_hash: bytes) -> bool:
    """False where it is unknown or was spent."""
    spent = await conn.execute(
        delete(recovery_codes).where(
            recovery_codes.c.principal_id == principal_id, recovery_codes.c.code_hash == code_hash
        )
    )
    return spent.rowcount == 1


def _live(code_hash: bytes, person: Row[Any], now: datetime) -> ColumnElement[bool]:
    return and_(
        enrolment_codes.c.code_hash == code_hash,
        enrolment_codes.c.expires_at > now,
        _is_for(person),
    )


def _is_for(person: Row[Any]) -> ColumnElement[bool]:
    mine: ColumnElement[bool] = enrolment_codes.c.principal_id == person.id
    if person.email_key is None or not person.email_verified:
        return mine
    return or_(
        mine,
        and_(
            enrolment_codes.c.provider == person.provider,
            enrolment_codes.c.email_key == person.email_key,
        ),
    )
