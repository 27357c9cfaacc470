"""When the database is out: how long it is waited for, and which errors say so.

Owns the one place where they become a refusal (`AuditUnavailable`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import exc as sa_exc

from broker.errors import AuditUnavailable

# Seconds: long enough for a slow disk, short enough that a caller hears of an outage at once.
PATIENCE = 5.0

# SQLSTATE classes that mean the server can't serve, not that the statement is wrong:
# connection, transaction state (a read-only standby), authorisation, no such database,
# rollback (deadlock), resources, lock time-out, operator intervention, system, internal.
_OUT = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX"})


@contextmanager
def unavailable_when_out() -> Iterator[None]:
    """Turn every way in which a database can be out into AuditUnavailable."""
    try:
        yield
    except Exception as error:
        if not is_out(error):
            raise
        raise AuditUnavailable(log_detail=_describe(error)) from error


def is_out(error: BaseException) -> bool:
    """Whether `error` says that the database can't serve, not that a statement is wrong."""
    if isinstance(error, sa_exc.DBAPIError):
        if error.connection_invalidated:
            return True
        cause: BaseException | None = error.orig
    elif isinstance(error, sa_exc.TimeoutError | sa_exc.DisconnectionError | OSError):
        return True  # TimeoutError and ConnectionError are OSErrors
    else:
        cause = error
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate)[:2] in _OUT
    if isinstance(cause, sqlite3.Error):
        # DatabaseError itself: the file is damaged, or no database at all.
        return isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError
    return isinstance(error, sa_exc.InterfaceError) or isinstance(
        cause, asyncpg.InterfaceError | asyncpg.InternalClientError
    )


def _describe(error: BaseException) -> str:
    # Never str(error) of SQLAlchemy's: it holds the statement.
    cause = error.orig if isinstance(error, sa_exc.DBAPIError) else error
    return f"{type(cause).__name__}: {cause}"
