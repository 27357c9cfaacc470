"""The group commit's SQL on PostgreSQL, straight on asyncpg.

Owns one connection for the life of the process, and when it is replaced. Does
not own: the order of steps (`journal_batch`) and the queue (`journal`).

The head row is the one serialisation point between processes: it is locked
first, so every statement after it (READ COMMITTED) sees what was committed by
whoever held it before, and waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import PATIENCE, Database, unavailable_when_out
from broker.adapters.store.journal_batch import Batch, Entry, Flushed, Move, Orphan, orphaned
from broker.adapters.store.journal_jobs import open_jobs_postgresql
from broker.adapters.store.records import Linked, LockedHead, head_missing, link
from broker.audit.record import Attachment, clean, prepare
from broker.issuance.journal import Intent

Driver: TypeAlias = Any  # asyncpg.Connection, which ships no types

_LOCK_HEAD = """
SELECT seq, chain, time, tree, clock_timestamp() AS now FROM audit_head WHERE id = 1 FOR UPDATE
"""

_RECHECK = """
SELECT 'principal' AS standing, id FROM principals
 WHERE id = ANY($1::text[]) AND suspended_at IS NULL
UNION ALL
SELECT 'login_session', id FROM login_sessions
 WHERE id = ANY($2::text[]) AND revoked_at IS NULL AND expires_at > $4
UNION ALL
SELECT CASE WHEN revoked_at IS NOT NULL THEN 'grant_revoked'
            WHEN expires_at <= $4 THEN 'grant_expired' ELSE 'grant' END, id FROM grants
 WHERE id = ANY($3::text[])
"""

_MOVE = """
UPDATE issuances AS i
   SET state = v.state, concluded_at = $8, expires_at = v.expires_at,
       access_key_id = v.access_key_id, assumed_role_arn = v.assumed_role_arn,
       assumed_role_id = v.assumed_role_id, sts_request_id = v.sts_request_id
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
              $7::text[])
       AS v(id, state, expires_at, access_key_id, assumed_role_arn, assumed_role_id,
            sts_request_id)
 WHERE i.id = v.id AND i.state = 'requested'
RETURNING i.id
"""

_RECORD_LATE = """
UPDATE issuances AS i
   SET expires_at = v.expires_at, access_key_id = v.access_key_id,
       assumed_role_arn = v.assumed_role_arn, assumed_role_id = v.assumed_role_id,
       sts_request_id = v.sts_request_id
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
              $7::text[])
       AS v(id, state, expires_at, access_key_id, assumed_role_arn, assumed_role_id,
            sts_request_id)
 WHERE i.id = v.id AND i.state = v.state AND i.access_key_id IS NULL
"""

_INSERT_ISSUANCES = """
INSERT INTO issuances (id, principal_id, login_session_id, grant_id, role, role_arn, account_id,
                       session_name, source_identity, duration_seconds, policy_sha256, state,
                       requested_at)
SELECT v.*, 'requested', $12
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
              $8::text[], $9::text[], $10::integer[], $11::text[]) AS v
    ON CONFLICT (id) DO NOTHING
RETURNING id
"""

_APPEND = """
WITH head AS (UPDATE audit_head SET seq = $1, chain = $2, time = $3, tree = $11 WHERE id = 1)
INSERT INTO audit_records (seq, time, type, actor_id, principal_id, record, leaf, chain)
SELECT v.seq, $3, v.type, v.actor_id, v.principal_id, v.record, v.leaf, v.chain
  FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[],
              $10::bytea[])
       AS v(seq, type, actor_id, principal_id, record, leaf, chain)
"""

_COMPLETE = """
INSERT INTO audit_nodes (height, place, hash)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bytea[])
"""

_ATTACH = """
INSERT INTO audit_attachments (sha256, body) SELECT * FROM unnest($1::text[], $2::bytea[])
    ON CONFLICT (sha256) DO NOTHING
"""

_OLD_INTENTS = """
SELECT EXISTS (SELECT FROM issuances WHERE state = 'requested'
                 AND requested_at < clock_timestamp() - make_interval(secs => $1))
"""

_ORPHAN = """
UPDATE issuances SET state = 'orphaned', concluded_at = $3
 WHERE state = 'requested'
   AND id IN (SELECT id FROM issuances WHERE state = 'requested'
                 AND requested_at < clock_timestamp() - make_interval(secs => $1)
               ORDER BY requested_at LIMIT $2)
RETURNING id, principal_id, login_session_id, grant_id, role, role_arn, account_id,
          session_name, source_identity, requested_at
