"""Wrapped data keys: the sealing ring of a broker whose sealing key is in KMS.

Owns the table alone. The rows are no secret: only KMS opens them, and each under
its own id. The newest row is the key that new secrets are sealed under.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.adapters.store.schema import factors, sealing_keys
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.errors import StartupError

_CHANGE = 0x62726B_7365616C  # the advisory lock under which sealing keys are added and moved


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """`reference`: what wraps it (`awskms:ARN`)."""

    id: str
    reference: str
    wrapped: bytes = field(repr=False)


class SqlSealingKeys:
    """Every method raises AuditUnavailable where the database is out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[WrappedKey, ...]:
        """Oldest first."""
        async with self._database.read() as conn:
            return await _all(conn)

    async def begin(self, keys: Sequence[WrappedKey]) -> None:
        """Keep the first keys, the last of them the current one. Raises StartupError where there
        are keys, or a lone new key where secrets are sealed already, which it would not open.
        """
        async with self._database.begin() as conn:
            await _lock(conn)
            if await _all(conn):
                raise StartupError("this database has sealing keys of KMS already: rotate them")
            sealed = (await conn.execute(select(factors.c.id).limit(1))).first()
            if sealed is not None and len(keys) < 2:
                raise StartupError("secrets are sealed already: move their keys, with rotate --to")
            await self._add(conn, keys)

    async def add(self, key: WrappedKey) -> None:
        """Keep a key and make it the current one. Raises StartupError where the others are wrapped
        by another key of KMS: no setting would open both.
        """
        async with self._database.begin() as conn:
            await _lock(conn)
            for one in await _all(conn):
                if one.reference != key.reference:
                    raise StartupError(
                        f"the sealing keys are wrapped by {one.reference} by now: set [keys]"
                        " sealing to that first"
                    )
            await self._add(conn, [key])

    async def replace(self, keys: Sequence[WrappedKey]) -> None:
        """Keep the same keys wrapped anew, and the last of `keys` as the current one. Raises
        StartupError where a key was added meanwhile.
        """
        *same, new = keys
        async with self._database.begin() as conn:
            await _lock(conn)
            if [one.id for one in await _all(conn)] != [one.id for one in same]:
                raise StartupError("another process added a sealing key; try again")
            for one in same:
                await conn.execute(
                    update(sealing_keys)
                    .where(sealing_keys.c.id == one.id)
                    .values(reference=one.reference, wrapped=one.wrapped)
                )
            await self._add(conn, [new])

    async def _add(self, conn: AsyncConnection, keys: Sequence[WrappedKey]) -> None:
        query = select(func.coalesce(func.max(sealing_keys.c.position), 0))
        last: int = (await conn.execute(query)).scalar_one()
        now = await self._database.now(conn)
        rows = [
            {
                "position": last + place,
                "id": key.id,
                "reference": key.reference,
                "wrapped": key.wrapped,
                "created_at": now,
            }
            for place, key in enumerate(keys, start=1)
        ]
        try:
            await conn.execute(insert(sealing_keys), rows)
        except IntegrityError as fault:  # of two that write at once, the later
            raise StartupError("another process added a sealing key; try again") from fault
        event = Event(
            EventType.KEYS_ROTATED,
            SYSTEM,
            Outcome.SUCCESS,
            subject={"purpose": "sealing"},
            detail={"key": keys[-1].id, "reference": keys[-1].reference},
        )
        await append(conn, [event])


async def _lock(conn: AsyncConnection) -> None:
    """Of two that change the keys at once, one finds what the other has made of them."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHANGE})


async def _all(conn: AsyncConnection) -> tuple[WrappedKey, ...]:
    columns = sealing_keys.c
    query = select(columns.id, columns.reference, columns.wrapped).order_by(columns.position)
    rows = (await conn.execute(query)).all()
    return tuple(WrappedKey(row.id, row.reference, bytes(row.wrapped)) for row in rows)
