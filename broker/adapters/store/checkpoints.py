"""Stored checkpoints: the log's signed heads, one for each size it was signed at.

Owns the table alone. Does not own when a checkpoint is due or what it says
(`broker.adapters.checkpoints`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite

from broker.adapters.store.engine import Database
from broker.adapters.store.records import head_missing
from broker.adapters.store.schema import audit_checkpoints, audit_head


@dataclass(frozen=True, slots=True)
class Standing:
    """How many records there are, and how many of them the newest checkpoint covers."""

    records: int
    signed: int


class SqlCheckpoints:
    """Every method raises AuditUnavailable where the database is out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self) -> str | None:
        """The signed note that was made last."""
        query = _newest(audit_checkpoints.c.note)
        async with self._database.read() as conn:
            note: str | None = (await conn.execute(query)).scalar_one_or_none()
        return note

    async def standing(self) -> Standing:
        """One query, cheap enough to be asked all the time."""
        signed = func.coalesce(_newest(audit_checkpoints.c.size).scalar_subquery(), 0)
        query = select(audit_head.c.seq, signed.label("signed")).where(audit_head.c.id == 1)
        async with self._database.read() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise head_missing()
        return Standing(row.seq, row.signed)

    async def add(self, size: int, note: str) -> None:
        """Keep the note; where another process signed that size already, its note stays."""
        dialect = sqlite if self._database.dialect == "sqlite" else postgresql
        async with self._database.begin() as conn:
            await conn.execute(
                dialect.insert(audit_checkpoints)
                .values(size=size, note=note, created_at=await self._database.now(conn))
                .on_conflict_do_nothing()
            )


def _newest(column: Column[Any]) -> Select[Any]:
    # By time and not by size: after a rollback that was accepted, what is newest is smaller.
    order = (audit_checkpoints.c.created_at.desc(), audit_checkpoints.c.size.desc())
    return select(column).order_by(*order).limit(1)
