"""The hot verb: from a token to who that is, in one query.

Owns: that query, going to the driver directly for it, since every request pays for
it, and asking once for all who wait. Does not own: which kinds of token a route takes
(`identity.authenticate`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from broker.adapters.store.engine import Database
from broker.adapters.store.utc_time import from_microseconds, to_microseconds
from broker.adapters.waiting import for_one_of_many, give_way
from broker.errors import Suspended
from broker.identity.job import Job
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.identity.sessions import Authenticated, Token, TokenKind

_Row: TypeAlias = Mapping[str, Any]
_Waiting: TypeAlias = tuple[Token, asyncio.Future[_Row | None]]
# The rows of those tokens that are there, by hash.
_Query: TypeAlias = Callable[[Sequence[Token]], Awaitable[dict[bytes, _Row]]]

# What a login showed, in the terms of RFC 8176.
_FIRST_FACTOR = frozenset({"fed"})
_BOTH_FACTORS = frozenset({"fed", "otp", "mfa"})

_QUERY = """
SELECT t.hash, t.kind AS token_kind, t.role, t.expires_at AS token_expires_at, t.retired_at,
       s.id AS session_id, s.auth_time, s.mfa_time, s.expires_at AS session_expires_at,
       s.may_enrol_until, s.revoked_at, s.client, s.job,
       p.id, p.kind, p.issuer, p.subject, p.provider, p.handle, p.email, p.groups, p.claims,
       p.suspended_at, p.pinned_admin_at,
       {names} AS user_names,
       EXISTS (SELECT 1 FROM factors f
               WHERE f.principal_id = p.id AND f.confirmed_at IS NOT NULL) AS has_factor,
       EXISTS (SELECT 1 FROM grants g
               WHERE g.principal_id = p.id AND g.expires_at > {started} AND g.revoked_at IS NULL)
           AS has_grants,
       COALESCE((SELECT MAX(number) FROM access_policies), 0) AS access_version,
       {now} AS now
