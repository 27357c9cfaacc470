"""Login sessions and tokens as rows: what the verbs of several subjects share.

Owns: opening, finding and ending a login session, and storing tokens, inside the
caller's transaction. The caller holds the person's lock.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.schema import login_sessions, tokens
from broker.audit.record import clean_text
from broker.identity.sessions import (
    ACCESS_TOKEN_LIFETIME,
    LoginSession,
    Token,
    TokenKind,
    new_login_session_id,
)

_MAX_USER_AGENT = 512
_MAX_IP = 64


def to_login_session(row: Row[Any]) -> LoginSession:
    """`row` holds every column of `login_sessions`."""
    return LoginSession(
        id=row.id,
        principal_id=row.principal_id,
        client=row.client,
        auth_time=row.auth_time,
        mfa_time=row.mfa_time,
        expires_at=row.expires_at,
        created_at=row.created_at,
        ip=row.ip,
        user_agent=row.user_agent,
        may_enrol_until=row.may_enrol_until,
        revoked_at=row.revoked_at,
    )


async def open_session(
    conn: AsyncConnection,
    *,
    principal_id: str,
    client: str,
    auth_time: datetime,
    mfa_time: datetime | None,
    expires_at: datetime,
    ip: str | None,
    user_agent: str | None,
    now: datetime,
) -> LoginSession:
    """A new session without tokens yet. What the client says of itself is cut and cleaned."""
    session = LoginSession(
        id=new_login_session_id(),
        principal_id=principal_id,
        client=client,
        auth_time=auth_time,
        mfa_time=mfa_time,
        expires_at=expires_at,
        created_at=now,
        ip=None if ip is None else clean_text(ip, _MAX_IP),
        user_agent=None if user_agent is None else clean_text(user_agent, _MAX_USER_AGENT),
        may_enrol_until=None,
        revoked_at=None,
    )
    await conn.execute(
        insert(login_sessions).values(
            id=session.id,
            principal_id=principal_id,
            client=client,
            auth_time=auth_time,
            mfa_time=mfa_time,
            created_at=now,
            expires_at=expires_at,
            ip=session.ip,
            user_agent=session.user_agent,
        )
    )
    return session


async def find_live(
    conn: AsyncConnection, login_session_id: str, now: datetime
) -> LoginSession | None:
    """The session, unless it is over."""
    row = (
        await conn.execute(
            select(login_sessions).where(
                login_sessions.c.id == login_session_id,
                login_sessions.c.revoked_at.is_(None),
                login_sessions.c.expires_at > now,
            )
        )
    ).one_or_none()
    return None if row is None else to_login_session(row)


async def end_sessions(
    conn: AsyncConnection,
    now: datetime,
    *,
    login_session_id: str | None = None,
    principal_id: str | None = None,
    but: str | None = None,
) -> tuple[str, ...]:
    """Revoke one session, or all of a person `but` one, with their tokens; the ids of those that
    ended. With both ids: that session, if it is theirs.
    """
    if login_session_id is None and principal_id is None:
        raise ValueError("name a login session or whose they are")
    which = []
    if login_session_id is not None:
        which.append(login_sessions.c.id == login_session_id)
    if principal_id is not None:
        which.append(login_sessions.c.principal_id == principal_id)
    if but is not None:
        which.append(login_sessions.c.id != but)
    ended = await conn.execute(
        update(login_sessions)
        .where(*which, login_sessions.c.revoked_at.is_(None), login_sessions.c.expires_at > now)
        .values(revoked_at=now)
        .returning(login_sessions.c.id)
    )
    ids = tuple(sorted(ended.scalars()))
    if ids:
        await conn.execute(delete(tokens).where(tokens.c.login_session_id.in_(ids)))
    return ids


async def store_token(
    conn: AsyncConnection,
    token: Token,
    session: LoginSession,
    now: datetime,
    *,
    previous_hash: bytes | None = None,
) -> None:
    """Remember the token's hash. Access tokens live 15 minutes, the others as their session."""
    expires_at = session.expires_at
    if token.kind is TokenKind.ACCESS:
        expires_at = min(expires_at, now + ACCESS_TOKEN_LIFETIME)
    await conn.execute(
        insert(tokens).values(
            hash=token.hash,
            kind=token.kind.value,
            login_session_id=session.id,
            created_at=now,
            expires_at=expires_at,
            previous_hash=previous_hash,
        )
    )


async def swap_cookie(
    conn: AsyncConnection,
    session: LoginSession,
    replaces: Token | None,
    cookie: Token | None,
    now: datetime,
) -> None:
    """Put `cookie` in the place of this session's `replaces`."""
    if replaces is not None:
        await conn.execute(
            delete(tokens).where(
                tokens.c.hash == replaces.hash, tokens.c.login_session_id == session.id
            )
        )
    if cookie is not None:
        await store_token(conn, cookie, session, now)
