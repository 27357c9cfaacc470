"""The verbs of grants: give, revoke, list, and put on record that they ran out.

Owns: that a grant ends once, and that each change is recorded with it. Whoever
changes a person's grants holds that person's lock; only running out, which
nobody decides, does without. Does not own: who may give one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, not_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.grant import (
    MAX_GRANTS_PAGE,
    Grant,
    GrantState,
    NewGrant,
    Repeatable,
    SeenBy,
    StoredGrant,
    new_grant_id,
)
from broker.adapters.store.engine import Database
from broker.adapters.store.idempotency import earlier_result, remember_result
from broker.adapters.store.principals import lock_person, require_not_suspended
from broker.adapters.store.records import append
from broker.adapters.store.schema import grants, principals
from broker.audit.record import SYSTEM, Event, EventType, Outcome, rfc3339
from broker.errors import Conflict, NotFound

_CREATE = "grants.create"
_EXPIRED_BATCH = 100


class SqlGrants:
    """Implements `access.grant.GrantStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current_grants(self, principal_id: str) -> tuple[Grant, ...]:
        """In force or to come, the one that ends last first."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            query = (
                select(grants)
                .where(grants.c.principal_id == principal_id, _current(now))
                .order_by(grants.c.expires_at.desc(), grants.c.id)
            )
            return tuple(_to_grant(row) for row in (await conn.execute(query)).all())

    async def create_grant(
        self, new: NewGrant, event: Event, *, repeatable: Repeatable | None
    ) -> StoredGrant:
        """Raises NotFound, Conflict or Suspended."""
        async with self._database.begin() as conn:
            await require_not_suspended(conn, new.granted_by)
            person = await lock_person(conn, new.principal_id)
            if person is None:
                raise NotFound("No such person was ever seen here.")
            now = await self._database.now(conn)
            made = await earlier_result(conn, new.granted_by, _CREATE, repeatable, now)
            if made is None:
                if person.suspended_at is not None:
                    raise Conflict("This person is suspended; reinstate them first.")
                made = new_grant_id()
                await remember_result(conn, new.granted_by, _CREATE, repeatable, made, now)
                await conn.execute(
                    insert(grants).values(
                        id=made,
                        principal_id=new.principal_id,
                        role=new.role,
                        not_before=new.validity.not_before,
                        expires_at=new.validity.expires_at,
                        granted_by=new.granted_by,
                        reason=new.reason,
                        created_at=now,
                    )
                )
                await append(conn, [_created(event, made, new)])
            row = (await conn.execute(_select().where(grants.c.id == made))).one()
        return _to_stored(row, now)

    async def revoke_grant(self, grant_id: str, *, by: str, reason: str, event: Event) -> bool:
        """False where it is over, or unknown."""
        async with self._database.begin() as conn:
            whose = select(grants.c.principal_id).where(grants.c.id == grant_id)
            principal_id = (await conn.execute(whose)).scalar_one_or_none()
            if principal_id is None:
                return False
            await lock_person(conn, principal_id)
            now = await self._database.now(conn)
            revoked = await end_grants(conn, now, grants.c.id == grant_id, by=by, reason=reason)
            await append(conn, grant_events(event, revoked, reason))
        return bool(revoked)

    async def grant(self, grant_id: str) -> StoredGrant | None:
        """The grant of this id, whosever it is."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            row = (await conn.execute(_select().where(grants.c.id == grant_id))).one_or_none()
        return None if row is None else _to_stored(row, now)

    async def grants(
        self,
        *,
        seen_by: SeenBy | None,
        principal_id: str | None = None,
        role: str | None = None,
        active: bool | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[StoredGrant, ...]:
        """Newest first."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            shown = [] if seen_by is None else [_seen(seen_by)]
            if principal_id is not None:
                shown.append(grants.c.principal_id == principal_id)
            if role is not None:
                shown.append(grants.c.role == role)
            if active is not None:
                in_force = and_(_current(now), grants.c.not_before <= now)
                shown.append(in_force if active else not_(in_force))
            place = (grants.c.created_at, grants.c.id)
            query = _select().where(*shown)
            if after is not None:
                # No row, no page: of a grant that is not on the list nothing is told.
                mine = [] if seen_by is None else [_seen(seen_by)]
                last = select(*place).where(grants.c.id == after, *mine).subquery()
                query = query.where(
                    tuple_(*place) < select(last.c.created_at, last.c.id).scalar_subquery()
                )
            query = query.order_by(*(column.desc() for column in place))
            query = query.limit(max(0, min(limit, MAX_GRANTS_PAGE)))
            return tuple(_to_stored(row, now) for row in (await conn.execute(query)).all())


async def end_grants(
    conn: AsyncConnection,
    now: datetime,
    which: ColumnElement[bool],
    *,
    by: str,
    reason: str,
) -> tuple[Grant, ...]:
    """Revoke those that are not over yet. The caller holds the lock of whoever has them."""
    ended = await conn.execute(
        update(grants)
        .where(which, _current(now))
        .values(revoked_at=now, revoked_by=by, revoked_reason=reason)
        .returning(*grants.c)
    )
    return tuple(sorted((_to_grant(row) for row in ended.all()), key=lambda one: one.id))


def grant_events(event: Event, ended: Sequence[Grant], reason: str) -> list[Event]:
    """One grant.revoked for each, by the actor and within the request of `event`."""
    return [
        replace(
            event,
            type=EventType.GRANT_REVOKED,
            subject=_subject(one.id, one.principal_id, one.role),
            detail={"reason": reason, "would_expire_at": rfc3339(one.expires_at)},
        )
        for one in ended
    ]


async def record_expired(database: Database, *, batch: int = _EXPIRED_BATCH) -> int:
    """Put every grant that ran out on record, once, however many replicas do this; how many.

    Raises AuditUnavailable where the database is out.
    """
    recorded = 0
    while True:
        async with database.read() as conn:
            # A look first: the write lock is not taken for nothing.
            over = select(grants.c.id).where(_ran_out(await database.now(conn))).limit(1)
            if (await conn.execute(over)).first() is None:
                return recorded
        async with database.begin() as conn:
            now = await database.now(conn)
            query = select(grants.c.id).where(_ran_out(now)).limit(batch)
            if database.dialect == "postgresql":
                query = query.with_for_update(skip_locked=True)
            ids = (await conn.execute(query)).scalars().all()
            rows = await conn.execute(
                update(grants)
                .where(grants.c.id.in_(ids), _ran_out(now))
                .values(expiry_recorded_at=now)
                .returning(*grants.c)
            )
            expired = sorted((_to_grant(row) for row in rows.all()), key=lambda one: one.id)
            await append(conn, [_expired(one) for one in expired])
        recorded += len(expired)
        if len(expired) < batch:
            return recorded


def _current(now: datetime) -> ColumnElement[bool]:
    return and_(grants.c.expires_at > now, grants.c.revoked_at.is_(None))


def _ran_out(now: datetime) -> ColumnElement[bool]:
    return and_(
        grants.c.expires_at <= now,
        grants.c.revoked_at.is_(None),
        grants.c.expiry_recorded_at.is_(None),
    )


def _seen(seen_by: SeenBy) -> ColumnElement[bool]:
    """As `SeenBy.sees`."""
    return or_(
        grants.c.principal_id == seen_by.principal_id,
        grants.c.granted_by == seen_by.principal_id,
        grants.c.role.in_(seen_by.roles),
    )


def _select() -> Any:  # noqa: ANN401 - a Select of two tables' columns
    joined = grants.join(principals, principals.c.id == grants.c.principal_id)
    return select(*grants.c, principals.c.handle).select_from(joined)


def _to_grant(row: Row[Any]) -> Grant:
    return Grant(
        id=row.id,
        principal_id=row.principal_id,
        role=row.role,
        not_before=row.not_before,
        expires_at=row.expires_at,
        granted_by=row.granted_by,
        reason=row.reason,
    )


def _to_stored(row: Row[Any], now: datetime) -> StoredGrant:
    return StoredGrant(
        grant=_to_grant(row),
        state=_state(row, now),
        handle=row.handle,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        revoked_reason=row.revoked_reason,
    )


def _state(row: Row[Any], now: datetime) -> GrantState:
    if row.revoked_at is not None:
        return GrantState.REVOKED
    if row.expires_at <= now:
        return GrantState.EXPIRED
    return GrantState.UPCOMING if row.not_before > now else GrantState.ACTIVE


def _subject(grant_id: str, principal_id: str, role: str) -> dict[str, object]:
    return {"grant": grant_id, "principal": principal_id, "role": role}


def _created(event: Event, grant_id: str, new: NewGrant) -> Event:
    detail = {
        "not_before": rfc3339(new.validity.not_before),
        "expires_at": rfc3339(new.validity.expires_at),
        "reason": new.reason,
        **event.detail,
    }
    subject = {**event.subject, **_subject(grant_id, new.principal_id, new.role)}
    return replace(event, subject=subject, detail=detail)


def _expired(grant: Grant) -> Event:
    return Event(
        EventType.GRANT_EXPIRED,
        SYSTEM,
        Outcome.SUCCESS,
        subject=_subject(grant.id, grant.principal_id, grant.role),
        detail={"expires_at": rfc3339(grant.expires_at), "granted_by": grant.granted_by},
    )
