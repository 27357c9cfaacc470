"""Stopping a person or workload at once, and letting them back.

The answers say what AWS does not know yet: which credentials still live, until
when, and the Deny policy for each role that they act as.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from broker.access.policy import AccessPolicy
from broker.audit.record import Event, EventType, Outcome
from broker.errors import Forbidden, NotFound
from broker.issuance.journal import Issuance
from broker.issuance.revoke import Live, deny_policy, policy_name, whole_seconds
from broker.web.access_judgement import policy_in_force
from broker.web.gate import ApiCaller, Auditor, FreshAdmin
from broker.web.users import PrincipalId, find
from broker.web.wire import instant

router = APIRouter(prefix="/v1/users/{principal_id}", tags=["people"])

MAX_REASON = 500


class Why(BaseModel):
    """`reason` is kept in the log."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(max_length=MAX_REASON)]

    @field_validator("reason")
    @classmethod
    def _says_something(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("say why")
        if not reason.isprintable():
            # They would forge lines in terminals and logs, and PostgreSQL stores no NUL.
            raise ValueError("one line without control characters")
        return reason.strip()


class LiveIssuance(BaseModel):
    """Credentials that AWS still takes. Never secrets."""

    id: str
    role: str
    role_arn: str
    session_name: str
    access_key_id: str | None
    assumed_role_id: str | None
    expires_at: str | None

    @classmethod
    def of(cls, issuance: Issuance) -> LiveIssuance:
        return cls(
            id=issuance.id,
            role=issuance.role,
            role_arn=issuance.role_arn,
            session_name=issuance.session_name,
            access_key_id=issuance.access_key_id,
            assumed_role_id=issuance.assumed_role_id,
            expires_at=instant(issuance.expires_at),
        )


class RoleToDeny(BaseModel):
    """Put `policy` on the IAM role as an inline policy called `policy_name`; drop it after
    `last_expires_at`, when the last of the credentials ends by itself. `may_chain`: they may have
    assumed other roles, whose sessions carry the same SourceIdentity and need the same policy.
    """

    role: str
    role_arn: str
    account_id: str
    live_issuances: int
    last_expires_at: str | None
    may_chain: bool
    policy_name: str
    policy: dict[str, object]


class LiveCredentials(BaseModel):
    """`live_issuances` are the 200 that end last; `live_issuances_total` counts all."""

    live_issuances: list[LiveIssuance]
    live_issuances_total: int
    roles: list[RoleToDeny]


class Suspended(LiveCredentials):
    """`already_suspended`: nothing was changed; time and reason are the earlier ones."""

    principal_id: str
    already_suspended: bool
    suspended_at: str | None
    reason: str
    login_sessions_ended: int
    grants_revoked: list[str]


class Reinstated(LiveCredentials):
    """The policies deny what was issued before `lifted_at`. Grants and logins that ended stay
    ended; second factors stay.
    """

    principal_id: str
    lifted_at: str | None


@router.post("/suspend")
async def suspend(caller: FreshAdmin, principal_id: PrincipalId, body: Why) -> Suspended:
    """Raises Forbidden for oneself, NotFound, and Conflict for the last admin."""
    if principal_id == caller.principal.id:
        raise Forbidden("Nobody suspends themselves; another admin does.")
    policy = await policy_in_force(caller)
    done = await caller.parts.suspensions.suspend(
        principal_id,
        policy=policy,
        by=caller.principal.id,
        reason=body.reason,
        event=_event(EventType.REVOCATION_REQUESTED, caller),
    )
    if done is None:
        raise NotFound("No such principal was ever seen here.")
    return Suspended.model_validate(
        {
            "principal_id": principal_id,
            "already_suspended": not done.newly,
            "suspended_at": instant(done.suspended_at),
            "reason": done.reason,
            "login_sessions_ended": len(done.login_sessions),
            "grants_revoked": list(done.grants),
            **_live(done.live, principal_id, policy, None),
        }
    )


@router.post("/reinstate")
async def reinstate(caller: FreshAdmin, principal_id: PrincipalId, body: Why) -> Reinstated:
    """Raises NotFound, and Conflict for one who is not suspended."""
    event = _event(EventType.REVOCATION_LIFTED, caller, reason=body.reason)
    done = await caller.parts.suspensions.reinstate(
        principal_id, by=caller.principal.id, event=event
    )
    if done is None:
        raise NotFound("No such principal was ever seen here.")
    return Reinstated.model_validate(
        {
            "principal_id": principal_id,
            "lifted_at": whole_seconds(done.lifted_at),
            **_live(done.live, principal_id, caller.policy, done.lifted_at),
        }
    )


@router.get("/live")
async def live(caller: Auditor, principal_id: PrincipalId) -> LiveCredentials:
    """What AWS still takes of theirs, and what would deny it."""
    await find(caller, principal_id)
    found = await caller.parts.suspensions.live(principal_id)
    return LiveCredentials.model_validate(_live(found, principal_id, caller.policy, None))


def _live(
    live: Live, principal_id: str, policy: AccessPolicy, lifted_at: datetime | None
) -> dict[str, object]:
    """The members of LiveCredentials. A role that the policy no longer has may have chained."""
    return {
        "live_issuances": [LiveIssuance.of(one) for one in live.issuances],
        "live_issuances_total": live.count,
        "roles": [
            RoleToDeny(
                role=one.role,
                role_arn=one.role_arn,
                account_id=one.account_id,
                live_issuances=one.count,
                last_expires_at=instant(one.last_expires_at),
                may_chain=one.role not in policy.roles or policy.roles[one.role].may_chain,
                policy_name=policy_name(principal_id),
                policy=deny_policy(principal_id, lifted_at),
            )
            for one in live.roles
        ],
    }


def _event(event_type: EventType, caller: ApiCaller, **detail: object) -> Event:
    return Event(
        event_type, caller.actor, Outcome.SUCCESS, detail=detail, request_id=caller.context.id
    )
