"""The public history of the log's keys, for logs whose key is in KMS.

Owns the table alone; a key file holds its own history. The first row of a log
that was signed by a file before holds that file's keys: so all rows together
lead from the log's first key to its newest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.adapters.store.schema import audit_checkpoints, audit_log_keys
from broker.audit.checkpoint import LogKeys
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.errors import StartupError


@dataclass(frozen=True, slots=True)
class LogKeyHistory:
    """Verifier keys, oldest first, where each one's private half is, and the notes between."""

    origin: str
    vkeys: tuple[str, ...]
    references: tuple[str, ...]
    successions: tuple[str, ...]


class SqlLogKeys:
    """Every method raises AuditUnavailable where the database is out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def history(self) -> LogKeyHistory | None:
        """None where no key of KMS has signed this log."""
        async with self._database.read() as conn:
            return await _history(conn)

    async def begin(self, origin: str, vkey: str, reference: str) -> None:
        """Keep the first key of a new log. Raises StartupError where the log has a key, or
        something was signed already.
        """
        async with _alone(), self._database.begin() as conn:
            signed = (await conn.execute(select(audit_checkpoints.c.size).limit(1))).first()
            if signed is not None or await _history(conn) is not None:
                raise StartupError("this log has a key already: rotate it instead")
            row = {"position": 1, "origin": origin, "vkey": vkey, "reference": reference}
            now = await self._database.now(conn)
            await conn.execute(insert(audit_log_keys).values(**row, created_at=now))
            await append(conn, [_rotated(origin, vkey, None)])

    async def succeed(
        self, log: LogKeys, log_reference: str, vkey: str, reference: str, succession: str
    ) -> None:
        """Keep the successor of the newest of `log.keys`; the keys so far too, where a file held
        them. Raises StartupError where another succession came first.
        """
        async with _alone(), self._database.begin() as conn:
            history = await _history(conn)
            now = await self._database.now(conn)
            known = () if history is None else history.vkeys
            so_far = tuple(str(key) for key in log.keys)
            if known and known != so_far:
                raise StartupError("the log's key was replaced meanwhile; look, and try again")
            notes = (None, *log.successions)
            keys = list(zip(so_far, [log_reference] * len(so_far), notes, strict=True))
            keys.append((vkey, reference, succession))
            rows = [
                {
                    "position": position,
                    "origin": log.origin,
                    "vkey": one,
                    "reference": where,
                    "succession": note,
                    "created_at": now,
                }
                for position, (one, where, note) in enumerate(keys, start=1)
            ]
            await conn.execute(insert(audit_log_keys), rows[len(known) :])
            await append(conn, [_rotated(log.origin, vkey, so_far[-1])])


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """Of two that write at once, the later finds its place taken."""
    try:
        yield
    except IntegrityError as fault:
        raise StartupError(
            "another process was first to keep a key; look, and try again"
        ) from fault


async def _history(conn: AsyncConnection) -> LogKeyHistory | None:
    columns = audit_log_keys.c
    query = select(columns.origin, columns.vkey, columns.reference, columns.succession)
    rows = (await conn.execute(query.order_by(columns.position))).all()
    if not rows:
        return None
    return LogKeyHistory(
        rows[0].origin,
        tuple(row.vkey for row in rows),
        tuple(row.reference for row in rows),
        tuple(row.succession for row in rows if row.succession is not None),
    )


def _rotated(origin: str, vkey: str, previous: str | None) -> Event:
    return Event(
        EventType.KEYS_ROTATED,
        SYSTEM,
        Outcome.SUCCESS,
        subject={"origin": origin, "purpose": "signing"},
        detail={"key": vkey, "previous": previous},
    )
