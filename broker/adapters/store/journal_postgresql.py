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
from broker.adapters.store.journal_batch import (
    Batch,
    Entry,
    Flushed,
    Move,
    Orphan,
    Recheck,
    orphaned,
)
from broker.adapters.store.journal_jobs import open_jobs_postgresql
from broker.adapters.store.records import Linked, LockedHead, head_missing, link
from broker.audit.record import Attachment, clean, prepare
from broker.issuance.journal import Intent

Driver: TypeAlias = Any  # asyncpg.Connection, which ships no types

# Two statements in one message, and one query for the head and what stands: under load a round
# trip is a turn of a busy event loop, and a flush is nothing but round trips.
# The lock is a statement of its own, since a later one sees what was committed while it was
# waited for, and it itself does not.
_BEGIN = "BEGIN"
_BEGIN_HOLDING_HEAD = "BEGIN; SELECT FROM audit_head WHERE id = 1 FOR UPDATE"

_READ = """
WITH head AS MATERIALIZED (
    SELECT seq, chain, time, tree, clock_timestamp() AS now FROM audit_head WHERE id = 1
), next AS MATERIALIZED (SELECT greatest(now, time) AS time FROM head)
SELECT 'head' AS standing, NULL AS id, seq, chain, time, tree, now FROM head
UNION ALL
SELECT 'principal', id, NULL, NULL, NULL, NULL, NULL FROM principals
 WHERE id = ANY($1::text[]) AND suspended_at IS NULL
UNION ALL
SELECT 'login_session', id, NULL, NULL, NULL, NULL, NULL FROM login_sessions
 WHERE id = ANY($2::text[]) AND revoked_at IS NULL AND expires_at > (SELECT time FROM next)
UNION ALL
SELECT CASE WHEN revoked_at IS NOT NULL THEN 'grant_revoked'
            WHEN expires_at <= (SELECT time FROM next) THEN 'grant_expired' ELSE 'grant' END,
       id, NULL, NULL, NULL, NULL, NULL
  FROM grants
 WHERE id = ANY($3::text[])
"""

_CHANGE = """
WITH moved AS (
    UPDATE issuances AS i
       SET state = v.state, concluded_at = $1, expires_at = v.expires_at,
           access_key_id = v.access_key_id, assumed_role_arn = v.assumed_role_arn,
           assumed_role_id = v.assumed_role_id, sts_request_id = v.sts_request_id
      FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                  $8::text[])
           AS v(id, state, expires_at, access_key_id, assumed_role_arn, assumed_role_id,
                sts_request_id)
     WHERE i.id = v.id AND i.state = 'requested'
    RETURNING i.id
), inserted AS (
    INSERT INTO issuances (id, principal_id, login_session_id, grant_id, role, role_arn,
                           account_id, session_name, source_identity, duration_seconds,
                           policy_sha256, state, requested_at)
    SELECT v.*, 'requested', $1
      FROM unnest($9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                  $15::text[], $16::text[], $17::text[], $18::integer[], $19::text[]) AS v
        ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT true AS moved, id FROM moved UNION ALL SELECT false, id FROM inserted
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
        async with self._transaction(_BEGIN_HOLDING_HEAD) as driver:
            batch = Batch(entries)
            head, standing = await _read(driver, batch.live)
            moved, inserted = await _change(driver, batch.moves(standing), batch.intents, head)
            await open_jobs_postgresql(driver, batch, head)
            linked, attachments = batch.settle(head, moved, inserted)
            if batch.recordings:
                await driver.execute(_RECORD_LATE, *_columns(batch.recordings))
            await _append(driver, linked, attachments)
        return batch.flushed

    async def reap(self, older_than: float, limit: int) -> int:
        """See Ledger. Looks first, so that an idle log's head is not locked for nothing."""
        async with self._transaction(_BEGIN) as driver:
            if not await driver.fetchval(_OLD_INTENTS, older_than):
                return 0
        async with self._transaction(_BEGIN_HOLDING_HEAD) as driver:
            head, _ = await _read(driver, None)
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
    async def _transaction(self, begin: str) -> AsyncIterator[Driver]:
        """One transaction within PATIENCE. Raises AuditUnavailable where the database is out."""
        with unavailable_when_out():
            async with self._busy, asyncio.timeout(PATIENCE):
                driver = await self._connect()
                try:
                    await driver.execute(begin)
                    yield driver
                    await commit(driver)
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


async def commit(driver: Driver) -> None:
    await driver.execute("COMMIT")


async def _read(
    driver: Driver, recheck: Recheck | None
) -> tuple[LockedHead, list[tuple[str, str]]]:
    """The head, which is locked by now, and what stands of `recheck`."""
    asked = recheck or Recheck([], [], [])
    rows = await driver.fetch(_READ, asked.principals, asked.login_sessions, asked.grants)
    head = None
    standing: list[tuple[str, str]] = []
    for row in rows:
        if row[0] == "head":
            head = LockedHead.read(row[2], row[3], row[4], row[5], row[6])
        else:
            standing.append((row[0], row[1]))
    if head is None:
        raise head_missing()
    return head, standing


async def _change(
    driver: Driver, moves: Sequence[Move], intents: Sequence[Intent], head: LockedHead
) -> tuple[list[str], list[str]]:
    """The ids that moved, and those that were inserted."""
    if not moves and not intents:
        return [], []
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
    rows = await driver.fetch(_CHANGE, head.next_time, *_columns(moves), *columns)
    return [row[1] for row in rows if row[0]], [row[1] for row in rows if not row[0]]


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
