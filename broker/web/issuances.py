"""The list of what was minted. Never secrets: those were in one answer and are nowhere now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from broker.errors import NotFound
from broker.issuance.journal import Issuance
from broker.web.gate import ApiCaller, Caller
from broker.web.paging import DEFAULT_LIMIT, Limit
from broker.web.wire import instant

router = APIRouter(prefix="/v1/issuances", tags=["issuances"])

_ID = r"^iss-[a-z2-7]{1,40}$"


class IssuanceView(BaseModel):
    """`state`: requested, issued, failed, withheld or orphaned."""

    id: str
    principal_id: str
    role: str
    role_arn: str
    account_id: str
    state: str
    session_name: str
    source_identity: str
    requested_at: str | None
    duration_seconds: int
    access_key_id: str | None
    expires_at: str | None
    assumed_role_arn: str | None
    grant_id: str | None

    @classmethod
    def of(cls, issuance: Issuance) -> IssuanceView:
        return cls(
            id=issuance.id,
            principal_id=issuance.principal_id,
            role=issuance.role,
            role_arn=issuance.role_arn,
            account_id=issuance.account_id,
            state=issuance.state.value,
            session_name=issuance.session_name,
            source_identity=issuance.source_identity,
            requested_at=instant(issuance.requested_at),
            duration_seconds=issuance.duration_seconds,
            access_key_id=issuance.access_key_id,
            expires_at=instant(issuance.expires_at),
            assumed_role_arn=issuance.assumed_role_arn,
            grant_id=issuance.grant_id,
        )


class Issuances(BaseModel):
    """Newest first. `next` where more may follow."""

    issuances: list[IssuanceView]
    next: str | None


@router.get("")
async def issuances(
    caller: Caller,
    *,
    after: Annotated[str | None, Query(pattern=_ID)] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Issuances:
    """One's own; everybody's for auditors and admins."""
    found = await caller.parts.issuances.issuances(
        None if _sees_all(caller) else caller.principal.id, after=after, limit=limit
    )
    return Issuances(
        issuances=[IssuanceView.of(one) for one in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/{issuance_id}")
async def issuance(caller: Caller, issuance_id: Annotated[str, Path(pattern=_ID)]) -> IssuanceView:
    """Somebody else's is not found, as if it did not exist."""
    found = await caller.parts.issuances.issuance(issuance_id)
    if found is None or not (_sees_all(caller) or found.principal_id == caller.principal.id):
        raise NotFound
    return IssuanceView.of(found)


def _sees_all(caller: ApiCaller) -> bool:
    return caller.is_admin or caller.is_auditor
