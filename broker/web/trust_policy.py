"""What to paste into AWS so that a role lets the broker in: `GET /v1/access/trust-policy/{role}`.

It holds the role's external id, so it is for admins alone.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from broker.errors import NotFound
from broker.issuance.rehearsal import rehearse
from broker.issuance.sts import StsFailure
from broker.issuance.trust_policy import trust_policies
from broker.web.gate import Admin

router = APIRouter(prefix="/v1/access", tags=["access"])

_ROLE = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class TrustPolicyView(BaseModel):
    """`policy` is the trust policy of `role_arn`, which lets in `principal` alone."""

    role_arn: str
    principal: str
    policy: dict[str, object]
    notes: list[str]


class TrustPolicies(TrustPolicyView):
    """`hops` are those of the roles on the way, in their order."""

    role: str
    hops: list[TrustPolicyView]


@router.get("/trust-policy/{role}")
async def trust_policy(caller: Admin, role: Annotated[str, Path(pattern=_ROLE)]) -> TrustPolicies:
    """Asks AWS who the broker is; what the access policy's other entries need of the same AWS
    roles is in it too. Raises NotFound, the refusal of STS, or Conflict where the broker's
    identity can assume no role.
    """
    found = caller.policy.roles.get(role)
    if found is None:
        raise NotFound("The access policy has no role of that name.")
    try:
        identity = await caller.parts.sts.identify(found.account.partition)
    except StsFailure as failure:
        raise failure.error from failure
    everyone = [
        written
        for other in caller.policy.roles.values()
        if other.account.partition == found.account.partition
        for written in trust_policies(rehearse(other), identity)
    ]
    *hops, last = (
        TrustPolicyView.model_validate(written.beside(everyone).as_json())
        for written in trust_policies(rehearse(found), identity)
    )
    return TrustPolicies(role=role, hops=hops, **last.model_dump())
