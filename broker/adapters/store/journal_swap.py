"""A group commit in one statement, where the head is known: compare and swap on PostgreSQL.

Owns that statement, and what a process knows of a head that it left itself. A transaction
that first locks the head takes five round trips; here the records are made on the head as this
process last left it, and written only if it still stands there and nothing else is in the way.
Does not own: the long way, which every batch takes that is not written here (`journal_postgresql`).

Why the recheck may share the statement, and so its snapshot: whatever could end somebody's
standing appends its record in the same transaction, and so moves the head. A head that is found
unmoved once it is locked means that nothing was committed between the snapshot and the lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from typing import NamedTuple

from broker.adapters.store.journal_batch import Batch, Entry, Flushed, Recheck
from broker.adapters.store.journal_columns import (
    attachment_columns,
    intent_columns,
    move_columns,
    node_columns,
    record_columns,
)
from broker.adapters.store.line import Driver
from broker.adapters.store.records import Linked, LockedHead

# How far the records' time may be from the database's clock. It is that clock as it was read last
# and what passed since: exact, unless somebody set the clock, or the statement was long on its way.
_TOLERANCE = timedelta(milliseconds=250)

# $6 is the records' time, and after $7 comes what each part brings.
_SWAP = """
WITH clear AS MATERIALIZED (
    SELECT FROM (SELECT clock_timestamp() AS now) AS clock
     WHERE $6 BETWEEN now - $7::interval AND now + $7::interval {conditions}
), head AS (
    UPDATE audit_head SET seq = $3, chain = $4, tree = $5, time = $6
     WHERE id = 1 AND seq = $1 AND chain = $2 AND EXISTS (SELECT FROM clear)
    RETURNING time
) {changes}
SELECT clock_timestamp() FROM head
"""
_FIXED = 7


class _Part(NamedTuple):
    """Something that a batch may or may not bring: in the statement only where it does, for each
    costs time to make ready. `{0}` and so on are its columns.
    """

    columns: int
    condition: str = ""
    change: str = ""


# The counts and not EXISTS, for which PostgreSQL may choose to read a whole table.
_RECHECK = _Part(
    3,
    condition="""
       AND cardinality({0}::text[]) = (
            SELECT count(*) FROM principals
             WHERE id = ANY({0}) AND suspended_at IS NULL)
       AND cardinality({1}::text[]) = (
            SELECT count(*) FROM login_sessions
             WHERE id = ANY({1}) AND revoked_at IS NULL AND expires_at > greatest(now, $6))
       AND cardinality({2}::text[]) = (
            SELECT count(*) FROM grants
             WHERE id = ANY({2}) AND revoked_at IS NULL AND expires_at > greatest(now, $6))
""",
)
_MOVES = _Part(
    7,
    condition="""
       AND cardinality({0}::text[]) = (
            SELECT count(*) FROM issuances WHERE id = ANY({0}) AND state = 'requested')
""",
    change=""", moved AS (
    UPDATE issuances AS i
       SET state = v.state, concluded_at = head.time, expires_at = v.expires_at,
           access_key_id = v.access_key_id, assumed_role_arn = v.assumed_role_arn,
           assumed_role_id = v.assumed_role_id, sts_request_id = v.sts_request_id
      FROM head, unnest({0}::text[], {1}::text[], {2}::timestamptz[], {3}::text[], {4}::text[],
                        {5}::text[], {6}::text[])
           AS v(id, state, expires_at, access_key_id, assumed_role_arn, assumed_role_id,
                sts_request_id)
     WHERE i.id = v.id
)""",
)
_INTENTS = _Part(
    11,
    condition="""
       AND 0 = (SELECT count(*) FROM issuances WHERE id = ANY({0}::text[]))
