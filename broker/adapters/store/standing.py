"""How the log and the issuances stand, for whoever watches the broker. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from broker.adapters.store.engine import Database
from broker.adapters.store.records import head_missing
from broker.adapters.store.schema import audit_checkpoints, audit_head, issuances


@dataclass(frozen=True, slots=True)
class LogStanding:
    """`records`: how many there are. `signed`: how many of them the newest checkpoint covers,
    which was made at `signed_at`. `open_intents`: issuances without an outcome.
    """

    records: int
    signed: int
    signed_at: datetime | None
    open_intents: int


async def log_standing(database: Database) -> LogStanding:
    """In two short queries. Raises AuditUnavailable where the database is out."""
    newest = (
        select(audit_checkpoints.c.size, audit_checkpoints.c.created_at)
        .order_by(audit_checkpoints.c.created_at.desc(), audit_checkpoints.c.size.desc())
        .limit(1)
    )
    # Over the partial index of those, which the reaper keeps short.
    open_intents = (
        select(func.count())
        .select_from(issuances)
        .where(issuances.c.state == "requested")
        .scalar_subquery()
    )
    head = select(audit_head.c.seq, open_intents.label("open")).where(audit_head.c.id == 1)
    async with database.read() as conn:
        row = (await conn.execute(head)).one_or_none()
        signed = (await conn.execute(newest)).one_or_none()
    if row is None:
        raise head_missing()
    if signed is None:
        return LogStanding(row.seq, 0, None, row.open)
    return LogStanding(row.seq, signed.size, signed.created_at, row.open)
