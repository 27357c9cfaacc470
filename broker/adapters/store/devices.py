"""The verbs of logins that a machine without a browser starts (RFC 8628).

Owns: that one person decides and one poll redeems, that polls keep their pace,
and that showing a redeemed code again ends what was made of it.

Undecided rows are changed by conditional updates alone. Of a decided one the
person's lock comes first, as in every verb about a person.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.dialects import postgresql, sqlite
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
from broker.adapters.store.schema import device_logins, login_sessions
from broker.audit.record import Event, clean_text
from broker.identity.device import (
    DEVICE_LOGIN_LIFETIME,
    INTERVAL,
    LONGEST_INTERVAL,
    POLL_LEEWAY,
    SLOWED_BY,
    DeviceLogin,
    NewDeviceLogin,
    Polled,
)
from broker.identity.sessions import DEVICE_CLIENT, LoginSession, Token

_MAX_IP = 64
_MAX_USER_AGENT = 512


class SqlDeviceStore:
    """Implements `identity.device.DeviceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_device_login(self, new: NewDeviceLogin) -> bool:
        """False where the user code is in use."""
        dialect = sqlite if self._database.dialect == "sqlite" else postgresql
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            opened = await conn.execute(
                dialect.insert(device_logins)
                .values(
                    id=new.id,
                    device_code_hash=new.device_code_hash,
                    user_code_hash=new.user_code_hash,
                    state="pending",
                    host_name=new.host_name,
                    ip=_cut(new.ip, _MAX_IP),
                    user_agent=_cut(new.user_agent, _MAX_USER_AGENT),
                    created_at=now,
                    expires_at=now + DEVICE_LOGIN_LIFETIME,
                    interval_seconds=INTERVAL // timedelta(seconds=1),
                )
                .on_conflict_do_nothing(index_elements=[device_logins.c.user_code_hash])
            )
            return opened.rowcount == 1

    async def find_device_login(self, user_code_hash: bytes) -> DeviceLogin | None:
        """The login if it still waits for a person."""
        async with self._database.read() as conn:
            query = select(device_logins).where(
                device_logins.c.user_code_hash == user_code_hash,
                device_logins.c.state == "pending",
                device_logins.c.expires_at > await self._database.now(conn),
            )
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            return None
        return DeviceLogin(
            row.id, row.host_name, row.ip, row.user_agent, row.created_at, row.expires_at
        )

    async def decide_device_login(
        self, user_code_hash: bytes, *, approve: bool, login_session_id: str, event: Event
    ) -> bool:
        """One winner: the others find it decided."""
        async with self._database.begin() as conn:
            person = await _lock_person_of(conn, login_session_id)
            now = await self._database.now(conn)
            browser = await find_live(conn, login_session_id, now)
            if person is None or person.suspended_at is not None or browser is None:
                return False
            if approve and browser.mfa_time is None:
                return False
            decided = await conn.execute(
                update(device_logins)
                .where(
                    device_logins.c.user_code_hash == user_code_hash,
                    device_logins.c.state == "pending",
                    device_logins.c.expires_at > now,
                )
                .values(
                    state="approved" if approve else "denied",
                    browser_session_id=browser.id,
                    decided_at=now,
                    mfa_time=browser.mfa_time,
                )
                .returning(*device_logins.c)
            )
            row = decided.one_or_none()
            if row is None:
                return False
            await append(conn, [_about(of_person(event, person, browser.id), row)])
            return True

    async def poll_device_login(
        self,
        device_code_hash: bytes,
        *,
        access: Token,
        refresh: Token,
        ip: str | None,
        user_agent: str | None,
        event: Event,
        reuse_event: Event,
    ) -> tuple[Polled, LoginSession | None]:
        """One winner: the others find it redeemed, and end the winner's session."""
        async with self._database.begin() as conn:
            now = await self._database.now(conn)
            row = await _find(conn, device_code_hash)
            if row is not None and row.browser_session_id is None:
                waiting = await _keep_pace(conn, row, now)
                if waiting is not None:
                    return waiting, None
                # Decided since it was read.
                row = await _find(conn, device_code_hash)
            if row is None or row.browser_session_id is None:
                return Polled.REFUSED, None
            person = await _lock_person_of(conn, row.browser_session_id)
            row = await _find(conn, device_code_hash)
            if person is None or row is None:
                return Polled.REFUSED, None
            now = await self._database.now(conn)
            if row.state == "redeemed":
                return await _reused(conn, person, row, reuse_event, now), None
            if row.expires_at <= now:
                return Polled.EXPIRED, None
            browser = await find_live(conn, row.browser_session_id, now)
            if row.state != "approved" or browser is None or person.suspended_at is not None:
                return Polled.DENIED, None
            session = await open_session(
                conn,
                principal_id=person.id,
                client=DEVICE_CLIENT,
                auth_time=browser.auth_time,
                mfa_time=row.mfa_time,
                expires_at=browser.expires_at,
                ip=ip,
                user_agent=user_agent,
                now=now,
            )
            await conn.execute(
                update(device_logins)
                .where(device_logins.c.id == row.id)
                .values(state="redeemed", login_session_id=session.id)
            )
            await store_token(conn, refresh, session, now)
            await store_token(conn, access, session, now)
            await append(conn, [_about(of_person(event, person, session.id), row)])
            return Polled.OK, session


async def _find(conn: AsyncConnection, device_code_hash: bytes) -> Row[Any] | None:
    query = select(device_logins).where(device_logins.c.device_code_hash == device_code_hash)
    return (await conn.execute(query)).one_or_none()


async def _keep_pace(conn: AsyncConnection, row: Row[Any], now: datetime) -> Polled | None:
    """Note the poll of a login that waits; None where it was decided meanwhile."""
    if row.expires_at <= now:
        return Polled.EXPIRED
    interval = timedelta(seconds=row.interval_seconds)
    too_soon = row.polled_at is not None and now - row.polled_at < interval - POLL_LEEWAY
    if too_soon:
        interval = min(interval + SLOWED_BY, LONGEST_INTERVAL)
    noted = await conn.execute(
        update(device_logins)
        .where(device_logins.c.id == row.id, device_logins.c.state == "pending")
        .values(polled_at=now, interval_seconds=interval // timedelta(seconds=1))
    )
    if noted.rowcount == 0:
        return None
    return Polled.SLOW_DOWN if too_soon else Polled.PENDING


async def _lock_person_of(conn: AsyncConnection, login_session_id: str) -> Row[Any] | None:
    query = select(login_sessions.c.principal_id).where(login_sessions.c.id == login_session_id)
    principal_id = (await conn.execute(query)).scalar_one_or_none()
    return None if principal_id is None else await lock_person(conn, principal_id)


async def _reused(
    conn: AsyncConnection, person: Row[Any], row: Row[Any], reuse_event: Event, now: datetime
) -> Polled:
    if not await end_sessions(conn, now, login_session_id=row.login_session_id):
        return Polled.REFUSED
    await append(conn, [of_person(reuse_event, person, row.login_session_id)])
    return Polled.REUSED


def _about(event: Event, row: Row[Any]) -> Event:
    """The event with the machine that it is about."""
    machine = {"host_name": row.host_name, "ip": row.ip, "user_agent": row.user_agent}
    return replace(
        event,
        subject={**event.subject, "device_login": row.id},
        detail={**event.detail, "device": machine},
    )


def _cut(text: str | None, limit: int) -> str | None:
    return None if text is None else clean_text(text, limit)
