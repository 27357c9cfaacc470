"""CI jobs within a group commit: tokens used up, sessions opened, on either database.

Owns that SQL. Does not own: who is first and what is answered (`journal_batch`).

The rows reference the workload's principal, which no verb locks in a way that
inserting them would have to wait for (`principals.lock_person`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeAlias

from broker.adapters.store.journal_batch import Batch, Opening
from broker.adapters.store.records import LockedHead
from broker.adapters.store.utc_time import to_microseconds
from broker.audit.record import clean_text

Driver: TypeAlias = Any  # asyncpg.Connection, which ships no types

_MAX_USER_AGENT = 512
_MAX_IP = 64

_CLAIM_POSTGRESQL = """
INSERT INTO ci_token_ids (key_hash, expires_at)
SELECT * FROM unnest($1::bytea[], $2::timestamptz[])
    ON CONFLICT (key_hash) DO NOTHING
RETURNING key_hash
"""
_OPEN_POSTGRESQL = """
WITH opened AS (
    INSERT INTO login_sessions (id, principal_id, client, auth_time, created_at, expires_at, ip,
                                user_agent, job)
    SELECT v.id, v.principal_id, 'ci', $8, $8, v.expires_at, v.ip, v.user_agent, v.job
      FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
           AS v(id, principal_id, expires_at, ip, user_agent, job)
    RETURNING id, expires_at)
INSERT INTO tokens (hash, kind, login_session_id, created_at, expires_at)
SELECT t.hash, 'bkj', opened.id, $8, opened.expires_at
  FROM unnest($1::text[], $7::bytea[]) AS t(id, hash) JOIN opened ON opened.id = t.id
 WHERE t.hash IS NOT NULL
"""
_CLAIM_SQLITE = """
INSERT INTO ci_token_ids (key_hash, expires_at) VALUES (?, ?) ON CONFLICT (key_hash) DO NOTHING
"""
_OPEN_SQLITE = """
INSERT INTO login_sessions (id, principal_id, client, auth_time, created_at, expires_at, ip,
                            user_agent, job)
VALUES (?, ?, 'ci', ?, ?, ?, ?, ?, ?)
"""
_STORE_SQLITE = """
INSERT INTO tokens (hash, kind, login_session_id, created_at, expires_at)
VALUES (?, 'bkj', ?, ?, ?)
"""


async def open_jobs_postgresql(driver: Driver, batch: Batch, head: LockedHead) -> None:
    """Use the batch's CI tokens up and open the sessions of those that were first."""
    wanted = batch.token_keys
    if not wanted:
        return
    claimed = await driver.fetch(_CLAIM_POSTGRESQL, list(wanted), list(wanted.values()))
    openings = batch.openings(head, [row[0] for row in claimed])
    if openings:
        await driver.execute(_OPEN_POSTGRESQL, *_columns(openings), openings[0].began_at)


def open_jobs_sqlite(conn: sqlite3.Connection, batch: Batch, head: LockedHead) -> None:
    """The same on SQLite."""
    wanted = batch.token_keys
    claimed = [
        key
        for key, expires_at in wanted.items()
        if conn.execute(_CLAIM_SQLITE, (key, to_microseconds(expires_at))).rowcount == 1
    ]
    for opening in batch.openings(head, claimed):
        exchange = opening.exchange
        began_at, ends_at = to_microseconds(opening.began_at), to_microseconds(opening.ends_at)
        session = (exchange.login_session_id, exchange.principal_id, began_at, began_at, ends_at)
        conn.execute(
            _OPEN_SQLITE,
            (*session, _ip(opening), _user_agent(opening), exchange.job),
        )
        if exchange.job_token is not None:
            token = (exchange.job_token.hash, exchange.login_session_id, began_at, ends_at)
            conn.execute(_STORE_SQLITE, token)


def _columns(openings: Sequence[Opening]) -> tuple[list[Any], ...]:
    exchanges = [opening.exchange for opening in openings]
    return (
        [exchange.login_session_id for exchange in exchanges],
        [exchange.principal_id for exchange in exchanges],
        [opening.ends_at for opening in openings],
        [_ip(opening) for opening in openings],
        [_user_agent(opening) for opening in openings],
        [exchange.job for exchange in exchanges],
        [None if one.job_token is None else one.job_token.hash for one in exchanges],
    )


def _ip(opening: Opening) -> str | None:
    ip = opening.exchange.ip
    return None if ip is None else clean_text(ip, _MAX_IP)


def _user_agent(opening: Opening) -> str | None:
    user_agent = opening.exchange.user_agent
    return None if user_agent is None else clean_text(user_agent, _MAX_USER_AGENT)
