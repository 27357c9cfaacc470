"""Grants: an admin gives somebody a role for a time, sees who has what, and takes it back."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from broker.access.grant import (
    Grant,
    NewGrant,
    Repeatable,
    SeenBy,
    StoredGrant,
    validity,
)
from broker.access.policy import MIN_DURATION, Role
from broker.access.rights import administered_roles, may_administer
from broker.audit.record import Event, EventType, Outcome
from broker.errors import Conflict, Forbidden, InvalidRequest, NotFound, SelfApproval
from broker.identity.people import split_user_name
from broker.issuance.duration import CLOCK_MARGIN
from broker.web.gate import ApiCaller, Caller, FreshPrincipal
from broker.web.paging import DEFAULT_LIMIT, Limit
from broker.web.people import PRINCIPAL_ID
from broker.web.suspension import Why
from broker.web.users import ANY_PRINCIPAL_ID
from broker.web.wire import Moment, instant

router = APIRouter(prefix="/v1/grants", tags=["grants"])

_ID = r"^g-[a-z2-7]{26}$"
_ROLE = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_USER = r"^[a-z0-9][a-z0-9-]{0,31}/[^\s@/\x00-\x1f]{1,128}@[^\s@/\x00-\x1f]{1,126}$"
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_MAX_SECONDS = 366 * 24 * 3600
GrantId = Annotated[str, Path(pattern=_ID)]


class Granting(Why):
    """`principal` is an id, `user` is provider/e-mail. `not_before` is now where it is left out;
    `expires_at`, or `duration` in seconds from `not_before` on.
    """

    model_config = ConfigDict(extra="forbid", strict=False)

    principal: Annotated[str, Field(pattern=PRINCIPAL_ID)] | None = None
    user: Annotated[str, Field(pattern=_USER)] | None = None
    role: Annotated[str, Field(pattern=_ROLE)]
    not_before: Moment | None = None
    expires_at: Moment | None = None
    duration: Annotated[int, Field(strict=True, ge=1, le=_MAX_SECONDS)] | None = None

    @field_validator("not_before", "expires_at", mode="before")
    @classmethod
    def _is_written_out(cls, value: object) -> object:
        """A bare number would be read as seconds since the epoch."""
        if value is not None and not isinstance(value, str):
            raise ValueError("write RFC 3339, with a time zone")
        return value


class GrantView(BaseModel):
    """`state`: upcoming, active, expired or revoked. After `usable_until` too little is left for
    AWS's shortest credentials.
    """

    id: str
    principal_id: str
    handle: str
    role: str
    state: str
    not_before: str | None
    expires_at: str | None
    usable_until: str | None
    granted_by: str
    reason: str
    created_at: str | None
    revoked_at: str | None
    revoked_by: str | None
    revoked_reason: str | None

    @classmethod
    def of(cls, stored: StoredGrant) -> GrantView:
        grant = stored.grant
        return cls(
            id=grant.id,
            principal_id=grant.principal_id,
            handle=stored.handle,
            role=grant.role,
            state=stored.state.value,
            not_before=instant(grant.not_before),
            expires_at=instant(grant.expires_at),
            usable_until=instant(_usable_until(grant)),
            granted_by=grant.granted_by,
            reason=grant.reason,
            created_at=instant(stored.created_at),
            revoked_at=instant(stored.revoked_at),
            revoked_by=stored.revoked_by,
            revoked_reason=stored.revoked_reason,
        )


class Grants(BaseModel):
    """Newest first. `next` where more may follow."""

    grants: list[GrantView]
    next: str | None


@router.post("", status_code=201)
async def create(
    caller: FreshPrincipal,
    body: Granting,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> GrantView:
    """By admins, and by delegated admins for their roles; never to oneself.

    A repeat with the same Idempotency-Key is answered with the grant of the first. Raises
    Forbidden, NotFound, SelfApproval, InvalidRequest, Conflict.
    """
    repeatable = _repeatable(idempotency_key, body)
    role = _grantable(caller, body.role)
    principal_id = await _receiver(caller, body)
    if principal_id == caller.principal.id:
        raise SelfApproval("Nobody grants a role to themselves; another admin does.")
    new = NewGrant(
        principal_id=principal_id,
        role=role.name,
        validity=validity(
            now=caller.who.now,
            not_before=body.not_before,
            expires_at=body.expires_at,
            duration=body.duration,
            longest=role.max_grant,
        ),
        granted_by=caller.principal.id,
        reason=body.reason,
    )
    event = _event(EventType.GRANT_CREATED, caller, max_grant=role.max_grant)
    return GrantView.of(await caller.parts.grants.create_grant(new, event, repeatable=repeatable))


@router.get("")
async def grants(
    caller: Caller,
    *,
    principal: Annotated[str | None, Query(pattern=ANY_PRINCIPAL_ID)] = None,
    role: Annotated[str | None, Query(pattern=_ROLE)] = None,
    active: bool | None = None,
    after: Annotated[str | None, Query(pattern=_ID)] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Grants:
    """Own ones, those one gave, and those of roles one administers; all for admins, auditors."""
    found = await caller.parts.grants.grants(
        seen_by=_seen_by(caller),
        principal_id=principal,
        role=role,
        active=active,
        after=after,
        limit=limit,
    )
    return Grants(
        grants=[GrantView.of(one) for one in found],
        next=found[-1].grant.id if len(found) == limit else None,
    )


@router.get("/{grant_id}")
async def grant(caller: Caller, grant_id: GrantId) -> GrantView:
    """One that is not the caller's to see is not found, as if it did not exist."""
    return GrantView.of(await _find(caller, grant_id))


