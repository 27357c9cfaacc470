"""The second factor in the browser: show it, enrol it, replace it after a loss."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from broker.access.rights import is_admin, is_auditor
from broker.errors import BrokerError, MfaLocked
from broker.identity.login_flow import safe_next
from broker.identity.second_factor import WrongCode
from broker.identity.sessions import Token, TokenKind
from broker.identity.throttle import CODE_PER_ADDRESS
from broker.web.address import throttle_key
from broker.web.browser import AnyVisitor, Form, Visitor, expected_host
from broker.web.forms import query_pairs, single_values
from broker.web.problems import STATUS, error_headers
from broker.web.render import page, qr_code

router = APIRouter(dependencies=[Depends(expected_host)], include_in_schema=False)


@router.get("/mfa")
async def ask_code(request: Request, visitor: AnyVisitor) -> Response:
    next_path = _next(request)
    if not visitor.who.has_confirmed_factor:
        return RedirectResponse(f"/mfa/enroll?{urlencode({'next': next_path})}", 303)
    return _code_page(request, visitor, next_path, None)


@router.post("/mfa")
async def verify_code(request: Request, form: Form) -> Response:
    """A right code raises the login session, under a new cookie (session fixation)."""
    visitor = form.visitor
    next_path = safe_next(form.fields.get("next"))
    await _admit(visitor)
    cookie = Token.new(TokenKind.BROWSER)
    try:
        await visitor.parts.second_factor.verify(
            visitor.who,
            form.field("code"),
            actor=visitor.actor,
            request_id=visitor.context.id,
            replaces=visitor.cookie,
            cookie=cookie,
        )
    except (WrongCode, MfaLocked) as refusal:
        return _code_page(request, visitor, next_path, refusal)
    response = RedirectResponse(next_path, 303)
    visitor.parts.cookies.set_session(response, cookie)
    return response


@router.get("/mfa/enroll")
async def show_enrolment(request: Request, visitor: AnyVisitor) -> Response:
    """The secret to scan. It stays unconfirmed, and good for nothing, until a code proves it."""
    return await _enrolment_page(request, visitor, _next(request), None)


@router.post("/mfa/enroll")
async def confirm_enrolment(request: Request, form: Form) -> Response:
    """Answers with the recovery codes themselves: they exist in this one response alone."""
    visitor = form.visitor
    next_path = safe_next(form.fields.get("next"))
    await _admit(visitor)
    cookie = Token.new(TokenKind.BROWSER)
    try:
        codes = await visitor.parts.second_factor.confirm_enrolment(
            visitor.who,
            form.field("code"),
            form.fields.get("enrolment_code") or None,
            is_admin=await _privileged(visitor),
            actor=visitor.actor,
            request_id=visitor.context.id,
            replaces=visitor.cookie,
            cookie=cookie,
        )
    except (WrongCode, MfaLocked) as refusal:
        return await _enrolment_page(request, visitor, next_path, refusal)
    response = page(request, "recovery_codes.html", codes=codes, next_path=next_path)
    visitor.parts.cookies.set_session(response, cookie)
    return response


@router.get("/mfa/recover")
async def ask_recovery_code(request: Request, visitor: AnyVisitor) -> Response:
    if not visitor.who.has_confirmed_factor:
        return RedirectResponse("/mfa/enroll", 303)
    return _recovery_page(request, visitor, None)


@router.post("/mfa/recover")
async def spend_recovery_code(request: Request, form: Form) -> Response:
    """Opens re-enrolment and nothing else."""
    visitor = form.visitor
    await _admit(visitor)
    try:
        await visitor.parts.second_factor.spend_recovery_code(
            visitor.who,
            form.field("recovery_code"),
            actor=visitor.actor,
            request_id=visitor.context.id,
        )
    except (WrongCode, MfaLocked) as refusal:
        return _recovery_page(request, visitor, refusal)
    return RedirectResponse("/mfa/enroll", 303)


async def _admit(visitor: Visitor) -> None:
    await visitor.parts.throttle.admit(CODE_PER_ADDRESS, throttle_key(visitor.context.ip))


async def _privileged(visitor: Visitor) -> bool:
    """Admins and auditors never enrol on the word of the first factor alone."""
    policy = await visitor.parts.policies.at_least(visitor.who.access_version)
    principal = visitor.who.context.principal
    return is_admin(policy, principal, visitor.who.pinned_admin) or is_auditor(policy, principal)


def _next(request: Request) -> str:
    return safe_next(single_values(query_pairs(request)).get("next"))


def _code_page(
    request: Request, visitor: Visitor, next_path: str, refusal: BrokerError | None
) -> Response:
    return _with_refusal(
        refusal,
        page(
            request,
            "mfa.html",
            status=_status(refusal),
            csrf_token=visitor.csrf_token,
            handle=visitor.handle,
            verified=visitor.who.context.mfa_time is not None,
            next_path=next_path,
            error=_sentence(refusal),
        ),
    )


async def _enrolment_page(
    request: Request, visitor: Visitor, next_path: str, refusal: BrokerError | None
) -> Response:
    enrolling = await visitor.parts.second_factor.begin_enrolment(
        visitor.who, is_admin=await _privileged(visitor)
    )
    return _with_refusal(
        refusal,
        page(
            request,
            "enroll.html",
            status=_status(refusal),
            csrf_token=visitor.csrf_token,
            handle=visitor.handle,
            next_path=next_path,
            replaces=visitor.who.has_confirmed_factor,
            qr=qr_code(enrolling.otpauth_uri),
            otpauth_uri=enrolling.otpauth_uri,
            secret=enrolling.secret,
            needs_enrolment_code=enrolling.needs_code,
            error=_sentence(refusal),
        ),
    )


def _recovery_page(request: Request, visitor: Visitor, refusal: BrokerError | None) -> Response:
    return _with_refusal(
        refusal,
        page(
            request,
            "recover.html",
            status=_status(refusal),
            csrf_token=visitor.csrf_token,
            handle=visitor.handle,
            error=_sentence(refusal),
        ),
    )


def _status(refusal: BrokerError | None) -> int:
    return 200 if refusal is None else STATUS[refusal.code]


def _sentence(refusal: BrokerError | None) -> str | None:
    if refusal is None:
        return None
    wait = refusal.extra.get("retry_after")
    return refusal.detail if wait is None else f"{refusal.detail} Wait {wait} s."


def _with_refusal(refusal: BrokerError | None, response: Response) -> Response:
    if refusal is not None:
        response.headers.update(error_headers(refusal, response.status_code))
    return response
