"""How far each sink of the log has got, and which process delivers to it now.

Owns `audit_sinks`: that sinks and moves of their positions go on record, the
lease by which one process at a time delivers to a sink, and what becomes of a
failed delivery. Does not own how anything is delivered (`broker.adapters.sinks`).

A process holds a sink by its lease, an end on the database's clock that every
step pushes further out. Whoever lost it, because it hung or was cut off, can
move nothing any more. After a failure nobody holds the sink: whichever process
comes first when the wait is over tries next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import and_, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.records import AuditRecords, StoredRecord, append, head_missing
from broker.adapters.store.schema import audit_head, audit_sinks
from broker.adapters.store.utc_time import UtcTime
from broker.audit.record import SYSTEM, Event, EventType, Outcome

LEASE = timedelta(seconds=10)
_SINKS_CHANGE = 0x62726B_73696E6B  # the advisory lock under which sinks are added and taken out
_MAX_ERROR = 500
_PAGE = 100

Start = Literal["now", "beginning"]
_c = audit_sinks.c


@dataclass(frozen=True, slots=True)
class SinkEntry:
    """A sink as the settings have it. `description` says where it delivers to, without secrets;
    `start` is for a sink that was never seen before.
    """

    name: str
    description: Mapping[str, object]
    start: Start = "now"

    @property
    def text(self) -> str:
        return msgspec.json.encode(dict(self.description), order="sorted").decode("utf-8")


@dataclass(frozen=True, slots=True)
class SinkStanding:
    """A sink as it stands. `head` is the log's newest record; `free`: nobody else holds it, and no
    wait after a failure is under way.
    """

    name: str
    description: str
    position: int
    head: int
    failures: int
    failing_since: datetime | None
    last_error: str | None
    delivered_at: datetime | None
    removed: bool
    holder: str | None
    free: bool

    @property
    def lag(self) -> int:
        """How many records it has not got."""
        return max(self.head - self.position, 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A sink, held. `batch_end`: where a batch was to end that is not known to be delivered."""

    position: int
    batch_end: int | None
    failures: int


