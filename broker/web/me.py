"""Who the caller is, and step-up from a terminal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from broker.access.rights import is_delegated_admin
from broker.identity.throttle import CODE_PER_ADDRESS
from broker.web.address import throttle_key
from broker.web.gate import AnyCaller, Caller
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["me"])


class Me(BaseModel):
    """Times are RFC 3339 UTC. `rights` over the broker itself: admin, auditor,
    delegated_admin.
    """

    id: str
    kind: str
    handle: str
    email: str | None
    provider: str
    groups: list[str]
    rights: list[str]
    auth_time: str | None
    mfa_time: str | None
    session_expires_at: str | None


class Code(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    code: Annotated[str, Field(min_length=1, max_length=64)]


class Verified(BaseModel):
    mfa_time: str | None


@router.get("/me")
async def me(caller: Caller) -> Me:
    context, principal = caller.who.context, caller.principal
    held = (
        ("admin", caller.is_admin),
        ("auditor", caller.is_auditor),
        ("delegated_admin", is_delegated_admin(caller.policy, principal)),
    )
    return Me(
        id=principal.id,
        kind=principal.kind.value,
        handle=principal.handle,
        email=principal.email,
        provider=principal.provider,
        groups=sorted(principal.groups),
        rights=[name for name, has in held if has],
        auth_time=instant(context.auth_time),
        mfa_time=instant(context.mfa_time),
        session_expires_at=instant(context.login_session_expires_at),
    )


@router.post("/mfa/verify")
async def verify(caller: AnyCaller, body: Code) -> Verified:
    """Raises the login session of the token by a one-time code; the token stays the same."""
    parts, context = caller.parts, caller.context
    await parts.throttle.admit(CODE_PER_ADDRESS, throttle_key(context.ip))
    await parts.second_factor.verify(
        caller.who,
        body.code,
        actor=caller.actor,
        request_id=context.id,
        replaces=None,
        cookie=None,
    )
    return Verified(mfa_time=instant(caller.who.now))