FROM tokens t
JOIN login_sessions s ON s.id = t.login_session_id
JOIN principals p ON p.id = s.principal_id
WHERE {which}
"""
_POSTGRESQL = _QUERY.format(
    names="ARRAY(SELECT b.name FROM user_bindings b WHERE b.principal_id = p.id)",
    now="clock_timestamp()",
    # The time of the statement: a volatile one could not be looked up in an index.
    started="statement_timestamp()",
    which="t.hash = ANY($1::bytea[])",
)
_SQLITE = _QUERY.format(
    names="(SELECT json_group_array(b.name) FROM user_bindings b WHERE b.principal_id = p.id)",
    now="NULL",
    started="?2",
    which="t.hash = ?1",
)

# SQLite's columns that hold a time, and those that hold JSON.
_TIMES = (
    "token_expires_at",
    "retired_at",
    "auth_time",
    "mfa_time",
    "session_expires_at",
    "may_enrol_until",
    "revoked_at",
    "suspended_at",
    "pinned_admin_at",
)
_DOCUMENTS = ("groups", "claims", "user_names")

# Of a crowd, on PostgreSQL. One on its way while the next gathers, or a slow answer would hold up
# everybody.
_QUERIES_AT_ONCE = 2
_MAX_BATCH = 256


class Lookups:
    """Who is behind tokens, for one process over one database.

    Whoever comes while queries are under way shares the next one: at 32 callers that saves a sixth
    of an issuance's CPU on PostgreSQL (docs/performance.md). Each query starts after all its
    callers came, so that nobody is judged by what was true before they asked.
    """

    def __init__(self, database: Database) -> None:
        self._waiting: list[_Waiting] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._crowd = 1
        self._idle: list[_Query] = (
            [_sqlite(database)]
            if database.dialect == "sqlite"
            else [_postgresql(database) for _ in range(_QUERIES_AT_ONCE)]
        )

    async def authenticate(self, token: Token) -> Authenticated | None:
        """The live login session behind a live token; None for refresh tokens.

        Raises Suspended where only the suspension stands in the way.
        """
        if token.kind is TokenKind.REFRESH:
            return None
        answer: asyncio.Future[_Row | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((token, answer))
        if self._idle:
            task = asyncio.create_task(self._ask_for_all(self._idle.pop()))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        row = await answer
        return None if row is None else _judge(row, token)

    async def _ask_for_all(self, query: _Query) -> None:
        try:
            while self._waiting:
                await give_way(self._crowd)
                batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
                if batch:  # else the other query took them along
                    self._crowd = len(batch)
                    await _ask(batch, query)
        finally:
            self._idle.append(query)


async def _ask(batch: Sequence[_Waiting], query: _Query) -> None:
    try:
        rows = await query([token for token, _ in batch])
    except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(for_one_of_many(error))
        return
    for token, answer in batch:
        row = rows.get(token.hash)
        if not answer.done():
            of_kind = row is not None and row["token_kind"] == token.kind.value
            answer.set_result(row if of_kind else None)


def _postgresql(database: Database) -> _Query:
    line = database.line()

    async def query(tokens: Sequence[Token]) -> dict[bytes, _Row]:
        hashes = [token.hash for token in tokens]
        async with line.driver() as driver:
            if database.behind_pgbouncer:
                async with driver.transaction(readonly=True):
                    rows = await driver.fetch(_POSTGRESQL, hashes)
            else:
                rows = await driver.fetch(_POSTGRESQL, hashes)
        return {row["hash"]: row for row in rows}

    return query


def _sqlite(database: Database) -> _Query:
    line = database.sqlite_line("query_only=ON")

    async def query(tokens: Sequence[Token]) -> dict[bytes, _Row]:
        hashes = {token.hash for token in tokens}
        return await line.run(lambda conn: {h: row for h in hashes if (row := _read(conn, h))})

    return query


def _read(conn: sqlite3.Connection, token_hash: bytes) -> _Row | None:
    # This process's clock is SQLite's: `Database.now`.
    now = datetime.now(UTC)
    found = conn.execute(_SQLITE, (token_hash, to_microseconds(now))).fetchone()
    if found is None:
        return None
    row: dict[str, Any] = dict(found) | {"now": now}
    for name in _TIMES:
        if row[name] is not None:
            row[name] = from_microseconds(row[name])
    for name in _DOCUMENTS:
        row[name] = json.loads(row[name])
    return row


def _judge(row: _Row, token: Token) -> Authenticated | None:
    now: datetime = row["now"]
    session_expires_at: datetime = row["session_expires_at"]
    if (
        row["retired_at"] is not None
        or row["revoked_at"] is not None
        or row["token_expires_at"] <= now
        or session_expires_at <= now
    ):
        return None
    if row["suspended_at"] is not None:
        raise Suspended
    mfa_time = row["mfa_time"]
    principal = Principal(
        id=row["id"],
        kind=PrincipalKind(row["kind"]),
        issuer=row["issuer"],
        subject=row["subject"],
        provider=row["provider"],
        handle=row["handle"],
        email=row["email"],
        groups=frozenset(row["groups"]),
        claims=row["claims"],
        user_names=frozenset(row["user_names"]),
    )
    return Authenticated(
        context=AuthContext(
            principal=principal,
            login_session_id=row["session_id"],
            auth_time=row["auth_time"],
            mfa_time=mfa_time,
            login_session_expires_at=session_expires_at,
            methods=_FIRST_FACTOR if mfa_time is None else _BOTH_FACTORS,
        ),
        token_kind=token.kind,
        token_hash=token.hash,
        role=row["role"],
        has_confirmed_factor=bool(row["has_factor"]),
        pinned_admin=row["pinned_admin_at"] is not None,
        may_enrol_until=row["may_enrol_until"],
        access_version=row["access_version"],
        now=now,
        client=row["client"],
        job=None if row["job"] is None else Job.from_text(row["job"]),
        has_grants=bool(row["has_grants"]),
    )
