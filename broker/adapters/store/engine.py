"""Connections to the entitlement database, SQLite or PostgreSQL.

Owns: transactions and the database's clock. Does not own: how connections are made
(`opening`), those that are kept out of the pool for one purpose (`line`), the tables
(`schema`) or the verbs (the modules beside this one).

A URL may say `?pgbouncer=true` where PgBouncer in transaction mode stands in
front of PostgreSQL: then no prepared statement outlives its transaction, every
read runs inside a transaction, and no server setting is asked for.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

import asyncpg
from sqlalchemy import URL, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn

from broker.adapters.store.line import Line
from broker.adapters.store.opening import (
    READING,
    create_private,
    parse,
    postgresql_engine,
    sqlite_engine,
    take_pgbouncer,
)
from broker.adapters.store.outage import PATIENCE, unavailable_when_out
from broker.adapters.store.sqlite_line import SqliteLine

Dialect = Literal["sqlite", "postgresql"]

_POOL_SIZE = 10
# Beyond `pool_size`, on PostgreSQL; closed again when they are given back.
_OVERFLOW = 10
# Connections that are not closed when they are given back: those that `line` keeps, of which a
# server has three, and a few for everybody. In a pool as small as the lines alone, each transaction
# would connect anew.
_LEAST_KEPT = 6
# A line asks the same again and again: to plan it anew each time, for the values at hand, costs
# more than to do it.
_PLANS = "plan_cache_mode = force_generic_plan"


class Database:
    """One database, many connections. Open with `Database.open`, close with `aclose`.

    `dialect` is "sqlite" or "postgresql"; `str(url)` hides the password. `capacity`: the most
    connections of the pool. `on_wait` is told the seconds that each wait for one took, where all
    of them were at work.
    """

    def __init__(
        self,
        url: URL,
        engine: AsyncEngine,
        *,
        patience: float,
        behind_pgbouncer: bool,
        capacity: int,
        on_wait: Callable[[float], None],
    ) -> None:
        self.url = url
        self.capacity = capacity
        self._on_wait = on_wait
        self.engine = engine
        self.dialect: Dialect = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        self.behind_pgbouncer = behind_pgbouncer
        self._patience = patience
        self._lines: list[Line] = []
        self._sqlite_lines: list[SqliteLine] = []
        # A lone SELECT needs no BEGIN and ROLLBACK around it, which are two round trips
        # more; PgBouncer needs them, to keep parse and execute on one server connection.
        if self.dialect == "sqlite":
            self._reading = engine.execution_options(**{READING: True})
        elif behind_pgbouncer:
            self._reading = engine
        else:
            self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite has one writer. Tasks of this process queue here, in order, instead of
        # spinning in busy_timeout, each holding a thread.
        self._writer = asyncio.Lock() if self.dialect == "sqlite" else None

    @classmethod
    def open(
        cls,
        url: str | URL,
        *,
        pool_size: int = _POOL_SIZE,
        patience: float = PATIENCE,
        on_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> Database:
        """Parse `url` and make ready to connect; a SQLite file is created, readable by its
        owner alone. Connects to nothing yet.

        `patience`: seconds until a connection, a lock or a statement is given up.

        Raises StartupError for a URL that can't be used.
        """
        parsed = parse(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        capacity = pool_size if sqlite else pool_size + _OVERFLOW
        kept = pool_size if sqlite else max(pool_size, _LEAST_KEPT)
        pool = {"pool_size": kept, "max_overflow": capacity - kept, "pool_timeout": patience}
        behind_pgbouncer = False
        if sqlite:
            create_private(parsed)
            engine = sqlite_engine(parsed, patience, pool)
        else:
            bare, behind_pgbouncer = take_pgbouncer(parsed)
            pool |= {"pool_recycle": 1800}
            engine = postgresql_engine(bare, behind_pgbouncer, patience, pool)
        return cls(
            parsed,
            engine,
            patience=patience,
            behind_pgbouncer=behind_pgbouncer,
            capacity=capacity,
            on_wait=on_wait,
        )

    @property
    def in_use(self) -> int:
        """Connections of the pool that are at work."""
        # A closed engine has a new pool.
        return cast("QueuePool", self.engine.pool).checkedout()

    @property
    def writer(self) -> asyncio.Lock | None:
        """SQLite's one writer within this process; None on PostgreSQL. For writers that don't
        come through `begin`.
        """
        return self._writer

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One writing transaction: committed at the end, rolled back by any exception.

        On SQLite it holds the write lock from the start. Only database work belongs
        inside. Raises AuditUnavailable where the database is out; whether a COMMIT whose
        answer was lost took place is then unknown.
        """
        with unavailable_when_out():
            if self._writer is None:
                async with self._connect(self.engine) as conn, conn.begin():
                    yield conn
                return
            async with asyncio.timeout(self._patience):
                await self._writer.acquire()
            try:
                async with self._connect(self.engine) as conn, conn.begin():
                    yield conn
            finally:
                self._writer.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. Each statement sees its own snapshot.

        Raises AuditUnavailable where the database is out.
        """
        with unavailable_when_out():
            async with self._connect(self._reading) as conn:
                yield conn

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, all of whose statements see one snapshot.

        Raises AuditUnavailable where the database is out.
        """
        with unavailable_when_out():
            if self.dialect == "sqlite":
                async with self._connect(self._reading) as conn:
                    await conn.exec_driver_sql("BEGIN")
                    yield conn
                    await conn.exec_driver_sql("ROLLBACK")
                return
            frozen = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            async with self._connect(frozen) as conn, conn.begin():
                yield conn

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """PostgreSQL's driver itself, for the hottest reads: half of what `read` costs.

        Each statement commits by itself unless the caller opens a transaction. Raises
        AuditUnavailable where the database is out.
        """
        with unavailable_when_out():
            since = self._crowded_since()
            raw = await self.engine.raw_connection()
            if since is not None:
                self._on_wait(time.perf_counter() - since)
            try:
                yield raw.driver_connection
            except (TimeoutError, asyncio.CancelledError):
                # As in `_connect`: an answer may still be on its way.
                await greenlet_spawn(raw.invalidate)
                raise
            finally:
                await greenlet_spawn(raw.close)

    def line(self, *settings: str) -> Line:
        """A connection of PostgreSQL's to keep, closed with this database at the latest.

        `settings`: what to SET on it, where it is no PgBouncer that would have to keep that.
        """
        line = Line(self.engine, () if self.behind_pgbouncer else (_PLANS, *settings))
        self._lines.append(line)
        return line

    def sqlite_line(self, *pragmas: str) -> SqliteLine:
        """A connection of SQLite's to keep, closed with this database at the latest."""
        path = Path(self.url.database or "").absolute()
        line = SqliteLine(path, pragmas, self.replace_connections)
        self._sqlite_lines.append(line)
        return line

    async def now(self, conn: AsyncConnection) -> datetime:
        """The database's clock, UTC: the time that decides, the same for all replicas.

        On PostgreSQL the time of this call and not of the transaction's start, which may
        lie before the lock it waited for. SQLite runs in this process: its clock is ours.
        """
        if self.dialect == "sqlite":
            return datetime.now(UTC)
        moment: datetime = (await conn.execute(select(func.clock_timestamp()))).scalar_one()
        return moment.astimezone(UTC)

    async def replace_connections(self) -> None:
        """After an error of SQLite's on a connection past the pool: all others would keep what is
        broken (`opening`).
        """
        for line in self._sqlite_lines:
            await line.disconnect()
        await self.engine.dispose()
        gc.collect()

    async def aclose(self) -> None:
        """Close every connection."""
        for line in self._lines:
            await line.aclose()
        for sqlite_line in self._sqlite_lines:
            await sqlite_line.aclose()
        await self.engine.dispose()

    @asynccontextmanager
    async def _connect(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        since = self._crowded_since()
        async with engine.connect() as conn:
            if since is not None:
                self._on_wait(time.perf_counter() - since)
            try:
                yield conn
            except TimeoutError:
                # The statement may still run and its answer may still come: this
                # connection is not to be used again.
                await conn.invalidate()
                raise

    def _crowded_since(self) -> float | None:
        """The time now (of perf_counter) where whoever asks for a connection has to wait."""
        return time.perf_counter() if self.in_use >= self.capacity else None
