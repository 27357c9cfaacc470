"""The verbs of access policies that wait for another admin.

Owns: that a change is decided once, by somebody else than its author, and only
on the version it was planned on. Does not own: which change waits
(`broker.access.four_eyes`), nor the versions (`access`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.versions import (
    CHANGE_LIFETIME,
    MAX_CHANGES_PAGE,
    MAX_PENDING,
    ChangeState,
    NewPolicy,
    PolicyChange,
    StoredPolicy,
    new_change_id,
)
from broker.adapters.store.access import require_newest, sha256, store_version, with_version
from broker.adapters.store.engine import Database
from broker.adapters.store.principals import lock_who_is_who, require_not_suspended
from broker.adapters.store.records import append
from broker.adapters.store.schema import access_changes
from broker.audit.record import Event
from broker.errors import Conflict, NotFound, SelfApproval

_WORDS = {
    ChangeState.APPROVED: "This change was approved already.",
    ChangeState.WITHDRAWN: "This change was withdrawn.",
    ChangeState.EXPIRED: "This change waited too long and expired; propose it again.",
}


class SqlChangeStore:
    """Implements `access.versions.ChangeStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def propose_change(
        self,
        new: NewPolicy,
        *,
        expected: int,
        author: str,
        gains: Sequence[str],
        changes: Sequence[Mapping[str, object]],
        event: Event,
    ) -> PolicyChange:
        """Raises PreconditionFailed, Conflict where the author has too many, or Suspended."""
        async with self._database.begin() as conn:
            await lock_who_is_who(conn)
            await require_not_suspended(conn, author)
            await require_newest(conn, expected)
            now = await self._database.now(conn)
            if await _pending(conn, author, now) >= MAX_PENDING:
                raise Conflict(f"{MAX_PENDING} changes of yours wait already; withdraw some.")
            made = await conn.execute(
                insert(access_changes)
                .values(
                    id=new_change_id(),
                    state=ChangeState.PENDING.value,
                    base_version=expected,
                    text=new.text,
                    sha256=sha256(new.text),
                    author=author,
                    gains=list(gains),
                    changes=[dict(one) for one in changes],
                    created_at=now,
                    expires_at=now + CHANGE_LIFETIME,
                )
                .returning(*access_changes.c)
            )
            proposed = _to_change(made.one(), now)
            await append(conn, [_about(event, proposed)])
        return proposed

    async def approve_change(
        self, change_id: str, new: NewPolicy, *, approver: str, approved: Event, applied: Event
    ) -> StoredPolicy:
        """Raises NotFound, SelfApproval, Conflict, PreconditionFailed or Suspended."""
        async with self._database.begin() as conn:
            await lock_who_is_who(conn)
            await require_not_suspended(conn, approver)
            now = await self._database.now(conn)
            change = await _lock_pending(conn, change_id, now)
            if change.author == approver:
                raise SelfApproval("Another admin approves this; you proposed it.")
            if change.sha256 != sha256(new.text):
                raise ValueError("what was judged is not the text of the change")
            await require_newest(conn, change.base_version)
            number = change.base_version + 1
            stored = await store_version(conn, new, number, change.author, now)
            await _decide(conn, change_id, ChangeState.APPROVED, approver, now, number)
            events = [_about(approved, change), _about(with_version(applied, stored), change)]
            await append(conn, events)
        return stored

    async def withdraw_change(self, change_id: str, *, by: str, event: Event) -> PolicyChange:
        """Raises NotFound, or Conflict unless it is pending."""
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            change = await _lock_pending(conn, change_id, now)
            await _decide(conn, change_id, ChangeState.WITHDRAWN, by, now, None)
            await append(conn, [_about(event, change)])
        return replace(change, state=ChangeState.WITHDRAWN, decided_by=by, decided_at=now)

    async def changes(self, *, after: str | None = None, limit: int) -> tuple[PolicyChange, ...]:
        """Newest first."""
        place = (access_changes.c.created_at, access_changes.c.id)
        query = select(access_changes)
        if after is not None:
            last = select(*place).where(access_changes.c.id == after).subquery()
            query = query.where(
                tuple_(*place) < select(last.c.created_at, last.c.id).scalar_subquery()
            )
        query = query.order_by(*(column.desc() for column in place))
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            rows = (await conn.execute(query.limit(max(0, min(limit, MAX_CHANGES_PAGE))))).all()
        return tuple(_to_change(row, now) for row in rows)

    async def change(self, change_id: str) -> PolicyChange | None:
        """The change of this id, whatever became of it."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            query = select(access_changes).where(access_changes.c.id == change_id)
            row = (await conn.execute(query)).one_or_none()
        return None if row is None else _to_change(row, now)


async def _lock_pending(conn: AsyncConnection, change_id: str, now: datetime) -> PolicyChange:
    query = select(access_changes).where(access_changes.c.id == change_id).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise NotFound
    change = _to_change(row, now)
    if change.state is not ChangeState.PENDING:
        raise Conflict(_WORDS[change.state])
    return change


async def _decide(
    conn: AsyncConnection,
    change_id: str,
    state: ChangeState,
    by: str,
    now: datetime,
    version: int | None,
) -> None:
    await conn.execute(
        update(access_changes)
        .where(access_changes.c.id == change_id)
        .values(state=state.value, decided_by=by, decided_at=now, applied_version=version)
    )


async def _pending(conn: AsyncConnection, author: str, now: datetime) -> int:
    query = (
        select(func.count())
        .select_from(access_changes)
        .where(
            access_changes.c.author == author,
            access_changes.c.state == ChangeState.PENDING.value,
            access_changes.c.expires_at > now,
        )
    )
    count: int = (await conn.execute(query)).scalar_one()
    return count


def _about(event: Event, change: PolicyChange) -> Event:
    subject = {**event.subject, "principal": change.author, "change": change.id}
    return replace(event, subject=subject)


def _to_change(row: Row[Any], now: datetime) -> PolicyChange:
    state = ChangeState(row.state)
    if state is ChangeState.PENDING and row.expires_at <= now:
        state = ChangeState.EXPIRED
    return PolicyChange(
        id=row.id,
        state=state,
        base_version=row.base_version,
        text=row.text,
        sha256=row.sha256,
        author=row.author,
        gains=tuple(row.gains),
        changes=tuple(row.changes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        applied_version=row.applied_version,
    )
