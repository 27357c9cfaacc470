"""The verbs of the stored access policy.

Owns: that versions follow each other without a gap, that what was applied is
kept as it was written, and the external ids that the broker makes. Does not own:
reading it (`broker.access.parse`), nor changes that wait (`access_changes`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.four_eyes import Alone
from broker.access.versions import NewPolicy, StoredPolicy, new_external_id
from broker.adapters.store.bindings import name_users
from broker.adapters.store.engine import Database
from broker.adapters.store.jobs import name_workloads
from broker.adapters.store.policy_people import known_admins
from broker.adapters.store.principals import lock_who_is_who, require_not_suspended
from broker.adapters.store.records import append
from broker.adapters.store.schema import access_policies, role_external_ids, user_bindings
from broker.audit.record import Event
from broker.errors import PreconditionFailed


class SqlAccessStore:
    """Implements `access.versions.AccessStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current_policy(self) -> StoredPolicy | None:
        """The newest version; None before the first."""
        async with self._database.read() as conn:
            row = await _newest(conn)
            if row is None:
                return None
            # Read later than the version: those it needs were committed with it.
            return replace(row, external_ids=await _external_ids(conn))

    async def apply_policy(
        self,
        new: NewPolicy,
        *,
        expected: int,
        applied_by: str,
        event: Event,
        alone: Alone | None = None,
    ) -> StoredPolicy:
        """Raises PreconditionFailed unless the newest version is `expected` and `alone` holds,
        Suspended where `applied_by` was suspended meanwhile.
        """
        async with self._database.begin() as conn:
            # One applier at a time, and no first login that would miss its name.
            await lock_who_is_who(conn)
            await require_not_suspended(conn, applied_by)
            await require_newest(conn, expected)
            if alone is not None:
                people = await known_admins(conn, frozenset(alone.policy.admins))
                if not alone.holds(people):
                    raise PreconditionFailed("Another admin is there now: plan it again.")
            now = await self._database.now(conn)
            applied = await store_version(conn, new, expected + 1, applied_by, now)
            await append(conn, [with_version(event, applied)])
        return applied

    async def pending_user_names(self) -> frozenset[str]:
        """Names of the policy whose person has not logged in yet."""
        query = select(user_bindings.c.name).where(user_bindings.c.principal_id.is_(None))
        async with self._database.read() as conn:
            return frozenset((await conn.execute(query)).scalars())


async def require_newest(conn: AsyncConnection, expected: int) -> None:
    """Raises PreconditionFailed unless the newest version is `expected` (0: none yet). The caller
    holds `lock_who_is_who`, so that it stays so.
    """
    newest = await _newest(conn)
    number = 0 if newest is None else newest.number
    if number != expected:
        raise PreconditionFailed(f"The access policy is at version {number} now.")


async def store_version(
    conn: AsyncConnection, new: NewPolicy, number: int, applied_by: str, now: datetime
) -> StoredPolicy:
    """The text as version `number`, with all that its names need. The caller holds
    `lock_who_is_who` and has required that the newest version is the one before.
    """
    applied = StoredPolicy(
        number=number,
        text=new.text,
        sha256=sha256(new.text),
        applied_at=now,
        applied_by=applied_by,
    )
    await conn.execute(
        insert(access_policies).values(
            number=applied.number,
            text=applied.text,
            sha256=applied.sha256,
            applied_at=now,
            applied_by=applied_by,
        )
    )
    await name_users(conn, new.user_names, now)
    await name_workloads(conn, new.workloads, now)
    known = await _external_ids(conn)
    for arn in sorted(new.external_ids_for - known.keys()):
        known[arn] = new_external_id()
        await conn.execute(
            insert(role_external_ids).values(role_arn=arn, external_id=known[arn], created_at=now)
        )
    return replace(applied, external_ids=known)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def with_version(event: Event, applied: StoredPolicy) -> Event:
    return replace(event, detail={**event.detail, "version": applied.number})


async def _newest(conn: AsyncConnection) -> StoredPolicy | None:
    query = select(access_policies).order_by(access_policies.c.number.desc()).limit(1)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        return None
    return StoredPolicy(row.number, row.text, row.sha256, row.applied_at, row.applied_by)


async def _external_ids(conn: AsyncConnection) -> dict[str, str]:
    rows = await conn.execute(select(role_external_ids.c.role_arn, role_external_ids.c.external_id))
    return {row.role_arn: row.external_id for row in rows}
