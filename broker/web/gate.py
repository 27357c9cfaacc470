"""The API's gates: what a route requires stands in its signature.

Deny by default: every caller has shown a second factor, except where a route
takes `AnyCaller`. The session cookie is never looked at here, so no page of
another site can make a browser drive the API.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from broker.access.policy import AccessPolicy
from broker.access.rights import is_admin, is_auditor
from broker.audit.record import Actor
from broker.errors import Forbidden
from broker.identity.authenticate import ACCESS_POLICY, API, authenticate, bearer
from broker.identity.principal import Principal
from broker.identity.sessions import Authenticated, TokenKind
from broker.issuance.exchange import still_admitted
from broker.web.browser import actor_of
from broker.web.context import RequestContext, request_context
from broker.web.parts import Parts, parts_of


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """Somebody with a live access token, and the access policy in force for this request."""

    who: Authenticated
    context: RequestContext
    parts: Parts
    policy: AccessPolicy

    @property
    def principal(self) -> Principal:
        return self.who.context.principal

    @property
    def actor(self) -> Actor:
        return actor_of(self.who, self.context)

    @property
    def is_admin(self) -> bool:
        """Never through a device login, whoever it is of."""
        return not self.who.is_device and is_admin(
            self.policy, self.principal, self.who.pinned_admin
        )

    @property
    def is_auditor(self) -> bool:
        return is_auditor(self.policy, self.principal)


async def any_caller(request: Request) -> ApiCaller:
    """Raises Unauthenticated or Suspended."""
    return await _holder(request, API)


async def policy_caller(request: Request) -> ApiCaller:
    """As `caller`, or a job that the access policy lets in."""
    present = await _holder(request, ACCESS_POLICY)
    present.who.context.require_second_factor()
    return present


async def _holder(request: Request, accept: frozenset[TokenKind]) -> ApiCaller:
    parts = parts_of(request)
    token = bearer(request.headers.get("authorization"))
    who = await authenticate(parts.sessions, token, accept)
    policy = await parts.policies.at_least(who.access_version)
    if who.job is not None:
        who = replace(who, context=still_admitted(who, policy))
    return ApiCaller(who, request_context(request), parts, policy)


async def caller(request: Request) -> ApiCaller:
    """Raises MfaRequired while the second factor is pending."""
    present = await any_caller(request)
    present.who.context.require_second_factor()
    return present


def refuse_device(present: ApiCaller) -> None:
    """Raises Forbidden for a login that a code approved from elsewhere: its person may have been
    talked into it, so it never administers, approves, grants or breaks glass.
    """
    if present.who.is_device:
        raise Forbidden(
            "This login was allowed by a code from another device, so it can't do this: "
            "log in with `broker login` where there is a browser."
        )


def require_admin(present: ApiCaller) -> ApiCaller:
    """Raises Forbidden."""
    refuse_device(present)
    if not present.is_admin:
        raise Forbidden("Only admins may do this.")
    return present


async def auditor(request: Request) -> ApiCaller:
    """Auditors, and admins, who administer what auditors check. Raises Forbidden."""
    return _require_auditor(await caller(request))


async def policy_auditor(request: Request) -> ApiCaller:
    return _require_auditor(await policy_caller(request))


def _require_auditor(present: ApiCaller) -> ApiCaller:
    if not (present.is_auditor or present.is_admin):
        raise Forbidden("Only auditors and admins may read this.")
    return present


async def admin(request: Request) -> ApiCaller:
    return require_admin(await caller(request))


async def policy_admin(request: Request) -> ApiCaller:
    return require_admin(await policy_caller(request))


async def fresh_caller(request: Request) -> ApiCaller:
    """Raises MfaRequired or MfaStale unless a factor was shown in the last five minutes, and
    Forbidden for a device login.
    """
    present = await any_caller(request)
    refuse_device(present)
    present.who.context.require_fresh_factor(present.who.now)
    return present


async def fresh_admin(request: Request) -> ApiCaller:
    """Who may change something: the right first, since a fresh code would not help others."""
    present = await admin(request)
    present.who.context.require_fresh_factor(present.who.now)
    return present


# The access policy alone: a policy repository's CI may be its admin.
PolicyCaller = Annotated[ApiCaller, Depends(policy_caller)]
PolicyAuditor = Annotated[ApiCaller, Depends(policy_auditor)]
PolicyAdmin = Annotated[ApiCaller, Depends(policy_admin)]

AnyCaller = Annotated[ApiCaller, Depends(any_caller)]
Caller = Annotated[ApiCaller, Depends(caller)]
FreshPrincipal = Annotated[ApiCaller, Depends(fresh_caller)]
Auditor = Annotated[ApiCaller, Depends(auditor)]
Admin = Annotated[ApiCaller, Depends(admin)]
FreshAdmin = Annotated[ApiCaller, Depends(fresh_admin)]
