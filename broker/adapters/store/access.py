"""The verbs of the stored access policy.

Owns: that versions follow each other without a gap and that what was applied is
kept as it was written. Does not own: reading it (`broker.access.parse`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.versions import StoredPolicy
from broker.adapters.store.bindings import name_users
from broker.adapters.store.engine import Database
from broker.adapters.store.principals import lock_who_is_who
from broker.adapters.store.records import append
from broker.adapters.store.schema import access_policies, user_bindings
from broker.audit.record import Event
from broker.errors import PreconditionFailed


class SqlAccessStore:
    """Implements `access.versions.AccessStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current_policy(self) -> StoredPolicy | None:
        """The newest version; None before the first."""
        async with self._database.read() as conn:
            return await _newest(conn)

    async def apply_policy(
        self,
        text: str,
        *,
        expected: int,
        user_names: frozenset[str],
        applied_by: str,
        event: Event,
    ) -> StoredPolicy:
        """Raises PreconditionFailed unless the newest version is `expected`."""
        async with self._database.begin() as conn:
            # One applier at a time, and no first login that would miss its name.
            await lock_who_is_who(conn)
            newest = await _newest(conn)
            number = 0 if newest is None else newest.number
            if number != expected:
                raise PreconditionFailed(f"The access policy is at version {number} now.")
            now = await self._database.now(conn)
            applied = StoredPolicy(
                number=number + 1,
                text=text,
                sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
                applied_at=now,
                applied_by=applied_by,
            )
            await conn.execute(
                insert(access_policies).values(
                    number=applied.number,
                    text=text,
                    sha256=applied.sha256,
                    applied_at=now,
                    applied_by=applied_by,
                )
            )
            await name_users(conn, user_names, now)
            detail = {**event.detail, "version": applied.number}
            await append(conn, [replace(event, detail=detail)])
        return applied

    async def pending_user_names(self) -> frozenset[str]:
        """Names of the policy whose person has not logged in yet."""
        query = select(user_bindings.c.name).where(user_bindings.c.principal_id.is_(None))
        async with self._database.read() as conn:
            return frozenset((await conn.execute(query)).scalars())


async def _newest(conn: AsyncConnection) -> StoredPolicy | None:
    query = select(access_policies).order_by(access_policies.c.number.desc()).limit(1)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        return None
    return StoredPolicy(row.number, row.text, row.sha256, row.applied_at, row.applied_by)
