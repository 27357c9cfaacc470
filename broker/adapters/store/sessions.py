"""The verbs of login sessions: end, rotate, revoke. `authenticate` has a module of its own.

Owns: the rules of rotating refresh tokens (RFC 9700 section 4.14.2), in one
transaction each.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.authenticate import Lookups
from broker.adapters.store.engine import Database
from broker.adapters.store.login_sessions import end_sessions, find_live, store_token
from broker.adapters.store.principals import lock_person, of_person
from broker.adapters.store.records import append
from broker.adapters.store.schema import login_sessions, tokens
from broker.audit.record import Event
from broker.identity.sessions import (
    REFRESH_GRACE,
    Authenticated,
    LoginSession,
    Refreshed,
    Token,
    TokenKind,
)


class SqlSessionStore:
    """Implements `identity.sessions.SessionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lookups = Lookups(database)

    async def authenticate(self, token: Token) -> Authenticated | None:
        """Raises Suspended where only the suspension stands in the way."""
        return await self._lookups.authenticate(token)

    async def end_login_session(self, login_session_id: str, event: Event) -> bool:
        """False where it was over already: then nothing is recorded."""
        async with self._database.begin() as conn:
            person = await _lock_person_of_session(conn, login_session_id)
            if person is None:
                return False
            now = await self._database.now(conn)
            if not await end_sessions(conn, now, login_session_id=login_session_id):
                return False
            await append(conn, [of_person(event, person, login_session_id)])
            return True

    async def rotate_refresh_token(
        self, presented: Token, refresh: Token, access: Token, event: Event, reuse_event: Event
    ) -> tuple[Refreshed, LoginSession | None]:
        """A lost reply may be asked for again within REFRESH_GRACE; its pair is void then."""
        if presented.kind is not TokenKind.REFRESH:
            return Refreshed.REFUSED, None
        async with self._database.begin() as conn:
            person, token = await _lock_person_of_token(conn, presented)
            if person is None or token is None or person.suspended_at is not None:
                return Refreshed.REFUSED, None
            now = await self._database.now(conn)
            session = await find_live(conn, token.login_session_id, now)
            if session is None or token.expires_at <= now:
                return Refreshed.REFUSED, None
            if token.retired_at is not None and (
                token.grace_until is None or token.grace_until <= now
            ):
                await end_sessions(conn, now, login_session_id=session.id)
                await append(conn, [of_person(reuse_event, person, session.id)])
                return Refreshed.REUSED, None
            if token.retired_at is None:
                await _retire(conn, token, grace_until=now + REFRESH_GRACE, now=now)
            else:
                await _void_successors(conn, token, now)
            await store_token(conn, refresh, session, now, previous_hash=token.hash)
            await store_token(conn, access, session, now)
            await append(conn, [of_person(event, person, session.id)])
            return Refreshed.ROTATED, session

    async def revoke_token(self, token: Token, event: Event) -> None:
        """A refresh token, also one that was rotated out, ends its login session; so does a
        job's.
        """
        async with self._database.begin() as conn:
            person, row = await _lock_person_of_token(conn, token)
            if person is None or row is None:
                return
            now = await self._database.now(conn)
            if row.expires_at <= now or await find_live(conn, row.login_session_id, now) is None:
                return
            if token.kind in (TokenKind.REFRESH, TokenKind.JOB):
                await end_sessions(conn, now, login_session_id=row.login_session_id)
            else:
                await conn.execute(delete(tokens).where(tokens.c.hash == token.hash))
            await append(conn, [of_person(event, person, row.login_session_id)])


async def _lock_person_of_session(conn: AsyncConnection, login_session_id: str) -> Row[Any] | None:
    query = select(login_sessions.c.principal_id).where(login_sessions.c.id == login_session_id)
    principal_id = (await conn.execute(query)).scalar_one_or_none()
    return None if principal_id is None else await lock_person(conn, principal_id)


async def _lock_person_of_token(
    conn: AsyncConnection, token: Token
) -> tuple[Row[Any] | None, Row[Any] | None]:
    """The person's row, locked, and the token's row as it is under that lock."""
    whose = (
        select(login_sessions.c.principal_id)
        .join(tokens, tokens.c.login_session_id == login_sessions.c.id)
        .where(tokens.c.hash == token.hash)
    )
    principal_id = (await conn.execute(whose)).scalar_one_or_none()
    if principal_id is None:
        return None, None
    person = await lock_person(conn, principal_id)
    # Read again: while this waited for the lock, another may have spent the token.
    row = (await conn.execute(select(tokens).where(tokens.c.hash == token.hash))).one_or_none()
    return person, row


async def _retire(
    conn: AsyncConnection, token: Row[Any], *, grace_until: datetime, now: datetime
) -> None:
    """The token was used: it gets its grace, and the one it replaced loses what is left of its."""
    await conn.execute(
        update(tokens)
        .where(tokens.c.hash == token.hash)
        .values(retired_at=now, grace_until=grace_until)
    )
    if token.previous_hash is not None:
        await conn.execute(
            update(tokens).where(tokens.c.hash == token.previous_hash).values(grace_until=None)
        )


async def _void_successors(conn: AsyncConnection, token: Row[Any], now: datetime) -> None:
    """The reply with the successor was lost, or caught by somebody: whoever shows it from now
    on is a second holder of the family, and ends it.
    """
    await conn.execute(
        update(tokens)
        .where(tokens.c.previous_hash == token.hash, tokens.c.retired_at.is_(None))
        .values(retired_at=now, grace_until=None)
    )
