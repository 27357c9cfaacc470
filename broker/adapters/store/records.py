"""The stored audit log: appending inside a mutator's transaction, and reading.

Owns `append`, which every store verb calls last in its own transaction, and
`AuditRecords`, which reads pages, exports and the head. Does not own: what a
record is (`broker.audit`), the issuance path's appends (`journal`), nor proofs
(`tree`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import (
    audit_attachments,
    audit_head,
    audit_nodes,
    audit_records,
)
from broker.audit.chain import Head, chain_hash, leaf_hash
from broker.audit.merkle import CompactRange, Growth
from broker.audit.record import (
    Appended,
    Attachment,
    Event,
    Prepared,
    clean_and_prepare,
    rfc3339,
)
from broker.errors import AuditUnavailable

_EXPORT_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One row of audit_records."""

    seq: int
    time: datetime
    type: str
    actor_id: str
    principal_id: str | None
    record: bytes
    leaf: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class LockedHead:
    """The head as its holder read it: the tree's size is always `seq`. `now` is the database's
    clock.
    """

    seq: int
    chain: bytes
    time: datetime | None
    tree: CompactRange
    now: datetime

    @classmethod
    def read(
        cls, seq: int, chain: bytes, time: datetime | None, tree: bytes, now: datetime
    ) -> LockedHead:
        """From the row's columns. Raises AuditUnavailable where they don't belong together."""
        return cls(seq, chain, time, read_tree(seq, tree), now)

    @property
    def next_time(self) -> datetime:
        """The time of records to append: never before a record that is there already."""
        return self.now if self.time is None else max(self.now, self.time)


@dataclass(frozen=True, slots=True)
class Linked:
    """The rows that follow on a head, in order, and the tree with them."""

    rows: list[Row]
    growth: Growth


def read_tree(seq: int, tree: bytes) -> CompactRange:
    """The head row's tree. Raises AuditUnavailable where it is of another number of records."""
    try:
        return CompactRange.parse(seq, tree)
    except ValueError as error:
        raise AuditUnavailable(
            log_detail=f"audit_head is damaged ({error}); restore the database"
        ) from error


def link(prepared: Sequence[Prepared], head: LockedHead) -> Linked:
    """What follows on `head`, in order."""
    moment = head.next_time
    text = rfc3339(moment)
    seq, chain = head.seq, head.chain
    rows = []
    for one in prepared:
        seq += 1
        record = one.record(seq, text)
        leaf = leaf_hash(record)
        chain = chain_hash(chain, leaf)
        rows.append(Row(seq, moment, one.type, one.actor_id, one.principal_id, record, leaf, chain))
    return Linked(rows, head.tree.extend(row.leaf for row in rows))


def head_missing() -> AuditUnavailable:
    """The refusal where the head row is gone: a chain must never start anew by itself."""
    return AuditUnavailable(log_detail="audit_head has no row; migrate, or restore the database")


async def append(conn: AsyncConnection, events: Sequence[Event]) -> tuple[Appended, ...]:
    """Append in the caller's transaction, after its own row locks: the head is locked last.

    On SQLite the caller holds BEGIN IMMEDIATE. Text in the events is made storable. The
    records are there when the caller's transaction commits.

    Raises NotStorable before anything is written, and AuditUnavailable where there is no head.
    """
    if not events:
        return ()
    prepared = [clean_and_prepare(event)[1] for event in events]
    linked = link(prepared, await _lock_head(conn))
    rows = linked.rows
    await conn.execute(
        insert(audit_records),
        [
            {
                "seq": row.seq,
                "time": row.time,
                "type": row.type,
                "actor_id": row.actor_id,
                "principal_id": row.principal_id,
                "record": row.record,
                "leaf": row.leaf,
                "chain": row.chain,
            }
            for row in rows
        ],
    )
    last = rows[-1]
    await conn.execute(
        update(audit_head)
        .where(audit_head.c.id == 1)
        .values(seq=last.seq, chain=last.chain, time=last.time, tree=linked.growth.after.to_bytes())
    )
    completed = linked.growth.tile_roots()
    if completed:
        await conn.execute(
            insert(audit_nodes),
            [{"height": n.height, "place": n.place, "hash": value} for n, value in completed],
        )
    for one in prepared:
        if one.attachment is not None:
            await _store_attachment(conn, one.attachment)
    return tuple(Appended(row.seq, row.leaf) for row in rows)


