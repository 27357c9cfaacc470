"""The group commit's SQL on SQLite, in a thread with a connection of its own.

Does not own: that thread (`sqlite_line`), the order of steps (`journal_batch`)
and the queue (`journal`).

BEGIN IMMEDIATE takes the database's one write lock, which here stands for the
head's row lock, against other connections and other processes alike.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

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
from broker.adapters.store.journal_jobs import open_jobs_sqlite
from broker.adapters.store.outage import PATIENCE, unavailable_when_out
from broker.adapters.store.records import Linked, LockedHead, head_missing, link
from broker.adapters.store.utc_time import from_microseconds, to_microseconds
from broker.audit.record import Attachment, clean, prepare
from broker.issuance.journal import Intent

T = TypeVar("T")

_RECHECK = """
SELECT 'principal', id FROM principals
 WHERE id IN (SELECT value FROM json_each(:principals)) AND suspended_at IS NULL
UNION ALL
SELECT 'login_session', id FROM login_sessions
 WHERE id IN (SELECT value FROM json_each(:login_sessions))
   AND revoked_at IS NULL AND expires_at > :now
UNION ALL
SELECT CASE WHEN revoked_at IS NOT NULL THEN 'grant_revoked'
            WHEN expires_at <= :now THEN 'grant_expired' ELSE 'grant' END, id FROM grants
 WHERE id IN (SELECT value FROM json_each(:grants))
"""

_MOVE = """
UPDATE issuances
   SET state = ?, concluded_at = ?, expires_at = ?, access_key_id = ?, assumed_role_arn = ?,
       assumed_role_id = ?, sts_request_id = ?
 WHERE id = ? AND state = 'requested'
"""

_RECORD_LATE = """
UPDATE issuances
   SET expires_at = ?, access_key_id = ?, assumed_role_arn = ?, assumed_role_id = ?,
       sts_request_id = ?
 WHERE id = ? AND state = ? AND access_key_id IS NULL
"""

_INSERT_ISSUANCE = """
INSERT INTO issuances (id, principal_id, login_session_id, grant_id, role, role_arn, account_id,
                       session_name, source_identity, duration_seconds, policy_sha256, state,
                       requested_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'requested', ?) ON CONFLICT (id) DO NOTHING
"""

_APPEND = """
INSERT INTO audit_records (seq, time, type, actor_id, principal_id, record, leaf, chain)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

_ORPHAN = """
UPDATE issuances SET state = 'orphaned', concluded_at = :now
 WHERE state = 'requested'
   AND id IN (SELECT id FROM issuances WHERE state = 'requested' AND requested_at < :before
               ORDER BY requested_at LIMIT :limit)
RETURNING id, principal_id, login_session_id, grant_id, role, role_arn, account_id,
          session_name, source_identity, requested_at
"""


