"""Lists of people and workloads, and their login sessions.

Owns the queries, one page each, and ending sessions on somebody's behalf. Does
not own: what changes a principal (`logins`, `suspensions`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.login_sessions import end_sessions, to_login_session
from broker.adapters.store.policy_people import each_group
from broker.adapters.store.principals import lock_person, to_principal
from broker.adapters.store.records import append
from broker.adapters.store.schema import factors, login_sessions, principals, user_bindings
from broker.audit.record import Event
from broker.identity.directory import MAX_DIRECTORY_PAGE, KnownPrincipal
from broker.identity.principal import PrincipalKind
from broker.identity.sessions import LoginSession

_HAS_FACTOR = exists().where(
    factors.c.principal_id == principals.c.id, factors.c.confirmed_at.is_not(None)
)


class SqlDirectory:
    """Implements `identity.directory.Directory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known_principal(self, principal_id: str) -> KnownPrincipal | None:
        """The principal of this id."""
        async with self._database.read() as conn:
            found = await self._known(conn, [principals.c.id == principal_id], 1)
        return found[0] if found else None

    async def known_principals(
        self,
        *,
        kind: PrincipalKind,
        group: str | None = None,
        text: str | None = None,
        suspended: bool | None = None,
        has_confirmed_factor: bool | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[KnownPrincipal, ...]:
        """By handle, then id."""
        which: list[ColumnElement[bool]] = [principals.c.kind == kind.value]
        if text is not None:
            which.append(_matches(text))
        if suspended is not None:
            at = principals.c.suspended_at
            which.append(at.is_not(None) if suspended else at.is_(None))
        if has_confirmed_factor is not None:
            which.append(_HAS_FACTOR if has_confirmed_factor else ~_HAS_FACTOR)
        if after is not None:
            place = select(principals.c.handle, principals.c.id).where(principals.c.id == after)
            which.append(tuple_(principals.c.handle, principals.c.id) > place.scalar_subquery())
        async with self._database.read() as conn:
            if group is not None:
                of_each = each_group(conn)
                which.append(select(of_each.c.value).where(of_each.c.value == group).exists())
            return await self._known(conn, which, max(0, min(limit, MAX_DIRECTORY_PAGE)))

    async def live_sessions(
        self, principal_id: str, *, after: str | None = None, limit: int = 100
    ) -> tuple[LoginSession, ...]:
        """Newest first."""
        mine = login_sessions.c.principal_id == principal_id
        place = (login_sessions.c.created_at, login_sessions.c.id)
        async with self._database.read() as conn:
            query = select(login_sessions).where(
                mine,
                login_sessions.c.revoked_at.is_(None),
                login_sessions.c.expires_at > await self._database.now(conn),
            )
            if after is not None:
                last = select(*place).where(mine, login_sessions.c.id == after)
                query = query.where(tuple_(*place) < last.scalar_subquery())
            query = query.order_by(*(column.desc() for column in place))
            query = query.limit(max(0, min(limit, MAX_DIRECTORY_PAGE)))
            return tuple(to_login_session(row) for row in (await conn.execute(query)).all())

    async def end_login_sessions(
        self,
        principal_id: str,
        event: Event,
        *,
        only: str | None = None,
        but: str | None = None,
    ) -> tuple[str, ...]:
        """None of another principal is touched, whatever `only` names."""
        async with self._database.begin() as conn:
            if await lock_person(conn, principal_id) is None:
                return ()
            now = await self._database.now(conn)
            ended = await end_sessions(
                conn, now, login_session_id=only, principal_id=principal_id, but=but
            )
            if ended:
                await append(conn, [_revoked(event, principal_id, ended)])
        return ended

    async def _known(
        self, conn: AsyncConnection, which: list[ColumnElement[bool]], limit: int
    ) -> tuple[KnownPrincipal, ...]:
        live = (
            select(func.count())
            .select_from(login_sessions)
            .where(
                login_sessions.c.principal_id == principals.c.id,
                login_sessions.c.revoked_at.is_(None),
                login_sessions.c.expires_at > await self._database.now(conn),
            )
            .scalar_subquery()
        )
        query = (
            select(*principals.c, _HAS_FACTOR.label("has_factor"), live.label("live_sessions"))
            .where(*which)
            .order_by(principals.c.handle, principals.c.id)
            .limit(limit)
        )
        rows: list[Any] = list((await conn.execute(query)).all())
        names = await _names(conn, [row.id for row in rows])
        return tuple(_to_known(row, names.get(row.id, frozenset())) for row in rows)


def _matches(text: str) -> ColumnElement[bool]:
    part = text.lower()
    return or_(
        principals.c.id == text,
        func.lower(principals.c.handle).contains(part, autoescape=True),
        func.lower(principals.c.email).contains(part, autoescape=True),
    )


async def _names(conn: AsyncConnection, ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """The `user:` names of the access policy bound to each."""
    query = select(user_bindings.c.principal_id, user_bindings.c.name).where(
        user_bindings.c.principal_id.in_(list(ids))
    )
    found: dict[str, frozenset[str]] = {}
    for row in await conn.execute(query):
        found[row.principal_id] = found.get(row.principal_id, frozenset()) | {row.name}
    return found


def _to_known(row: Row[Any], names: frozenset[str]) -> KnownPrincipal:
    return KnownPrincipal(
        principal=to_principal(row, names),
        email_verified=bool(row.email_verified),
        pinned_admin=row.pinned_admin_at is not None,
        has_confirmed_factor=bool(row.has_factor),
        live_sessions=row.live_sessions,
        created_at=row.created_at,
        last_login_at=row.last_login_at,
        suspended_reason=row.suspended_reason,
    )


def _revoked(event: Event, principal_id: str, ended: tuple[str, ...]) -> Event:
    return replace(
        event,
        subject={**event.subject, "principal": principal_id},
        detail={**event.detail, "login_sessions": list(ended)},
    )
