"""Stored secrets sealed again, under the key that is current now.

Owns: reading and replacing what is sealed, a batch a transaction with its record. Does not own:
the ring that opens and seals (`adapters/sealing`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.sealing import KeyRing, UnsealFailed
from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.adapters.store.schema import factors
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.identity.second_factor import TOTP_PURPOSE
from broker.identity.totp import Sealed

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Resealed:
    """`count` secrets were sealed again; those of `unopened` (ids of principals) stand as they
    were, since no key of the ring opens them.
    """

    count: int
    unopened: tuple[str, ...]


async def reseal(database: Database, ring: KeyRing) -> Resealed:
    """Seal every second-factor secret that an older key sealed under the current one.

    What was done stays done where it is interrupted, and doing it again goes on. Servers may run
    meanwhile, if their ring has the current key. Raises AuditUnavailable.
    """
    count, unopened, after = 0, list[str](), ""
    while True:
        async with database.begin() as conn:
            rows = await _batch(conn, ring.current, after)
            if not rows:
                return Resealed(count, tuple(unopened))
            sealed = 0
            for row in rows:
                if await _reseal(conn, row, ring):
                    sealed += 1
                else:
                    unopened.append(row.principal_id)
            if sealed:
                await append(conn, [_event(ring.current, sealed)])
            count, after = count + sealed, rows[-1].id


async def _batch(conn: AsyncConnection, current: str, after: str) -> list[Row[tuple[object, ...]]]:
    query = (
        select(factors)
        .where(factors.c.key_id != current, factors.c.id > after)
        .order_by(factors.c.id)
        .limit(_BATCH)
        # A factor that its owner replaces at this moment is theirs: it is gone or new afterwards.
        .with_for_update()
    )
    return list((await conn.execute(query)).all())


async def _reseal(conn: AsyncConnection, row: Row[tuple[object, ...]], ring: KeyRing) -> bool:
    old = Sealed(row.key_id, row.version, row.nonce, row.ciphertext)
    try:
        new = ring.reseal(old, purpose=TOTP_PURPOSE, owner=row.principal_id)
    except UnsealFailed:
        return False
    await conn.execute(
        update(factors)
        .where(factors.c.id == row.id)
        .values(key_id=new.key_id, version=new.version, nonce=new.nonce, ciphertext=new.ciphertext)
    )
    return True


def _event(key: str, count: int) -> Event:
    return Event(
        EventType.KEYS_RESEALED,
        SYSTEM,
        Outcome.SUCCESS,
        subject={"purpose": "sealing"},
        detail={"key": key, "secrets": count},
    )
