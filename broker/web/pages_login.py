"""Signing in through an identity provider, signing out, and the home page."""

from __future__ import annotations

from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from broker.access.decide import offers
from broker.access.rights import is_admin, is_auditor
from broker.audit.record import Event, EventType, Outcome
from broker.errors import Unauthenticated
from broker.identity.login import LoginRejected
from broker.identity.login_flow import safe_next
from broker.identity.principal import FRESH
from broker.identity.throttle import LOGIN_GLOBAL, LOGIN_PER_ADDRESS
from broker.web.address import throttle_key
from broker.web.browser import (
    Form,
    MaybeVisitor,
    VerifiedVisitor,
    expected_host,
    optional_visitor,
)
from broker.web.context import request_context
from broker.web.forms import query_pairs, single_values
from broker.web.parts import Parts, parts_of
from broker.web.problems import error_page
from broker.web.render import page

log = structlog.get_logger("broker.web")

CALLBACK_PATH = "/login/callback"
_FORBIDDEN = 403

router = APIRouter(dependencies=[Depends(expected_host)], include_in_schema=False)


@router.get("/")
async def home(request: Request, visitor: VerifiedVisitor) -> Response:
    """Who one is, how surely, and what one may have."""
    who = visitor.who
    context, principal = who.context, who.context.principal
    policy = await visitor.parts.policies.at_least(who.access_version)
    rights = [
        name
        for name, held in (
            ("admin", is_admin(policy, principal, who.pinned_admin)),
            ("auditor", is_auditor(policy, principal)),
        )
        if held
    ]
    mfa_time = context.mfa_time
    return page(
        request,
        "home.html",
        csrf_token=visitor.csrf_token,
        principal=principal,
        provider_title=visitor.parts.providers.get(principal.provider, principal.provider),
        fresh=mfa_time is not None and who.now - mfa_time < FRESH,
        mfa_time=mfa_time,
        session_expires_at=context.login_session_expires_at,
        groups=sorted(principal.groups),
        rights=rights,
        roles=offers(policy, context, (), who.now),
    )


@router.get("/login")
async def login(request: Request) -> Response:
    """Straight on where there is one provider; a choice where there are several.

    A GET, as every relying party's: what it stores is an attempt that only this
    browser's new cookie can use.
    """
    parts = parts_of(request)
    query = single_values(query_pairs(request))
    next_path = safe_next(query.get("next"))
    name = query.get("provider")
    if name is None and await optional_visitor(request) is not None:
        return RedirectResponse(next_path, 303)
    if name is None and len(parts.providers) != 1:
        return _choice(request, parts, next_path)
    await _admit(request, parts)
    try:
        binding, url = await parts.login.begin(
            name if name is not None else next(iter(parts.providers)),
            next_path,
            redirect_uri=parts.public_url + CALLBACK_PATH,
        )
    except LoginRejected as rejected:
        return _rejected(request, rejected)
    response = RedirectResponse(url, 303)
    parts.cookies.set_login(response, binding.cookie_value)
    return response


@router.get(CALLBACK_PATH)
async def callback(request: Request) -> Response:
    """The provider sends the browser back here; bound to it by the cookie of `/login`."""
    parts = parts_of(request)
    context = request_context(request)
    await _admit(request, parts)
    try:
        finished = await parts.login.finish(
            parts.cookies.login(request),
            query_pairs(request),
            redirect_uri=parts.public_url + CALLBACK_PATH,
            replaces=parts.cookies.session(request),
            ip=context.ip,
            user_agent=context.user_agent,
            request_id=context.id,
        )
    except LoginRejected as rejected:
        response = _rejected(request, rejected)
        parts.cookies.drop_login(response)
        return response
    step = "/mfa" if finished.logged_in.has_confirmed_factor else "/mfa/enroll"
    response = RedirectResponse(f"{step}?{urlencode({'next': finished.next_path})}", 303)
    parts.cookies.drop_login(response)
    parts.cookies.set_session(response, finished.cookie)
    return response


@router.get("/signout")
async def ask_sign_out(request: Request, visitor: MaybeVisitor) -> Response:
    if visitor is None:
        return page(request, "signout.html", handle=None)
    return page(request, "signout.html", handle=visitor.handle, csrf_token=visitor.csrf_token)


@router.post("/signout")
async def sign_out(form: Form) -> Response:
    """Ends this browser's login session; back to the page that says so."""
    visitor = form.visitor
    session_id = visitor.who.context.login_session_id
    event = Event(
        EventType.SESSION_REVOKED,
        visitor.actor,
        Outcome.SUCCESS,
        subject={"principal": visitor.who.context.principal.id, "login_session": session_id},
        detail={"reason": "signed_out"},
        request_id=visitor.context.id,
    )
    await visitor.parts.sessions.end_login_session(session_id, event)
    response = RedirectResponse("/signout", 303)
    visitor.parts.cookies.drop_session(response)
    return response


def _choice(request: Request, parts: Parts, next_path: str) -> Response:
    # Links, not forms: form-action would have to name every provider's host, since browsers
    # hold the redirect after a form to it.
    return page(
        request,
        "signin.html",
        providers=[
            {"title": title, "href": f"/login?{urlencode({'provider': name, 'next': next_path})}"}
            for name, title in parts.providers.items()
        ],
    )


async def _admit(request: Request, parts: Parts) -> None:
    await parts.throttle.admit(LOGIN_PER_ADDRESS, throttle_key(request_context(request).ip))
    await parts.throttle.admit(LOGIN_GLOBAL, "all")


def _rejected(request: Request, rejected: LoginRejected) -> Response:
    """A constant sentence for the person; the reason goes to the log."""
    log.warning(
        "login rejected",
        request_id=request_context(request).id,
        reason=rejected.reason,
        detail=rejected.log_detail,
    )
    refusal = Unauthenticated("Signing in did not succeed. Start again; it may just have expired.")
    return error_page(request, refusal, _FORBIDDEN, way_on=("/", "Start again"))