@router.post("/{grant_id}/revoke")
async def revoke(caller: FreshPrincipal, grant_id: GrantId, body: Why) -> GrantView:
    """From now on nothing is issued by it, on any replica; what is in flight is withheld.

    By whoever may give it, and by the person who has it. Raises NotFound, Forbidden, and
    Conflict where it is over.
    """
    found = await _find(caller, grant_id)
    mine = found.grant.principal_id == caller.principal.id
    if not (mine or _administers(caller, found.grant.role)):
        raise Forbidden("Only admins of this role may revoke this grant.")
    done = await caller.parts.grants.revoke_grant(
        grant_id,
        by=caller.principal.id,
        reason=body.reason,
        event=_event(EventType.GRANT_REVOKED, caller),
    )
    if not done:
        raise Conflict("This grant is over already.")
    return GrantView.of(await _find(caller, grant_id))


def _usable_until(grant: Grant) -> datetime:
    return grant.expires_at - timedelta(seconds=MIN_DURATION + CLOCK_MARGIN)


def _administers(caller: ApiCaller, role: str) -> bool:
    return may_administer(caller.policy, caller.principal, role, pinned=caller.who.pinned_admin)


def _grantable(caller: ApiCaller, name: str) -> Role:
    """The right first: to others no role is there that they may not give."""
    if not _administers(caller, name):
        raise Forbidden("Only admins of a role may give it.")
    role = caller.policy.roles.get(name)
    if role is None:
        raise NotFound("The access policy has no role of that name.")
    if role.max_grant == 0:
        raise Forbidden("The access policy allows no direct grants of this role (max_grant is 0).")
    return role


async def _receiver(caller: ApiCaller, body: Granting) -> str:
    """Raises NotFound for an address that nobody has logged in with."""
    if (body.principal is None) == (body.user is None):
        raise InvalidRequest("Give principal or user, one of them.")
    if body.principal is not None:
        return body.principal
    named = split_user_name(body.user or "")
    person = None if named is None else await caller.parts.people.find_by_email(*named)
    if person is None:
        raise NotFound("Nobody with that address has logged in yet.")
    return person.id


def _seen_by(caller: ApiCaller) -> SeenBy | None:
    if caller.is_admin or caller.is_auditor:
        return None
    roles = administered_roles(caller.policy, caller.principal, pinned=caller.who.pinned_admin)
    return SeenBy(caller.principal.id, roles)


async def _find(caller: ApiCaller, grant_id: str) -> StoredGrant:
    found = await caller.parts.grants.grant(grant_id)
    seen_by = _seen_by(caller)
    if found is None or not (seen_by is None or seen_by.sees(found.grant)):
        raise NotFound
    return found


def _repeatable(key: str | None, body: Granting) -> Repeatable | None:
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key is 1 to 255 printable ASCII characters.")
    asked = msgspec.json.encode(body.model_dump(mode="json"), order="sorted")
    return Repeatable(hashlib.sha256(key.encode()).digest(), hashlib.sha256(asked).digest())


def _event(event_type: EventType, caller: ApiCaller, **detail: object) -> Event:
    return Event(
        event_type, caller.actor, Outcome.SUCCESS, detail=detail, request_id=caller.context.id
    )