class RecordMissing(Exception):
    """The log has a hole: the records after it are not to be delivered as if nothing was there."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"audit record {seq} is missing in the database")


class SqlSinks:
    """Uses at most one connection at a time, however many sinks there are: the pool is for those
    who ask for credentials. Every method raises AuditUnavailable where the database is out.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._records = AuditRecords(database)
        self._turn = asyncio.Lock()

    # --- what there is

    async def configure(self, entries: Sequence[SinkEntry]) -> None:
        """Make the rows what the settings say, each difference with its record.

        A sink that was never seen starts at the log's end as it is now, or before its first
        record; one that returns goes on where it was. Whoever delivers to a sink as it was before
        loses it. What waited after a failure is tried at once: the cause may be cured.
        """
        async with self._turn, self._database.begin() as conn:
            await _lock(conn)
            rows = (await conn.execute(select(audit_sinks).with_for_update())).all()
            known = {row.name: row for row in rows}
            events = []
            for entry in entries:
                events += await self._enter(conn, entry, known.get(entry.name))
            kept = {entry.name for entry in entries}
            for row in rows:
                if row.name not in kept and row.removed_at is None:
                    now = await self._database.now(conn)
                    await _set(conn, row.name, removed_at=now, updated_at=now, **_RELEASED)
                    events.append(_event("removed", row.name, row.position, before=row.description))
            await append(conn, events)

    async def _enter(self, conn: AsyncConnection, entry: SinkEntry, row: Any) -> list[Event]:  # noqa: ANN401 - a row
        now = await self._database.now(conn)
        if row is None:
            position = 0 if entry.start == "beginning" else await _head(conn)
            await conn.execute(
                insert(audit_sinks).values(
                    name=entry.name,
                    description=entry.text,
                    position=position,
                    failures=0,
                    updated_at=now,
                )
            )
            return [_event("added", entry.name, position, after=entry.text)]
        if row.removed_at is None and row.description == entry.text:
            if row.retry_at is not None:
                await _set(conn, row.name, retry_at=None, updated_at=now)
            return []
        await _set(
            conn, row.name, description=entry.text, removed_at=None, updated_at=now, **_UNTRIED
        )
        if row.removed_at is not None:
            return [_event("added", entry.name, row.position, after=entry.text)]
        return [
            _event("changed", entry.name, row.position, before=row.description, after=entry.text)
        ]

    async def standings(self, me: str = "") -> tuple[SinkStanding, ...]:
        """Every sink that has a row, by name. `me` is the asking process."""
        head = select(audit_head.c.seq).where(audit_head.c.id == 1).scalar_subquery()
        query = select(audit_sinks, head.label("head")).order_by(_c.name)
        async with self._turn, self._database.read() as conn:
            rows = (await conn.execute(query)).all()
            now = await self._database.now(conn) if rows else None
        return tuple(_standing(row, me, now) for row in rows if now is not None)

    async def move(self, name: str, to: int | Start) -> int:
        """Set the position, and record it: records after it are delivered (again). The position.

        Raises LookupError for a sink that has no row, ValueError for a place outside the log.
        """
        async with self._turn, self._database.begin() as conn:
            row = await _locked(conn, name)
            head = await _head(conn)
            position = {"now": head, "beginning": 0}[to] if isinstance(to, str) else to
            if not 0 <= position <= head:
                raise ValueError(f"the log has the records 1 to {head}")
            now = await self._database.now(conn)
            await _set(conn, name, position=position, updated_at=now, **_UNTRIED)
            moved = {"position": row.position}, {"position": position}
            await append(conn, [_record("moved", name, *moved, position)])
        return position

    async def forget(self, name: str) -> None:
        """Delete the row of a sink that was taken out of the settings, and record it.

        Raises LookupError for a sink that has no row, ValueError for one that is in use.
        """
        async with self._turn, self._database.begin() as conn:
            row = await _locked(conn, name)
            if row.removed_at is None:
                raise ValueError(f"{name} is in use: take it out of the settings first")
            await conn.execute(delete(audit_sinks).where(_c.name == name))
            event = _event("forgotten", name, row.position, before=row.description)
            await append(conn, [event])

    # --- delivering

    async def claim(self, name: str, description: str, me: str) -> Claim | None:
        """Hold the sink, where it is free and still described so."""
        async with self._turn, self._database.begin() as conn:
            now = await self._database.now(conn)
            mine = and_(
                _c.name == name,
                _c.description == description,
                _c.removed_at.is_(None),
                or_(_c.holder.is_(None), _c.holder == me, _c.held_until < now),
                or_(_c.retry_at.is_(None), _c.retry_at <= now),
            )
            held = (
                update(audit_sinks)
                .where(mine)
                .values(holder=me, held_until=now + LEASE, updated_at=now)
                .returning(_c.position, _c.batch_end, _c.failures)
            )
            row = (await conn.execute(held)).one_or_none()
        return None if row is None else Claim(row.position, row.batch_end, row.failures)

    async def batch(
        self, after: int, *, end: int | None, limit: int, max_bytes: int
    ) -> tuple[StoredRecord, ...]:
        """The records that follow on `after`, in order and without a gap: up to `end`, or where
        that is None, up to `limit` records and about `max_bytes`, and one at least if there is one.

        Raises RecordMissing where the log has a hole there.
        """
        found: list[StoredRecord] = []
        size = 0
        while (end is None and len(found) < limit and size < max_bytes) or (
            end is not None and after < end
        ):
            wanted = min(_PAGE, limit - len(found) if end is None else end - after)
            async with self._turn:
                page = await self._records.records(after=after, limit=wanted)
            for one in page:
                if one.seq != after + 1:
                    raise RecordMissing(after + 1)
                if end is None and found and size + len(one.record) > max_bytes:
                    return tuple(found)
                found.append(one)
                size += len(one.record)
                after = one.seq
            if len(page) < wanted:
                break
        return tuple(found)

    async def begin_batch(self, name: str, me: str, end: int) -> bool:
        """Settle where the batch under way ends. False where the sink is lost."""
        async with self._turn, self._database.begin() as conn:
            now = await self._database.now(conn)
            return await _hold(conn, (name, me), now, batch_end=end)

    async def renew(self, name: str, me: str) -> bool:
        """Hold it on. False where the sink is lost."""
        async with self._turn, self._database.begin() as conn:
            return await _hold(conn, (name, me), await self._database.now(conn))

    async def advance(self, name: str, me: str, position: int) -> bool:
        """All up to `position` is delivered. False where the sink is lost."""
        async with self._turn, self._database.begin() as conn:
            now = await self._database.now(conn)
            return await _hold(
                conn,
                (name, me),
                now,
                position=position,
                batch_end=None,
                delivered_at=now,
                failures=0,
                failing_since=None,
                last_error=None,
            )

    async def fail(
        self, name: str, me: str, error: str, *, retry_in: float, smaller: bool = False
    ) -> None:
        """Note a failed delivery and let the sink go for `retry_in` seconds. `smaller`: the next
        batch need not end where this one did.
        """
        async with self._turn, self._database.begin() as conn:
            now = await self._database.now(conn)
            values: dict[str, Any] = {} if not smaller else {"batch_end": None}
            await conn.execute(
                update(audit_sinks)
                .where(_c.name == name, _c.holder == me)
                .values(
                    failures=_c.failures + 1,
                    failing_since=func.coalesce(_c.failing_since, literal(now, UtcTime())),
                    last_error=error[:_MAX_ERROR],
                    retry_at=now + timedelta(seconds=retry_in),
                    holder=None,
                    held_until=None,
                    updated_at=now,
                    **values,
                )
            )

    async def release(self, name: str, me: str) -> None:
        """Let another process have it at once."""
        async with self._turn, self._database.begin() as conn:
            await conn.execute(
                update(audit_sinks).where(_c.name == name, _c.holder == me).values(**_RELEASED)
            )


