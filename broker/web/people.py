"""Administration of people: enrolment codes and resets of second factors."""

from __future__ import annotations

import re
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.audit.record import Event, EventType, Outcome
from broker.errors import Forbidden, NotFound
from broker.identity.principal import PrincipalKind
from broker.identity.totp import Invitation
from broker.identity.typed_codes import new_enrolment_code
from broker.web.gate import ApiCaller, FreshAdmin
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["people"])

PRINCIPAL_ID = r"^p-[a-z2-7]{16}$"
# Codes in one answer, and so in one transaction.
MAX_CODES = 100
# PostgreSQL takes no NUL, and would fail instead of finding nothing.
_NO_NUL = r"^[^\x00]*$"
_EMAIL = re.compile(r"[^\s@\x00-\x1f]{1,128}@[^\s@\x00-\x1f]{1,126}")


class Invited(BaseModel):
    """Whom the code is for: a principal id, or the provider and verified e-mail of somebody who
    may never have logged in; or all known members of a group who have no second factor yet, up
    to `limit` of them from `after` (a principal id) on.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    principal: Annotated[str, Field(pattern=PRINCIPAL_ID)] | None = None
    provider: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    email: Annotated[str, Field(max_length=256)] | None = None
    group: Annotated[str, Field(min_length=1, max_length=512, pattern=_NO_NUL)] | None = None
    after: Annotated[str, Field(pattern=PRINCIPAL_ID)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_CODES)] = MAX_CODES

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        if self.group is not None:
            if self.principal or self.provider or self.email:
                raise ValueError("give group, or one person, not both")
            return self
        if "after" in self.model_fields_set or "limit" in self.model_fields_set:
            raise ValueError("after and limit are for a group")
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


class MembersCode(BaseModel):
    principal: str
    handle: str
    email: str | None
    code: str


class EnrolmentCodes(BaseModel):
    """One code for each member. `next` where more may follow. The codes stand in this answer
    alone.
    """

    codes: list[MembersCode]
    expires_at: str | None
    next: str | None


class Reset(BaseModel):
    reset: bool


@router.post("/enrolment-codes", status_code=201)
async def create_enrolment_code(
    caller: FreshAdmin, body: Invited
) -> EnrolmentCode | EnrolmentCodes:
    """Lets a person confirm a first factor. Never oneself: a stolen admin session must not be
    able to replace the admin's own factor.
    """
    if body.group is not None:
        return await _invite_group(caller, body.group, body.after, body.limit)
    return await _invite_one(caller, body)


async def _invite_group(
    caller: ApiCaller, group: str, after: str | None, limit: int
) -> EnrolmentCodes:
    """Members as of their last login. Who has a factor, is suspended or asks is left out."""
    members = await caller.parts.directory.known_principals(
        kind=PrincipalKind.PERSON,
        group=group,
        suspended=False,
        has_confirmed_factor=False,
        after=after,
        limit=limit,
    )
    codes, invitations = [], []
    for principal in (one.principal for one in members):
        if principal.id == caller.principal.id:
            continue
        code, code_hash = new_enrolment_code()
        subject: dict[str, object] = {"principal": principal.id}
        event = _event(EventType.ENROLMENT_CODE_CREATED, caller, subject, group=group)
        invitations.append(Invitation(principal.id, code_hash, event))
        codes.append(
            MembersCode(
                principal=principal.id, handle=principal.handle, email=principal.email, code=code
            )
        )
    expires_at = None
    if invitations:
        expires_at = await caller.parts.factors.create_enrolment_codes(
            invitations, created_by=caller.principal.id
        )
    return EnrolmentCodes(
        codes=codes,
        expires_at=instant(expires_at),
        next=members[-1].principal.id if len(members) == limit else None,
    )


async def _invite_one(caller: ApiCaller, body: Invited) -> EnrolmentCode:
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


def _event(
    event_type: EventType, caller: ApiCaller, subject: dict[str, object], **detail: object
) -> Event:
    return Event(
        event_type,
        caller.actor,
        Outcome.SUCCESS,
        subject=subject,
        detail=detail,
        request_id=caller.context.id,
    )
