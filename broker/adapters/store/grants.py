"""Reading grants."""

from __future__ import annotations

from sqlalchemy import select

from broker.access.grant import Grant
from broker.adapters.store.engine import Database
from broker.adapters.store.schema import grants


class SqlGrants:
    """Implements `access.grant.GrantReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active_grants(self, principal_id: str) -> tuple[Grant, ...]:
        """Those in force by the database's clock, the longest first."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            query = (
                select(grants)
                .where(
                    grants.c.principal_id == principal_id,
                    grants.c.not_before <= now,
                    grants.c.expires_at > now,
                    grants.c.revoked_at.is_(None),
                )
                .order_by(grants.c.expires_at.desc(), grants.c.id)
            )
            rows = (await conn.execute(query)).all()
        return tuple(
            Grant(
                id=row.id,
                principal_id=row.principal_id,
                role=row.role,
                not_before=row.not_before,
                expires_at=row.expires_at,
                granted_by=row.granted_by,
                reason=row.reason,
            )
            for row in rows
        )