_RELEASED: Mapping[str, Any] = {"holder": None, "held_until": None}
_UNTRIED: Mapping[str, Any] = {
    **_RELEASED,
    "batch_end": None,
    "failures": 0,
    "failing_since": None,
    "last_error": None,
    "retry_at": None,
}


async def _lock(conn: AsyncConnection) -> None:
    """Of two processes that start at once, one finds what the other has entered."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SINKS_CHANGE})


async def _locked(conn: AsyncConnection, name: str) -> Any:  # noqa: ANN401 - a row
    await _lock(conn)
    query = select(audit_sinks).where(_c.name == name).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise LookupError(f"there is no sink {name}")
    return row


async def _set(conn: AsyncConnection, name: str, **values: Any) -> None:  # noqa: ANN401 - columns
    await conn.execute(update(audit_sinks).where(_c.name == name).values(**values))


async def _hold(
    conn: AsyncConnection,
    held: tuple[str, str],
    now: datetime,
    **values: Any,  # noqa: ANN401 - columns
) -> bool:
    """Push the lease of (sink, process) further out. False where that process lost the sink."""
    name, me = held
    done = await conn.execute(
        update(audit_sinks)
        .where(_c.name == name, _c.holder == me)
        .values(held_until=now + LEASE, updated_at=now, **values)
    )
    return done.rowcount == 1


async def _head(conn: AsyncConnection) -> int:
    query = select(audit_head.c.seq).where(audit_head.c.id == 1)
    seq: int | None = (await conn.execute(query)).scalar_one_or_none()
    if seq is None:
        raise head_missing()
    return seq


def _standing(row: Any, me: str, now: datetime) -> SinkStanding:  # noqa: ANN401 - a row
    if row.head is None:
        raise head_missing()
    held = row.holder not in (None, me) and row.held_until is not None and row.held_until >= now
    waiting = row.retry_at is not None and row.retry_at > now
    return SinkStanding(
        name=row.name,
        description=row.description,
        position=row.position,
        head=row.head,
        failures=row.failures,
        failing_since=row.failing_since,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        removed=row.removed_at is not None,
        holder=row.holder,
        free=not held and not waiting and row.removed_at is None,
    )


def _event(
    change: str, name: str, position: int, *, before: str | None = None, after: str | None = None
) -> Event:
    return _record(change, name, _parsed(before), _parsed(after), position)


def _record(change: str, name: str, before: object, after: object, position: int) -> Event:
    return Event(
        EventType.AUDIT_SINKS_CHANGED,
        SYSTEM,
        Outcome.SUCCESS,
        subject={"sink": name},
        detail={"change": change, "before": before, "after": after, "position": position},
    )


def _parsed(description: str | None) -> object:
    return None if description is None else msgspec.json.decode(description)