""",
    change=""", inserted AS (
    INSERT INTO issuances (id, principal_id, login_session_id, grant_id, role, role_arn,
                           account_id, session_name, source_identity, duration_seconds,
                           policy_sha256, state, requested_at)
    SELECT v.*, 'requested', head.time
      FROM head, unnest({0}::text[], {1}::text[], {2}::text[], {3}::text[], {4}::text[],
                        {5}::text[], {6}::text[], {7}::text[], {8}::text[], {9}::integer[],
                        {10}::text[]) AS v
)""",
)
_RECORDS = _Part(
    7,
    change=""", recorded AS (
    INSERT INTO audit_records (seq, time, type, actor_id, principal_id, record, leaf, chain)
    SELECT v.seq, head.time, v.type, v.actor_id, v.principal_id, v.record, v.leaf, v.chain
      FROM head, unnest({0}::bigint[], {1}::text[], {2}::text[], {3}::text[], {4}::bytea[],
                        {5}::bytea[], {6}::bytea[])
           AS v(seq, type, actor_id, principal_id, record, leaf, chain)
)""",
)
_NODES = _Part(
    3,
    change=""", completed AS (
    INSERT INTO audit_nodes (height, place, hash)
    SELECT v.* FROM head, unnest({0}::integer[], {1}::bigint[], {2}::bytea[]) AS v
)""",
)
_ATTACHMENTS = _Part(
    2,
    change=""", attached AS (
    INSERT INTO audit_attachments (sha256, body)
    SELECT v.* FROM head, unnest({0}::text[], {1}::bytea[]) AS v
        ON CONFLICT (sha256) DO NOTHING
)""",
)


@cache
def _statement(parts: tuple[_Part, ...]) -> str:
    conditions, changes, used = "", "", _FIXED
    for part in parts:
        columns = [f"${used + number}" for number in range(1, part.columns + 1)]
        conditions += part.condition.format(*columns)
        changes += part.change.format(*columns)
        used += part.columns
    return _SWAP.format(conditions=conditions, changes=changes)


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The head as this process left it, and when (`time.monotonic`) its `now` was read."""

    head: LockedHead
    read_at: float

    @classmethod
    def left_by(cls, linked: Linked, now: datetime, read_at: float) -> KnownHead:
        """After an append of at least one row."""
        last = linked.rows[-1]
        return cls(LockedHead(last.seq, last.chain, last.time, linked.growth.after, now), read_at)

    @property
    def by_now(self) -> LockedHead:
        """With the database's clock as it must stand now."""
        passed = timedelta(seconds=time.monotonic() - self.read_at)
        return replace(self.head, now=self.head.now + passed)


async def swap(
    driver: Driver, entries: Sequence[Entry], known: KnownHead
) -> tuple[Flushed, KnownHead] | None:
    """Commit all entries in one statement; None where that can't be, and nothing was written:
    the head has moved, somebody's standing ended, an issuance was concluded already, or the
    database's clock was set.
    """
    batch = Batch(entries)
    if not batch.is_plain:
        return None
    head = known.by_now
    live = batch.live or Recheck()
    moves, intents = batch.moves(live.standing), batch.intents
    linked, attachments = batch.settle(head, [m.id for m in moves], [i.id for i in intents])
    if not linked.rows or batch.recordings:
        return None
    brought = {
        _RECHECK: live.columns,
        _MOVES: move_columns(moves),
        _INTENTS: intent_columns(intents),
        _RECORDS: record_columns(linked.rows),
        _NODES: node_columns(linked.growth),
        _ATTACHMENTS: attachment_columns(attachments),
    }
    brought = {part: columns for part, columns in brought.items() if any(columns)}
    last = linked.rows[-1]
    now = await driver.fetchval(
        _statement(tuple(brought)),
        head.seq,
        head.chain,
        last.seq,
        last.chain,
        linked.growth.after.to_bytes(),
        last.time,
        _TOLERANCE,
        *chain.from_iterable(brought.values()),
    )
    if now is None:
        return None
    return batch.flushed, KnownHead.left_by(linked, now, time.monotonic())
