"""The verbs of suspending and reinstating.

Owns: that all which ends with a suspension ends in one transaction, and that an
admin is left. The journal rechecks `suspended_at` before anything is handed out,
so what was in flight is withheld. Does not own: what AWS is told (`issuance.revoke`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.four_eyes import administers
from broker.access.policy import MAX_DURATION, AccessPolicy
from broker.adapters.store.access import require_newest
from broker.adapters.store.engine import Database
from broker.adapters.store.grants import end_grants, grant_events
from broker.adapters.store.issuances import to_issuance
from broker.adapters.store.login_sessions import end_sessions
from broker.adapters.store.policy_people import known_admins
from broker.adapters.store.principals import (
    lock_person,
    lock_who_is_who,
    require_not_suspended,
)
from broker.adapters.store.records import append
from broker.adapters.store.schema import grants, issuances, principals
from broker.audit.record import Event, EventType, rfc3339
from broker.errors import Conflict
from broker.issuance.journal import State
from broker.issuance.revoke import MAX_LISTED, Live, LiveRole, Reinstatement, Suspension

# No credentials live longer after they were asked for; STS may have taken a while.
_LONGEST_LIFE = timedelta(seconds=MAX_DURATION) + timedelta(hours=1)


class SqlSuspensions:
    """Implements `issuance.revoke.SuspensionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def suspend(
        self, principal_id: str, *, policy: AccessPolicy, by: str, reason: str, event: Event
    ) -> Suspension | None:
        """Raises Conflict, PreconditionFailed, Suspended."""
        async with self._database.begin() as conn:
            # No login and no policy may change meanwhile who is an admin.
            await lock_who_is_who(conn)
            await require_not_suspended(conn, by)
            await require_newest(conn, policy.number)
            person = await lock_person(conn, principal_id)
            if person is None:
                return None
            now = await self._database.now(conn)
            live = await _live(conn, principal_id, now)
            if person.suspended_at is not None:
                since, why = person.suspended_at, person.suspended_reason or ""
                return Suspension(principal_id, False, since, why, (), (), live)
            await _require_another_admin(conn, policy, principal_id)
            await conn.execute(
                update(principals)
                .where(principals.c.id == principal_id)
                .values(suspended_at=now, suspended_reason=reason)
            )
            sessions = await end_sessions(conn, now, principal_id=principal_id)
            mine = grants.c.principal_id == principal_id
            revoked = await end_grants(conn, now, mine, by=by, reason=reason)
            events = [_requested(event, person, reason, sessions, live)]
            if sessions:
                events.append(_sessions_revoked(event, principal_id, sessions))
            await append(conn, [*events, *grant_events(event, revoked, reason)])
        ids = tuple(one.id for one in revoked)
        return Suspension(principal_id, True, now, reason, sessions, ids, live)

    async def reinstate(self, principal_id: str, *, by: str, event: Event) -> Reinstatement | None:
        """Raises Conflict, Suspended."""
        async with self._database.begin() as conn:
            # Else an admin who is just being suspended could undo it from a request in flight.
            await lock_who_is_who(conn)
            await require_not_suspended(conn, by)
            person = await lock_person(conn, principal_id)
            if person is None:
                return None
            if person.suspended_at is None:
                raise Conflict("This account is not suspended.")
            now = await self._database.now(conn)
            await conn.execute(
                update(principals)
                .where(principals.c.id == principal_id)
                .values(suspended_at=None, suspended_reason=None)
            )
            live = await _live(conn, principal_id, now)
            await append(conn, [_lifted(event, person, now)])
        return Reinstatement(principal_id, now, live)

    async def live(self, principal_id: str) -> Live:
        """What can still be done with what was issued to the principal."""
        async with self._database.read() as conn:
            return await _live(conn, principal_id, await self._database.now(conn))


async def _require_another_admin(
    conn: AsyncConnection, policy: AccessPolicy, principal_id: str
) -> None:
    """Nobody could reinstate the last one."""
    admins = await known_admins(conn, frozenset(policy.admins))
    acting = {one.principal.id for one in admins if administers(policy, one)}
    if acting == {principal_id}:
        raise Conflict("This is the last admin; name another one first.")


async def _live(conn: AsyncConnection, principal_id: str, now: datetime) -> Live:
    mine: list[ColumnElement[bool]] = [
        issuances.c.principal_id == principal_id,
        issuances.c.requested_at > now - _LONGEST_LIFE,
        issuances.c.state == State.ISSUED.value,
        issuances.c.expires_at > now,
    ]
    which = (issuances.c.role_arn, issuances.c.role, issuances.c.account_id)
    last = func.max(issuances.c.expires_at, type_=issuances.c.expires_at.type)
    by_role = (
        select(*which, func.count().label("live"), last.label("last"))
        .where(*mine)
        .group_by(*which)
        .order_by(*which)
    )
    roles = tuple(
        LiveRole(row.role, row.role_arn, row.account_id, row.live, row.last)
        for row in (await conn.execute(by_role)).all()
    )
    newest = select(issuances).where(*mine).order_by(issuances.c.expires_at.desc(), issuances.c.id)
    rows = (await conn.execute(newest.limit(MAX_LISTED))).all()
    return Live(roles, tuple(to_issuance(row) for row in rows))


def _requested(
    event: Event, person: Row[Any], reason: str, sessions: tuple[str, ...], live: Live
) -> Event:
    return replace(
        event,
        subject={**event.subject, "principal": person.id},
        detail={
            "effect": "suspended",
            "reason": reason,
            "handle": person.handle,
            "login_sessions_ended": len(sessions),
            "live_issuances": live.count,
            "live_roles": sorted({role.role_arn for role in live.roles}),
            **event.detail,
        },
    )


def _sessions_revoked(event: Event, principal_id: str, sessions: tuple[str, ...]) -> Event:
    return replace(
        event,
        type=EventType.SESSION_REVOKED,
        subject={"principal": principal_id},
        detail={"reason": "suspended", "login_sessions": list(sessions)},
    )


def _lifted(event: Event, person: Row[Any], now: datetime) -> Event:
    return replace(
        event,
        subject={**event.subject, "principal": person.id},
        detail={
            "effect": "reinstated",
            "suspended_at": rfc3339(person.suspended_at),
            "lifted_at": rfc3339(now),
            "suspended_for": person.suspended_reason,
            **event.detail,
        },
    )