async def _lock_head(conn: AsyncConnection) -> LockedHead:
    sqlite_now = conn.dialect.name == "sqlite"
    clock = literal(None) if sqlite_now else func.clock_timestamp()
    row = (
        await conn.execute(
            select(
                audit_head.c.seq,
                audit_head.c.chain,
                audit_head.c.time,
                audit_head.c.tree,
                clock.label("now"),
            )
            .where(audit_head.c.id == 1)
            .with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise head_missing()
    # SQLite runs in this process: its clock is ours.
    now = datetime.now(UTC) if sqlite_now else row.now.astimezone(UTC)
    return LockedHead.read(row.seq, row.chain, row.time, row.tree, now)


async def _store_attachment(conn: AsyncConnection, attachment: Attachment) -> None:
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    await conn.execute(
        dialect.insert(audit_attachments)
        .values(sha256=attachment.sha256, body=attachment.body)
        .on_conflict_do_nothing()
    )


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it stands in the log: exact bytes and both hashes (32 bytes each)."""

    seq: int
    record: bytes
    leaf: bytes
    chain: bytes


class AuditRecords:
    """Reads the log. Every method raises AuditUnavailable where the database is out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> Head:
        """The newest sequence number and chain hash; (0, 32 zero bytes) while empty."""
        async with self._database.read() as conn:
            row = (
                await conn.execute(
                    select(audit_head.c.seq, audit_head.c.chain).where(audit_head.c.id == 1)
                )
            ).one_or_none()
        if row is None:
            raise head_missing()
        return Head(row.seq, row.chain)

    async def records(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        type: str | None = None,  # noqa: A002 - the record member of this name is what it selects
        principal: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[StoredRecord, ...]:
        """The first `limit` records over sequence number `after` that match, in order.

        `principal` matches who acted and whom it was about. `since` is included, `until` not.
        """
        columns = audit_records.c
        query = select(columns.seq, columns.record, columns.leaf, columns.chain)
        query = query.where(columns.seq > after).order_by(columns.seq).limit(limit)
        if type is not None:
            query = query.where(columns.type == type)
        if principal is not None:
            query = query.where(
                or_(columns.principal_id == principal, columns.actor_id == principal)
            )
        if since is not None:
            query = query.where(columns.time >= since)
        if until is not None:
            query = query.where(columns.time < until)
        async with self._database.read() as conn:
            rows = (await conn.execute(query)).all()
        return tuple(StoredRecord(row.seq, row.record, row.leaf, row.chain) for row in rows)

    async def export(self, *, after: int = 0) -> AsyncIterator[StoredRecord]:
        """All records over `after` up to the head as it is now, read in batches.

        No transaction stays open meanwhile: rows never change, and a row is only there when
        all before it are.
        """
        end = (await self.head()).seq
        while after < end:
            batch = await self.records(after=after, limit=min(_EXPORT_BATCH, end - after))
            if not batch:
                # The verifier would see a shorter log that is consistent in itself.
                raise AuditUnavailable(log_detail=f"audit records after {after} are missing")
            for record in batch:
                yield record
            after = batch[-1].seq

    async def attachment(self, sha256: str) -> bytes | None:
        """The canonical JSON that a record names as `detail.attachment.sha256`."""
        async with self._database.read() as conn:
            query = select(audit_attachments.c.body).where(audit_attachments.c.sha256 == sha256)
            body: bytes | None = (await conn.execute(query)).scalar_one_or_none()
        return body
