"""Stored checkpoints: the log's signed heads, one for each size it was signed at.

Owns their table and that of the witnesses' cosignatures. Does not own when a
checkpoint is due or what it says (`broker.adapters.checkpoints`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite

from broker.adapters.store.engine import Database
from broker.adapters.store.records import head_missing
from broker.adapters.store.schema import (
    audit_checkpoints,
    audit_cosignatures,
    audit_head,
    audit_records,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How many records there are, and how many of them the newest checkpoint covers."""

    records: int
    signed: int


class SqlCheckpoints:
    """Every method raises AuditUnavailable where the database is out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = sqlite if database.dialect == "sqlite" else postgresql

    async def latest(self) -> str | None:
        """The signed note that was made last, with the lines of the witnesses that cosigned it."""
        newest = _newest(audit_checkpoints.c.size).scalar_subquery()
        query = (
            select(audit_checkpoints.c.note, audit_cosignatures.c.line)
            .outerjoin(audit_cosignatures, audit_cosignatures.c.size == audit_checkpoints.c.size)
            .where(audit_checkpoints.c.size == newest)
            .order_by(audit_cosignatures.c.witness)
        )
        async with self._database.read() as conn:
            rows = (await conn.execute(query)).all()
        if not rows:
            return None
        note: str = rows[0].note
        return note + "".join(row.line for row in rows if row.line is not None)

    async def add_cosignature(self, size: int, witness: str, line: str) -> None:
        """Keep a witness's line for the checkpoint of that size; the first one stays.

        `witness` is its verifier key.
        """
        async with self._database.begin() as conn:
            await conn.execute(
                self._dialect.insert(audit_cosignatures)
                .values(
                    size=size,
                    witness=witness,
                    line=line,
                    created_at=await self._database.now(conn),
                )
                .on_conflict_do_nothing()
            )

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
        """Keep the note; where another process signed that size already, its note stays.

        It is dated by the last record that it covers: of two processes that sign at once, the
        one that signed more made the newer one, whichever is stored last.
        """
        covered = select(audit_records.c.time).where(audit_records.c.seq == size)
        async with self._database.begin() as conn:
            time = (await conn.execute(covered)).scalar_one_or_none()
            await conn.execute(
                self._dialect.insert(audit_checkpoints)
                .values(size=size, note=note, created_at=time or await self._database.now(conn))
                .on_conflict_do_nothing()
            )


def _newest(column: Column[Any]) -> Select[Any]:
    # By time and not by size: after a rollback that was accepted, what is newest is smaller.
    order = (audit_checkpoints.c.created_at.desc(), audit_checkpoints.c.size.desc())
    return select(column).order_by(*order).limit(1)