"""


class PostgresLedger:
    """Implements `journal_batch.Ledger`. One flush or reaping at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._conn: AsyncConnection | None = None
        self._driver: Driver = None
        self._busy = asyncio.Lock()

    async def flush(self, entries: Sequence[Entry]) -> Flushed:
        """See Ledger."""
        async with self._transaction_holding_head() as (driver, head):
            batch = Batch(entries)
            moved: list[str] = []
            recheck = batch.live
            standing = []
            if recheck is not None:
                standing = await driver.fetch(
                    _RECHECK,
                    recheck.principals,
                    recheck.login_sessions,
                    recheck.grants,
                    head.next_time,
                )
            moves = batch.moves((row[0], row[1]) for row in standing)
            if moves:
                returned = await driver.fetch(_MOVE, *_columns(moves), head.next_time)
                moved = [row[0] for row in returned]
            inserted = await _insert(driver, batch.intents, head)
            await open_jobs_postgresql(driver, batch, head)
            linked, attachments = batch.settle(head, moved, inserted)
            if batch.recordings:
                await driver.execute(_RECORD_LATE, *_columns(batch.recordings))
            await _append(driver, linked, attachments)
        return batch.flushed

    async def reap(self, older_than: float, limit: int) -> int:
        """See Ledger. Looks first, so that an idle log's head is not locked for nothing."""
        async with self._transaction() as driver:
            if not await driver.fetchval(_OLD_INTENTS, older_than):
                return 0
        async with self._transaction_holding_head() as (driver, head):
            rows = await driver.fetch(_ORPHAN, older_than, limit, head.next_time)
            prepared = [prepare(clean(orphaned(Orphan(**dict(row))))) for row in rows]
            attachments = [one.attachment for one in prepared if one.attachment is not None]
            await _append(driver, link(prepared, head), attachments)
        return len(rows)

    async def aclose(self) -> None:
        """Close the connection."""
        async with self._busy:
            await self._release()

    @asynccontextmanager
    async def _transaction_holding_head(self) -> AsyncIterator[tuple[Driver, LockedHead]]:
        async with self._transaction() as driver:
            row = await driver.fetchrow(_LOCK_HEAD)
            if row is None:
                raise head_missing()
            yield (
                driver,
                LockedHead.read(row["seq"], row["chain"], row["time"], row["tree"], row["now"]),
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Driver]:
        """One transaction within PATIENCE. Raises AuditUnavailable where the database is out."""
        with unavailable_when_out():
            async with self._busy, asyncio.timeout(PATIENCE):
                driver = await self._connect()
                transaction = driver.transaction()
                try:
                    await transaction.start()
                    yield driver
                    await transaction.commit()
                except BaseException:
                    # Not by asking for ROLLBACK: on a dead line that takes as long again,
                    # and an answer may still be under way. The server rolls back what it
                    # hears no more of.
                    driver.terminate()
                    raise

    async def _connect(self) -> Driver:
        if self._driver is not None and not self._driver.is_closed():
            return self._driver
        await self._release()
        self._conn = await self._database.engine.connect()
        driver: Driver = (await self._conn.get_raw_connection()).driver_connection
        if not self._database.behind_pgbouncer:
            # Should this process be stopped while it holds the head, the others go on.
            await driver.execute("SET idle_in_transaction_session_timeout = '10s'")
        self._driver = driver
        return driver

    async def _release(self) -> None:
        conn, self._conn, self._driver = self._conn, None, None
        if conn is not None:
            await conn.invalidate()
            await conn.close()


async def _insert(driver: Driver, intents: Sequence[Intent], head: LockedHead) -> list[str]:
    if not intents:
        return []
    columns: tuple[list[Any], ...] = (
        [i.id for i in intents],
        [i.principal_id for i in intents],
        [i.login_session_id for i in intents],
        [i.grant_id for i in intents],
        [i.role for i in intents],
        [i.role_arn for i in intents],
        [i.account_id for i in intents],
        [i.session_name for i in intents],
        [i.source_identity for i in intents],
        [i.duration_seconds for i in intents],
        [i.policy_sha256 for i in intents],
    )
    rows = await driver.fetch(_INSERT_ISSUANCES, *columns, head.next_time)
    return [row[0] for row in rows]


def _columns(moves: Sequence[Move]) -> tuple[list[Any], ...]:
    return (
        [m.id for m in moves],
        [m.state.value for m in moves],
        [m.expires_at for m in moves],
        [m.access_key_id for m in moves],
        [m.assumed_role_arn for m in moves],
        [m.assumed_role_id for m in moves],
        [m.sts_request_id for m in moves],
    )


async def _append(driver: Driver, linked: Linked, attachments: Sequence[Attachment]) -> None:
    rows = linked.rows
    if not rows:
        return
    last = rows[-1]
    await driver.execute(
        _APPEND,
        last.seq,
        last.chain,
        last.time,
        [r.seq for r in rows],
        [r.type for r in rows],
        [r.actor_id for r in rows],
        [r.principal_id for r in rows],
        [r.record for r in rows],
        [r.leaf for r in rows],
        [r.chain for r in rows],
        linked.growth.after.to_bytes(),
    )
    completed = linked.growth.tile_roots()
    if completed:
        await driver.execute(
            _COMPLETE,
            [node.height for node, _ in completed],
            [node.place for node, _ in completed],
            [value for _, value in completed],
        )
    if attachments:
        await driver.execute(
            _ATTACH, [a.sha256 for a in attachments], [a.body for a in attachments]
        )
