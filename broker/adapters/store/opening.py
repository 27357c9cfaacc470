"""Engines for the entitlement database: what a URL may say, and how connections are prepared.

Owns: reading the URL, creating a SQLite file privately, and the settings that each
new connection gets. Does not own: transactions, and when the database counts as out
(`engine`).
"""

from __future__ import annotations

import gc
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from broker.errors import StartupError

# Execution option of connections that read: on SQLite no BEGIN IMMEDIATE for them.
READING = "broker_reading"

_CONNECT_SECONDS = 5.0  # at most, however patient the caller is
_MIGRATION_PATIENCE = 600.0
# A connection that was idle this long is asked whether it still lives; asking every
# time would cost each request a round trip.
_IDLE_BEFORE_PING = 10.0
# SQLite's primary result codes that condemn the connection and not the statement. One that could
# not be opened for writing, for a moment, is read-only for good, and says so only when it writes.
_SQLITE_BROKEN = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)


def parse(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (sa_exc.ArgumentError, ValueError):
        # Not chained: the text may hold a password.
        raise StartupError(
            "database.url is not a URL; write sqlite+aiosqlite:///broker.db "
            "or postgresql+asyncpg://user:password@host/name"
        ) from None
    if parsed.drivername not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
        raise StartupError(
            f"database.url starts with {parsed.drivername!r}; "
            "write sqlite+aiosqlite:/// or postgresql+asyncpg://"
        )
    if parsed.get_backend_name() == "sqlite" and (
        not parsed.database or parsed.database.startswith((":memory:", "file:"))
    ):
        raise StartupError(
            "database.url names no SQLite file; an audit log can't live in memory. "
            "Write sqlite+aiosqlite:///broker.db"
        )
    return parsed


def take_pgbouncer(url: URL) -> tuple[URL, bool]:
    value = url.query.get("pgbouncer", "false")
    if value not in {"true", "false"}:
        raise StartupError("database.url: pgbouncer is true or false")
    return url.difference_update_query(["pgbouncer"]), value == "true"


def create_private(url: URL) -> None:
    """Create the SQLite file where there is none, mode 0600 and in WAL mode from the start.

    It appears in one step, finished: of two processes that switched a new file to WAL at
    once, one would find it locked. SQLite gives -wal and -shm files the mode of this one.
    """
    path = Path(url.database or "")
    if path.exists():
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".broker-new-", dir=path.parent) as folder:
            new = Path(folder) / "new.db"
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(new)) as conn:
                conn.execute("PRAGMA journal_mode=WAL")
            with suppress(FileExistsError):
                os.link(new, path)
    except OSError as error:
        raise StartupError(f"database.url: can't create {path}: {error.strerror}") from None


def sqlite_engine(url: URL, patience: float, pool: Mapping[str, Any]) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        # No implicit BEGIN by the driver: `_begin_immediate` says when.
        connect_args={"isolation_level": None, "timeout": patience},
        **pool,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    healing = _Healing()
    event.listen(engine.sync_engine, "handle_error", healing.drop_broken)
    event.listen(engine.sync_engine, "do_connect", healing.before_connect)
    return engine


def _prepare_sqlite(dbapi_connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = dbapi_connection.cursor()
    try:
        # FULL: a commit that was answered survives a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
    except Exception:
        # The pool would leave it open, and with it any lock that it got.
        dbapi_connection.close()
        raise
    cursor.close()


def is_broken(error: BaseException) -> bool:
    """Whether `error` condemns the SQLite connection that it came from."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _SQLITE_BROKEN


class _Healing:
    """Replaces SQLite connections that are no good any more.

    All connections of a process to one file share the mapping of its -shm. Once that could be
    opened for reading alone, it stays so until the last of them is closed; and SQLite keeps one
    open, though it was closed, while a cursor of it is left, as in the traceback of its error.
    """

    def __init__(self) -> None:
        self._broken = False

    def drop_broken(self, context: ExceptionContext) -> None:
        if is_broken(context.original_exception):
            self._broken = context.is_disconnect = True

    def before_connect(self, *_: object) -> None:
        if self._broken:
            self._broken = False
            gc.collect()


def _begin_immediate(conn: Connection) -> None:
    if conn.get_execution_options().get(READING):
        return
    # A deferred transaction that reads first can't always be raised to a writing one.
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def postgresql_engine(
    url: URL, behind_pgbouncer: bool, patience: float, pool: Mapping[str, Any]
) -> AsyncEngine:
    connect_args: dict[str, Any] = {
        "timeout": min(patience, _CONNECT_SECONDS),
        "command_timeout": patience,
    }
    if behind_pgbouncer:
        connect_args |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            # Another client's statement may still be on the server connection.
            "prepared_statement_name_func": lambda: f"broker_{uuid.uuid4().hex}",
        }
    else:
        connect_args["server_settings"] = {
            "application_name": "broker",
            "jit": "off",
            "lock_timeout": str(int(patience * 800)),  # ms, before command_timeout
        }
    engine = create_async_engine(url, hide_parameters=True, connect_args=connect_args, **pool)
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", _check_alive)
    return engine


def _note_return(_dbapi_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["returned"] = time.monotonic()


def _check_alive(
    dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """So that a restarted PostgreSQL heals: the pool replaces what raises DisconnectionError."""
    driver: asyncpg.Connection = record.driver_connection
    if driver.is_closed():
        raise sa_exc.DisconnectionError("the server closed the connection")
    if time.monotonic() - record.info.get("returned", time.monotonic()) < _IDLE_BEFORE_PING:
        return
    try:
        cast("Any", dbapi_connection).ping()  # the dialect's own, in its transaction mode
    except Exception as error:
        raise sa_exc.DisconnectionError("the connection no longer answers") from error


def migration_engine(url: str | URL) -> AsyncEngine:
    """An engine for migrations: no pool, and time for long statements and for waiting in line.

    Raises StartupError for a URL that can't be used.
    """
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        create_private(parsed)
        return sqlite_engine(parsed, _MIGRATION_PATIENCE, {"poolclass": NullPool})
    bare, behind_pgbouncer = take_pgbouncer(parsed)
    return postgresql_engine(bare, behind_pgbouncer, _MIGRATION_PATIENCE, {"poolclass": NullPool})
