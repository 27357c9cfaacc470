"""The verbs of OAuth authorization codes.

Owns: that a code is spent once, by whoever proves to be its client, and that
showing it again ends what was made of it (RFC 6749 section 4.1.2).
"""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.login_sessions import (
    end_sessions,
    find_live,
    open_session,
    store_token,
)
from broker.adapters.store.principals import lock_person, of_person
from broker.adapters.store.records import append
from broker.adapters.store.schema import login_sessions, oauth_codes
from broker.audit.record import Event
from broker.identity.oauth import CODE_LIFETIME, CodeGrant, Redeemed
from broker.identity.sessions import LoginSession, Token


class SqlCodeStore:
    """Implements `identity.oauth.CodeStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_code(self, code_hash: bytes, grant: CodeGrant) -> None:
        """Good for CODE_LIFETIME."""
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            await conn.execute(
                insert(oauth_codes).values(
                    code_hash=code_hash,
                    client_id=grant.client_id,
                    redirect_uri=grant.redirect_uri,
                    code_challenge=grant.code_challenge,
                    browser_session_id=grant.login_session_id,
                    created_at=now,
                    expires_at=now + CODE_LIFETIME,
                )
            )

    async def redeem_code(
        self,
        code_hash: bytes,
        *,
        client_id: str,
        redirect_uri: str,
        code_challenge: str,
        access: Token,
        refresh: Token,
        ip: str | None,
        user_agent: str | None,
        event: Event,
        reuse_event: Event,
    ) -> tuple[Redeemed, LoginSession | None]:
        """One winner: the others find the code spent, and end the winner's session."""
        async with self._database.begin() as conn:
            person, code = await _lock(conn, code_hash)
            if person is None or code is None:
                return Redeemed.REFUSED, None
            now = await self._database.now(conn)
            if code.spent_at is not None:
                return await _reused(conn, person, code, reuse_event, now), None
            browser = await find_live(conn, code.browser_session_id, now)
            presented = (client_id, redirect_uri, code_challenge)
            if (
                browser is None
                or code.expires_at <= now
                or person.suspended_at is not None
                or not _same(presented, (code.client_id, code.redirect_uri, code.code_challenge))
            ):
                await _spend(conn, code, now, None)
                return Redeemed.REFUSED, None
            session = await open_session(
                conn,
                principal_id=person.id,
                client="cli",
                auth_time=browser.auth_time,
                mfa_time=browser.mfa_time,
                expires_at=browser.expires_at,
                ip=ip,
                user_agent=user_agent,
                now=now,
            )
            await _spend(conn, code, now, session.id)
            await store_token(conn, refresh, session, now)
            await store_token(conn, access, session, now)
            await append(conn, [of_person(event, person, session.id)])
            return Redeemed.OK, session


async def _lock(conn: AsyncConnection, code_hash: bytes) -> tuple[Row[Any] | None, Row[Any] | None]:
    """The person's row, locked, and the code's row as it is under that lock."""
    whose = (
        select(login_sessions.c.principal_id)
        .join(oauth_codes, oauth_codes.c.browser_session_id == login_sessions.c.id)
        .where(oauth_codes.c.code_hash == code_hash)
    )
    principal_id = (await conn.execute(whose)).scalar_one_or_none()
    if principal_id is None:
        return None, None
    person = await lock_person(conn, principal_id)
    query = select(oauth_codes).where(oauth_codes.c.code_hash == code_hash)
    return person, (await conn.execute(query)).one_or_none()


async def _spend(
    conn: AsyncConnection, code: Row[Any], now: datetime, login_session_id: str | None
) -> None:
    await conn.execute(
        update(oauth_codes)
        .where(oauth_codes.c.code_hash == code.code_hash)
        .values(spent_at=now, login_session_id=login_session_id)
    )


async def _reused(
    conn: AsyncConnection, person: Row[Any], code: Row[Any], reuse_event: Event, now: datetime
) -> Redeemed:
    if code.login_session_id is None:
        return Redeemed.REFUSED
    if not await end_sessions(conn, now, login_session_id=code.login_session_id):
        return Redeemed.REFUSED
    await append(conn, [of_person(reuse_event, person, code.login_session_id)])
    return Redeemed.REUSED


def _same(presented: tuple[str, ...], stored: tuple[str, ...]) -> bool:
    return all(
        hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8"))
        for one, other in zip(presented, stored, strict=True)
    )
