"""Who is known, and their login sessions: for auditors to read, for admins to end.

Own sessions are everybody's to list and end. Does not own: factors and enrolment
codes (`people`), suspending (`suspension`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from broker.access.rights import is_admin, is_auditor
from broker.audit.record import Event, EventType, Outcome
from broker.errors import NotFound
from broker.identity.directory import KnownPrincipal
from broker.identity.principal import PrincipalKind
from broker.identity.sessions import LoginSession
from broker.web.gate import ApiCaller, Auditor, Caller, FreshAdmin
from broker.web.paging import DEFAULT_LIMIT, Limit
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["people"])

ANY_PRINCIPAL_ID = r"^[pw]-[a-z2-7]{16}$"
_SESSION_ID = r"^ls-[0-9a-f]{20}$"
PrincipalId = Annotated[str, Path(pattern=ANY_PRINCIPAL_ID)]
SessionId = Annotated[str, Path(pattern=_SESSION_ID)]
After = Annotated[str | None, Query(pattern=ANY_PRINCIPAL_ID)]
AfterSession = Annotated[str | None, Query(pattern=_SESSION_ID)]


class UserView(BaseModel):
    """Groups, handle and address are of the last login. `rights`: admin, auditor."""

    id: str
    kind: str
    handle: str
    email: str | None
    email_verified: bool
    provider: str
    groups: list[str]
    rights: list[str]
    second_factor: bool
    live_sessions: int
    created_at: str | None
    last_login_at: str | None
    suspended_at: str | None
    suspended_reason: str | None

    @classmethod
    def of(cls, known: KnownPrincipal, caller: ApiCaller) -> UserView:
        principal, policy = known.principal, caller.policy
        rights = (
            ("admin", is_admin(policy, principal, known.pinned_admin)),
            ("auditor", is_auditor(policy, principal)),
        )
        return cls(
            id=principal.id,
            kind=principal.kind.value,
            handle=principal.handle,
            email=principal.email,
            email_verified=known.email_verified,
            provider=principal.provider,
            groups=sorted(principal.groups),
            rights=[name for name, has in rights if has],
            second_factor=known.has_confirmed_factor,
            live_sessions=known.live_sessions,
            created_at=instant(known.created_at),
            last_login_at=instant(known.last_login_at),
            suspended_at=instant(principal.suspended_at),
            suspended_reason=known.suspended_reason,
        )


class Users(BaseModel):
    """By handle. `next` where more may follow."""

    users: list[UserView]
    next: str | None


class SessionView(BaseModel):
    """A login session that is not over. `current` is the one that asks."""

    id: str
    client: str
    auth_time: str | None
    mfa_time: str | None
    created_at: str | None
    expires_at: str | None
    ip: str | None
    user_agent: str | None
    current: bool


class Sessions(BaseModel):
    """Newest first. `next` where more may follow."""

    sessions: list[SessionView]
    next: str | None


class Ended(BaseModel):
    """The ids of the sessions that ended."""

    ended: list[str]


@router.get("/users")
async def users(
    caller: Auditor,
    *,
    kind: Literal["person", "workload"] = "person",
    group: Annotated[str | None, Query(min_length=1, max_length=512)] = None,
    q: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    suspended: bool | None = None,
    second_factor: bool | None = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Users:
    """`q` is part of a handle or address, in any case, or a whole id; `group` is qualified."""
    found = await caller.parts.directory.known_principals(
        kind=PrincipalKind(kind),
        group=group,
        text=q,
        suspended=suspended,
        has_confirmed_factor=second_factor,
        after=after,
        limit=limit,
    )
    return Users(
        users=[UserView.of(one, caller) for one in found],
        next=found[-1].principal.id if len(found) == limit else None,
    )


@router.get("/users/{principal_id}")
async def user(caller: Auditor, principal_id: PrincipalId) -> UserView:
    return UserView.of(await find(caller, principal_id), caller)


@router.get("/users/{principal_id}/sessions")
async def sessions(
    caller: Auditor,
    principal_id: PrincipalId,
    *,
    after: AfterSession = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Sessions:
    await find(caller, principal_id)
    return await _sessions(caller, principal_id, after, limit)


@router.delete("/users/{principal_id}/sessions")
async def end_sessions(caller: FreshAdmin, principal_id: PrincipalId) -> Ended:
    """All of them, with their tokens, on every replica at once."""
    await find(caller, principal_id)
    return await _end(caller, principal_id)


@router.delete("/users/{principal_id}/sessions/{session_id}")
async def end_session(
    caller: FreshAdmin, principal_id: PrincipalId, session_id: SessionId
) -> Ended:
    return _found(await _end(caller, principal_id, only=session_id))


@router.get("/me/sessions")
async def own_sessions(
    caller: Caller, *, after: AfterSession = None, limit: Limit = DEFAULT_LIMIT
) -> Sessions:
    return await _sessions(caller, caller.principal.id, after, limit)


@router.delete("/me/sessions")
async def end_other_sessions(caller: Caller) -> Ended:
    """All but the one that asks. No fresh factor: who ends only their own logins takes nothing
    from anybody, and may have lost the phone.
    """
    return await _end(caller, caller.principal.id, but=caller.who.context.login_session_id)


@router.delete("/me/sessions/{session_id}")
async def end_own_session(caller: Caller, session_id: SessionId) -> Ended:
    return _found(await _end(caller, caller.principal.id, only=session_id))


async def find(caller: ApiCaller, principal_id: str) -> KnownPrincipal:
    """Raises NotFound."""
    found = await caller.parts.directory.known_principal(principal_id)
    if found is None:
        raise NotFound("No such principal was ever seen here.")
    return found


async def _sessions(
    caller: ApiCaller, principal_id: str, after: str | None, limit: int
) -> Sessions:
    found = await caller.parts.directory.live_sessions(principal_id, after=after, limit=limit)
    current = caller.who.context.login_session_id
    return Sessions(
        sessions=[_view(one, current) for one in found],
        next=found[-1].id if len(found) == limit else None,
    )


def _view(session: LoginSession, current: str) -> SessionView:
    return SessionView(
        id=session.id,
        client=session.client,
        auth_time=instant(session.auth_time),
        mfa_time=instant(session.mfa_time),
        created_at=instant(session.created_at),
        expires_at=instant(session.expires_at),
        ip=session.ip,
        user_agent=session.user_agent,
        current=session.id == current,
    )


async def _end(
    caller: ApiCaller, principal_id: str, *, only: str | None = None, but: str | None = None
) -> Ended:
    by = "self" if principal_id == caller.principal.id else "admin"
    event = Event(
        EventType.SESSION_REVOKED,
        caller.actor,
        Outcome.SUCCESS,
        subject={} if only is None else {"login_session": only},
        detail={"reason": f"ended by {by}"},
        request_id=caller.context.id,
    )
    ended = await caller.parts.directory.end_login_sessions(principal_id, event, only=only, but=but)
    return Ended(ended=list(ended))


def _found(ended: Ended) -> Ended:
    if not ended.ended:
        raise NotFound("No such login session is live.")
    return ended
