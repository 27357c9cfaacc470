"""Administration of people: enrolment codes and resets of second factors."""

from __future__ import annotations

import re
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.audit.record import Event, EventType, Outcome
from broker.errors import Forbidden, NotFound
from broker.identity.typed_codes import new_enrolment_code
from broker.web.gate import ApiCaller, FreshAdmin
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["people"])

PRINCIPAL_ID = r"^p-[a-z2-7]{16}$"
_EMAIL = re.compile(r"[^\s@\x00-\x1f]{1,128}@[^\s@\x00-\x1f]{1,126}")


class Invited(BaseModel):
    """Whom the code is for: a principal id, or the provider and verified e-mail of somebody who
    may never have logged in.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    principal: Annotated[str, Field(pattern=PRINCIPAL_ID)] | None = None
    provider: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    email: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        by_email = self.provider is not None and self.email is not None
        if self.principal is not None and (self.provider or self.email):
            raise ValueError("give principal, or provider and email, not both")
        if self.principal is None and not by_email:
            raise ValueError("give principal, or provider and email")
        if self.email is not None and not _EMAIL.fullmatch(self.email):
            raise ValueError("email is not an address")
        return self


class EnrolmentCode(BaseModel):
    """The code stands in this answer alone; the store has its hash."""

    code: str
    expires_at: str | None


class Reset(BaseModel):
    reset: bool


@router.post("/enrolment-codes", status_code=201)
async def create_enrolment_code(caller: FreshAdmin, body: Invited) -> EnrolmentCode:
    """Lets one person confirm a first factor. Never oneself: a stolen admin session must not be
    able to replace the admin's own factor.
    """
    principal = caller.principal
    if body.principal == principal.id or (
        body.provider == principal.provider
        and principal.email is not None
        and (body.email or "").casefold() == principal.email.casefold()
    ):
        raise Forbidden("Nobody invites themselves; another admin does, or `broker recover`.")
    if body.provider is not None and body.provider not in caller.parts.providers:
        raise NotFound("No identity provider of that name is configured.")
    code, code_hash = new_enrolment_code()
    subject: dict[str, object] = (
        {"principal": body.principal}
        if body.principal is not None
        else {"provider": body.provider, "email": body.email}
    )
    expires_at = await caller.parts.factors.create_enrolment_code(
        code_hash,
        principal_id=body.principal,
        provider=body.provider,
        email=body.email,
        created_by=principal.id,
        event=_event(EventType.ENROLMENT_CODE_CREATED, caller, subject),
    )
    return EnrolmentCode(code=code, expires_at=instant(expires_at))


@router.post("/users/{principal_id}/mfa/reset")
async def reset_factors(
    caller: FreshAdmin, principal_id: Annotated[str, Path(pattern=PRINCIPAL_ID)]
) -> Reset:
    """Drops a person's factors and ends their sessions; enrolling again takes a new code."""
    if principal_id == caller.principal.id:
        raise Forbidden("Nobody resets their own second factor; another admin does.")
    done = await caller.parts.factors.reset_factors(
        principal_id, _event(EventType.MFA_RESET, caller, {"principal": principal_id})
    )
    if not done:
        raise NotFound
    return Reset(reset=True)


def _event(event_type: EventType, caller: ApiCaller, subject: dict[str, object]) -> Event:
    return Event(
        event_type, caller.actor, Outcome.SUCCESS, subject=subject, request_id=caller.context.id
    )
