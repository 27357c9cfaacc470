"""The browser's gates: which host, which session, which form.

Owns the dependencies that every page takes. A page that changes something takes
`Form` (or a stricter one): there is no other way to a form's fields, so there is
no way round the CSRF check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import Request

from broker.audit.record import Actor
from broker.errors import Unauthenticated
from broker.identity.authenticate import BROWSER, authenticate
from broker.identity.sessions import Authenticated, Token
from broker.web.context import RequestContext, request_context
from broker.web.csrf import check_csrf, csrf_token
from broker.web.forms import read_form
from broker.web.parts import Parts, parts_of

_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_MISDIRECTED = 421


async def expected_host(request: Request) -> None:
    """Pages exist under the public URL's host alone: DNS rebinding and cache games end here."""
    public = urlsplit(parts_of(request).public_url)
    default = _DEFAULT_PORTS[public.scheme]
    host = request.headers.get("host", "").lower()
    if host.removesuffix(default) != public.netloc.lower().removesuffix(default):
        raise HTTPException(_MISDIRECTED, "This broker is not served under that host name.")


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser with a live login session, whatever its second factor."""

    who: Authenticated
    cookie: Token
    context: RequestContext
    parts: Parts

    @property
    def csrf_token(self) -> str:
        return csrf_token(self.cookie)

    @property
    def actor(self) -> Actor:
        return actor_of(self.who, self.context)

    @property
    def handle(self) -> str:
        return self.who.context.principal.handle


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that this very session's own page sent."""

    visitor: Visitor
    fields: Mapping[str, str]

    def field(self, name: str) -> str:
        return self.fields.get(name, "")


def actor_of(who: Authenticated, context: RequestContext) -> Actor:
    principal = who.context.principal
    return Actor(
        principal.id, principal.kind.value, principal.handle, context.ip, context.user_agent
    )


async def visitor(request: Request) -> Visitor:
    """Raises Unauthenticated without a live session."""
    parts = parts_of(request)
    cookie = parts.cookies.session(request)
    if cookie is None:
        raise Unauthenticated
    who = await authenticate(parts.sessions, cookie.text, BROWSER)
    return Visitor(who, cookie, request_context(request), parts)


async def optional_visitor(request: Request) -> Visitor | None:
    try:
        return await visitor(request)
    except Unauthenticated:
        return None


async def verified_visitor(request: Request) -> Visitor:
    """Raises MfaRequired while the second factor is pending."""
    present = await visitor(request)
    present.who.context.require_second_factor()
    return present


async def submission(request: Request) -> Submission:
    """Raises Unauthenticated, InvalidRequest, or Forbidden by the CSRF check."""
    return await _submitted(request, await visitor(request))


async def verified_submission(request: Request) -> Submission:
    """As `submission`; raises MfaRequired while the second factor is pending."""
    return await _submitted(request, await verified_visitor(request))


async def _submitted(request: Request, sender: Visitor) -> Submission:
    fields = await read_form(request)
    check_csrf(request, sender.cookie, fields.get("csrf_token"), sender.parts.public_url)
    return Submission(sender, fields)


# Pending second factor allowed: /mfa, /mfa/enroll, /mfa/recover and /signout alone.
AnyVisitor = Annotated[Visitor, Depends(visitor)]
MaybeVisitor = Annotated[Visitor | None, Depends(optional_visitor)]
Form = Annotated[Submission, Depends(submission)]

VerifiedVisitor = Annotated[Visitor, Depends(verified_visitor)]
VerifiedForm = Annotated[Submission, Depends(verified_submission)]
