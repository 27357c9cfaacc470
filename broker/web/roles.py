"""The roles that the caller can have."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from broker.access.decide import Offer, offers
from broker.web.current_grants import current_grants
from broker.web.gate import Caller
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["roles"])


class ParameterShape(BaseModel):
    """What a caller may set: one of `allowed`, or what fully matches `pattern`."""

    allowed: list[str] | None
    pattern: str | None
    default: str | None


class OfferedRole(BaseModel):
    """`max_duration` in seconds."""

    name: str
    description: str
    account_id: str
    account_name: str
    role_arn: str
    availability: str
    max_duration: int
    parameters: dict[str, ParameterShape]
    grant_expires_at: str | None

    @classmethod
    def of(cls, offer: Offer) -> OfferedRole:
        return cls(
            name=offer.name,
            description=offer.description,
            account_id=offer.account_id,
            account_name=offer.account_name,
            role_arn=offer.role_arn,
            availability=offer.availability,
            max_duration=offer.max_duration,
            parameters={
                name: ParameterShape(
                    allowed=None if shape.allowed is None else list(shape.allowed),
                    pattern=shape.pattern,
                    default=shape.default,
                )
                for name, shape in offer.parameters.items()
            },
            grant_expires_at=instant(offer.grant_expires_at),
        )


class Roles(BaseModel):
    roles: list[OfferedRole]


@router.get("/roles")
async def roles(caller: Caller) -> Roles:
    grants = await current_grants(caller.parts, caller.who)
    offered = offers(caller.policy, caller.who.context, grants, caller.who.now)
    return Roles(roles=[OfferedRole.of(offer) for offer in offered])
