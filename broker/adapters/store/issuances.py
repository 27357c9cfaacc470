"""Reading issuances. The journal writes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, tuple_

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import issuances
from broker.audit.record import rfc3339
from broker.issuance.history import MAX_PAGE
from broker.issuance.journal import Issuance, State


class SqlIssuances:
    """Implements `issuance.history.IssuanceReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issuances(
        self, principal_id: str | None, *, after: str | None = None, limit: int = 100
    ) -> tuple[Issuance, ...]:
        """Newest first."""
        mine = [] if principal_id is None else [issuances.c.principal_id == principal_id]
        place = (issuances.c.requested_at, issuances.c.id)
        query = select(issuances).where(*mine)
        if after is not None:
            last = select(*place).where(issuances.c.id == after, *mine).subquery()
            # Of nobody else's issuance does this tell when it was: no row, no page.
            query = query.where(
                tuple_(*place) < select(last.c.requested_at, last.c.id).scalar_subquery()
            )
        query = query.order_by(*(column.desc() for column in place))
        async with self._database.read() as conn:
            rows = (await conn.execute(query.limit(max(0, min(limit, MAX_PAGE))))).all()
        return tuple(to_issuance(row) for row in rows)

    async def issuance(self, issuance_id: str) -> Issuance | None:
        """The issuance of this id, whosever it is."""
        async with self._database.read() as conn:
            query = select(issuances).where(issuances.c.id == issuance_id)
            row = (await conn.execute(query)).one_or_none()
        return None if row is None else to_issuance(row)


def to_issuance(row: Row[Any]) -> Issuance:
    concluded_at = row.concluded_at
    return Issuance(
        id=row.id,
        principal_id=row.principal_id,
        role=row.role,
        role_arn=row.role_arn,
        account_id=row.account_id,
        state=State(row.state),
        session_name=row.session_name,
        source_identity=row.source_identity,
        requested_at=row.requested_at,
        duration_seconds=row.duration_seconds,
        access_key_id=row.access_key_id,
        expires_at=row.expires_at,
        assumed_role_arn=row.assumed_role_arn,
        assumed_role_id=row.assumed_role_id,
        grant_id=row.grant_id,
        detail={
            "login_session_id": row.login_session_id,
            "policy_sha256": row.policy_sha256,
            "concluded_at": None if concluded_at is None else rfc3339(concluded_at),
            "sts_request_id": row.sts_request_id,
        },
    )
