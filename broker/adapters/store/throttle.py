"""Limits on attempts, counted in the database, so that they hold over all replicas.

Owns: the counters (fixed windows by the database's clock), and taking attempts
from them in lots: with a row update for each attempt, a busy limit would cost
more than what it protects. A lot is a hundredth of the limit, so replicas
together never admit more than it says, and up to a hundredth each less.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import case
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import throttle_counters
from broker.errors import RateLimited
from broker.identity.throttle import Limit

# A counter lost in a crash of the server is no harm; waiting for the disk is. set_config holds to
# the end of the transaction, which is this statement.
_COUNT = """
WITH quick AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true), clock_timestamp() AS now
), current AS (
    SELECT now, floor(extract(epoch FROM now) / $4::bigint)::bigint AS number FROM quick
)
INSERT INTO throttle_counters AS counter (name, key_hash, window_number, admitted, expires_at)
SELECT $1, $2, number, $3, to_timestamp((number + 1) * $4::bigint) FROM current
    ON CONFLICT (name, key_hash) DO UPDATE
   SET admitted = CASE WHEN counter.window_number = excluded.window_number
                       THEN counter.admitted + excluded.admitted ELSE excluded.admitted END,
       window_number = excluded.window_number, expires_at = excluded.expires_at
RETURNING admitted, expires_at, (SELECT now FROM current) AS now
"""

_LOTS_PER_LIMIT = 100
_MAX_HELD = 4096


@dataclass(slots=True)
class _Lot:
    """Attempts that this process may still admit until `ends` (monotonic seconds)."""

    left: int = 0
    ends: float = 0.0
    limit_reached: bool = False
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


class SqlThrottle:
    """Implements `identity.throttle.Throttle`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lots: OrderedDict[tuple[str, bytes], _Lot] = OrderedDict()

    async def admit(self, limit: Limit, key: str) -> None:
        """Raises RateLimited. What is refused costs no further look at the database."""
        key_hash = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        lot = self._lot(limit.name, key_hash)
        async with lot.taking:
            if time.monotonic() >= lot.ends or (lot.left == 0 and not lot.limit_reached):
                await self._take(lot, limit, key_hash)
            if lot.left == 0:
                raise RateLimited(retry_after=max(1, math.ceil(lot.ends - time.monotonic())))
            lot.left -= 1

    def _lot(self, name: str, key_hash: bytes) -> _Lot:
        lot = self._lots.setdefault((name, key_hash), _Lot())
        self._lots.move_to_end((name, key_hash))
        if len(self._lots) > _MAX_HELD:
            self._lots.popitem(last=False)
        return lot

    async def _take(self, lot: _Lot, limit: Limit, key_hash: bytes) -> None:
        wanted = max(1, limit.count // _LOTS_PER_LIMIT)
        if self._database.dialect == "postgresql":
            admitted, ends_at, now = await self._count_postgresql(limit, key_hash, wanted)
        else:
            async with self._database.begin() as conn:
                now = await self._database.now(conn)
                window, ends_at = _window(now, limit.seconds)
                admitted = await _count(conn, limit.name, key_hash, window, ends_at, wanted)
        lot.left = max(0, min(wanted, limit.count - (admitted - wanted)))
        lot.limit_reached = admitted >= limit.count
        lot.ends = time.monotonic() + (ends_at - now).total_seconds()

    async def _count_postgresql(
        self, limit: Limit, key_hash: bytes, wanted: int
    ) -> tuple[int, datetime, datetime]:
        """Straight to the driver, in one statement that is its own transaction: whoever asks
        once in a while pays for it each time.
        """
        async with self._database.driver() as driver:
            # PgBouncer needs a transaction, to keep parse and execute on one server connection.
            pinned = driver.transaction() if self._database.behind_pgbouncer else nullcontext()
            async with pinned:
                row = await driver.fetchrow(_COUNT, limit.name, key_hash, wanted, limit.seconds)
        return row["admitted"], row["expires_at"], row["now"]


def _window(now: datetime, seconds: int) -> tuple[int, datetime]:
    """The window's number since the epoch, and when it ends."""
    number = int(now.timestamp()) // seconds
    return number, datetime.fromtimestamp((number + 1) * seconds, UTC)


async def _count(
    conn: AsyncConnection,
    name: str,
    key_hash: bytes,
    window: int,
    ends_at: datetime,
    wanted: int,
) -> int:
    """Add `wanted` to the window's counter; what it holds then. For SQLite."""
    statement = sqlite.insert(throttle_counters).values(
        name=name, key_hash=key_hash, window_number=window, admitted=wanted, expires_at=ends_at
    )
    column, new = throttle_counters.c, statement.excluded
    upsert = statement.on_conflict_do_update(
        index_elements=[column.name, column.key_hash],
        set_={
            "admitted": case(
                (column.window_number == new.window_number, column.admitted + new.admitted),
                else_=new.admitted,
            ),
            "window_number": new.window_number,
            "expires_at": new.expires_at,
        },
    ).returning(column.admitted)
    admitted: int = (await conn.execute(upsert)).scalar_one()
    return admitted
