"""The group commit's SQL on PostgreSQL, straight on asyncpg.

Owns the long way, and which of the two ways a batch is written. Does not own: the
order of steps (`journal_batch`), the short way (`journal_swap`) and the queue
(`journal`).

The head row is the one serialisation point between processes. The long way locks it
first, so every statement after it (READ COMMITTED) sees what was committed by
whoever held it before, and waits for nobody. The short way is one statement, for a
process that finds the head as it left it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from broker.adapters.store.engine import Database
from broker.adapters.store.journal_batch import (
    Batch,
    Entry,
    Flushed,
    Move,
    Orphan,
    Recheck,
    orphaned,
)
from broker.adapters.store.journal_columns import (
    attachment_columns,
    intent_columns,
    move_columns,
    node_columns,
    record_columns,
)
from broker.adapters.store.journal_jobs import open_jobs_postgresql
from broker.adapters.store.journal_swap import KnownHead, swap
from broker.adapters.store.line import Driver
from broker.adapters.store.records import Linked, LockedHead, head_missing, link
from broker.audit.record import Attachment, clean, prepare
from broker.issuance.journal import Intent

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
        # Should this process be stopped while it holds the head, the others go on.
        self._line = database.line("idle_in_transaction_session_timeout = '10s'")
        # PgBouncer would need a transaction around the one statement, which is what it saves.
        self._may_swap = not database.behind_pgbouncer
        # The head as this process left it last, and the same where nobody moved it between its
        # last two flushes: with several busy processes, trying to swap would be one more trip.
        self._left: KnownHead | None = None
        self._known: KnownHead | None = None

    async def flush(self, entries: Sequence[Entry]) -> Flushed:
        """See Ledger."""
        known, self._known = self._known, None
        if known is not None:
            async with self._line.driver() as driver:
                swapped = await swap(driver, entries, known)
            if swapped is not None:
                flushed, self._left = swapped
                self._known = self._left
                return flushed
        return await self._flush_holding_head(entries)

    async def _flush_holding_head(self, entries: Sequence[Entry]) -> Flushed:
        async with self._transaction(_BEGIN_HOLDING_HEAD) as driver:
            batch = Batch(entries)
            head, standing = await _read(driver, batch.live)
            read_at = time.monotonic()
            moved, inserted = await _change(driver, batch.moves(standing), batch.intents, head)
            await open_jobs_postgresql(driver, batch, head)
            linked, attachments = batch.settle(head, moved, inserted)
            if batch.recordings:
                await driver.execute(_RECORD_LATE, *move_columns(batch.recordings))
            await _append(driver, linked, attachments)
        if self._may_swap:
            undisturbed = self._left is not None and self._left.head.chain == head.chain
            self._left = KnownHead.left_by(linked, head.now, read_at) if linked.rows else None
            self._known = self._left if undisturbed else None
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
        await self._line.aclose()

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Driver]:
        """One transaction. Raises AuditUnavailable where the database is out."""
        async with self._line.driver() as driver:
            await driver.execute(begin)
            yield driver
            await commit(driver)


async def commit(driver: Driver) -> None:
    await driver.execute("COMMIT")


async def _read(
    driver: Driver, recheck: Recheck | None
) -> tuple[LockedHead, list[tuple[str, str]]]:
    """The head, which is locked by now, and what stands of `recheck`."""
    rows = await driver.fetch(_READ, *(recheck or Recheck()).columns)
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
    rows = await driver.fetch(
        _CHANGE, head.next_time, *move_columns(moves), *intent_columns(intents)
    )
    return [row[1] for row in rows if row[0]], [row[1] for row in rows if not row[0]]


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
        *record_columns(rows),
        linked.growth.after.to_bytes(),
    )
    nodes = node_columns(linked.growth)
    if nodes[0]:
        await driver.execute(_COMPLETE, *nodes)
    if attachments:
        await driver.execute(_ATTACH, *attachment_columns(attachments))