class SqliteLedger:
    """Implements `journal_batch.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Other tasks' transactions queue here too, instead of polling for SQLite's lock.
        self._writer = database.writer or asyncio.Lock()
        self._line = database.sqlite_line("journal_mode=WAL", "synchronous=FULL")

    async def flush(self, entries: Sequence[Entry]) -> Flushed:
        """See Ledger."""
        batch = Batch(entries)
        await self._alone(partial(_flush, batch))
        return batch.flushed

    async def reap(self, older_than: float, limit: int) -> int:
        """See Ledger."""
        return await self._alone(partial(_reap, older_than, limit))

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        await self._line.aclose()

    async def _alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with unavailable_when_out():
            async with asyncio.timeout(PATIENCE):
                await self._writer.acquire()
            try:
                return await self._line.run(work)
            finally:
                self._writer.release()


# --- In the line's thread ----------------------------------------------------------------------


def _flush(batch: Batch, conn: sqlite3.Connection) -> None:
    with _transaction(conn) as head:
        now = to_microseconds(head.next_time)
        recheck = batch.live
        standing = [] if recheck is None else _recheck(conn, recheck, now)
        moved = [move.id for move in batch.moves(standing) if _move(conn, move, now)]
        inserted = [intent.id for intent in batch.intents if _insert(conn, intent, now)]
        open_jobs_sqlite(conn, batch, head)
        linked, attachments = batch.settle(head, moved, inserted)
        for late in batch.recordings:
            conn.execute(_RECORD_LATE, (*_outcome(late), late.id, late.state.value))
        _append(conn, linked, attachments)


def _reap(older_than: float, limit: int, conn: sqlite3.Connection) -> int:
    with _transaction(conn) as head:
        found = conn.execute(
            _ORPHAN,
            {
                "now": to_microseconds(head.next_time),
                "before": to_microseconds(head.now - timedelta(seconds=older_than)),
                "limit": limit,
            },
        ).fetchall()
        prepared = [prepare(clean(orphaned(_orphan(row)))) for row in found]
        attachments = [one.attachment for one in prepared if one.attachment is not None]
        _append(conn, link(prepared, head), attachments)
    return len(found)


@contextmanager
def _transaction(conn: sqlite3.Connection) -> Iterator[LockedHead]:
    """One transaction that holds the head. What is raised inside closes the connection (see
    `SqliteLine.run`), and so rolls back.
    """
    conn.execute("BEGIN IMMEDIATE")
    yield _read_head(conn)
    conn.execute("COMMIT")


def _read_head(conn: sqlite3.Connection) -> LockedHead:
    row = conn.execute("SELECT seq, chain, time, tree FROM audit_head WHERE id = 1").fetchone()
    if row is None:
        raise head_missing()
    time = None if row[2] is None else from_microseconds(row[2])
    return LockedHead.read(row[0], row[1], time, row[3], datetime.now(UTC))


def _recheck(conn: sqlite3.Connection, recheck: Recheck, now: int) -> list[tuple[str, str]]:
    ids = {
        "principals": json.dumps(recheck.principals),
        "login_sessions": json.dumps(recheck.login_sessions),
        "grants": json.dumps(recheck.grants),
    }
    # Plain tuples: sqlite3.Row equals no tuple, and the caller looks for tuples.
    return [(kind, found) for kind, found in conn.execute(_RECHECK, ids | {"now": now})]


def _orphan(row: sqlite3.Row) -> Orphan:
    columns = dict(row)
    return Orphan(**columns | {"requested_at": from_microseconds(columns["requested_at"])})


def _outcome(move: Move) -> tuple[int | str | None, ...]:
    return (
        None if move.expires_at is None else to_microseconds(move.expires_at),
        move.access_key_id,
        move.assumed_role_arn,
        move.assumed_role_id,
        move.sts_request_id,
    )


def _move(conn: sqlite3.Connection, move: Move, now: int) -> bool:
    done = conn.execute(_MOVE, (move.state.value, now, *_outcome(move), move.id))
    return done.rowcount == 1


def _insert(conn: sqlite3.Connection, intent: Intent, now: int) -> bool:
    values = (
        intent.id,
        intent.principal_id,
        intent.login_session_id,
        intent.grant_id,
        intent.role,
        intent.role_arn,
        intent.account_id,
        intent.session_name,
        intent.source_identity,
        intent.duration_seconds,
        intent.policy_sha256,
        now,
    )
    return conn.execute(_INSERT_ISSUANCE, values).rowcount == 1


def _append(conn: sqlite3.Connection, linked: Linked, attachments: Sequence[Attachment]) -> None:
    rows = linked.rows
    if not rows:
        return
    last = rows[-1]
    time = to_microseconds(last.time)
    conn.executemany(
        _APPEND,
        [
            (r.seq, time, r.type, r.actor_id, r.principal_id, r.record, r.leaf, r.chain)
            for r in rows
        ],
    )
    conn.execute(
        "UPDATE audit_head SET seq = ?, chain = ?, time = ?, tree = ? WHERE id = 1",
        (last.seq, last.chain, time, linked.growth.after.to_bytes()),
    )
    conn.executemany(
        "INSERT INTO audit_nodes (height, place, hash) VALUES (?, ?, ?)",
        [(node.height, node.place, value) for node, value in linked.growth.tile_roots()],
    )
    conn.executemany(
        "INSERT INTO audit_attachments (sha256, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(a.sha256, a.body) for a in attachments],
    )
