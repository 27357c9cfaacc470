"""Deleting what has expired and means nothing any more.

Owns: how long each kind of row is kept after its end. Principals, grants,
issuances, policies and the audit log are never deleted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Table, delete, select, tuple_

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import (
    ci_token_ids,
    device_logins,
    enrolment_codes,
    idempotency_keys,
    login_attempts,
    login_sessions,
    oauth_codes,
    throttle_counters,
    tokens,
)
from broker.identity.sessions import LOGIN_SESSION_LIFETIME

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Kept:
    table: Table
    after_expiry: timedelta


_SWEPT = (
    _Kept(throttle_counters, timedelta()),
    _Kept(login_attempts, timedelta()),
    _Kept(enrolment_codes, timedelta()),
    _Kept(idempotency_keys, timedelta()),
    # Their expiry is the tokens' own and the leeway on it; clocks may still differ a little.
    _Kept(ci_token_ids, timedelta(minutes=5)),
    # Refresh tokens that were rotated out stay until their session expires, and spent codes as
    # long as the session made from them can last: showing one again must still be noticed.
    _Kept(tokens, timedelta()),
    _Kept(oauth_codes, LOGIN_SESSION_LIFETIME),
    _Kept(device_logins, LOGIN_SESSION_LIFETIME),
    # For people to see where they were signed in.
    _Kept(login_sessions, timedelta(days=30)),
)


async def sweep(database: Database, *, batch: int = _BATCH) -> int:
    """Delete expired rows, `batch` in a transaction, until none are left; how many there were.

    Safe on several replicas at once. Raises AuditUnavailable where the database is out.
    """
    return sum([await _sweep(database, kept, batch) for kept in _SWEPT])


async def _sweep(database: Database, kept: _Kept, batch: int) -> int:
    table = kept.table
    key = tuple(table.primary_key.columns)
    deleted = 0
    while True:
        async with database.begin() as conn:
            over = await database.now(conn) - kept.after_expiry
            expired = select(*key).where(table.c.expires_at < over).limit(batch)
            if database.dialect == "postgresql":
                # Another replica sweeps those already: neither waits for the other.
                expired = expired.with_for_update(skip_locked=True)
            result = await conn.execute(delete(table).where(tuple_(*key).in_(expired)))
        deleted += result.rowcount
        if result.rowcount < batch:
            return deleted
