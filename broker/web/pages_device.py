"""`/device`: a person allows a login that a machine without a browser waits for.

The code may have come from somebody else, by message, call or link. So opening
the address changes nothing and only pre-fills the field, the page says where
and when the login was started, and allowing it takes a click and a one-time code
typed on that very page.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from broker.audit.record import Event, EventType, Outcome
from broker.errors import BrokerError, Forbidden, InvalidRequest, MfaLocked, NotFound
from broker.identity import device
from broker.identity.device import DeviceFlow, DeviceLogin
from broker.identity.second_factor import WrongCode
from broker.identity.sessions import DEVICE_CLIENT, Token, TokenKind
from broker.identity.throttle import (
    CODE_PER_ADDRESS,
    USER_CODE_GLOBAL,
    USER_CODE_PER_ACCOUNT,
    USER_CODE_PER_ADDRESS,
)
from broker.web.address import throttle_key
from broker.web.browser import VerifiedForm, VerifiedVisitor, Visitor, expected_host
from broker.web.csrf import csrf_token
from broker.web.forms import query_pairs, single_values
from broker.web.parts import parts_of
from broker.web.problems import STATUS, error_headers
from broker.web.render import page

RIGHTS = (
    "list the AWS roles you may have",
    "get temporary AWS credentials for them, each recorded under your name",
)
_UNKNOWN = "That code is not right, was used, or is over ten minutes old."
_SETTLED = "That login was decided or has ended meanwhile. Start it again on the machine."


async def offered(request: Request) -> None:
    """Raises NotFound where the settings switch the device flow off."""
    if parts_of(request).device_flow is DeviceFlow.OFF:
        raise NotFound("This broker does not let machines log in by a code.")


router = APIRouter(
    prefix="/device",
    dependencies=[Depends(expected_host), Depends(offered)],
    include_in_schema=False,
)


@router.get("")
async def ask_user_code(request: Request, visitor: VerifiedVisitor) -> Response:
    """Looks nothing up: of the code in the address only the field is filled."""
    given = single_values(query_pairs(request)).get("user_code", "")
    return _code_page(request, visitor, visitor.cookie, device.read_user_code(given) or "", None)


@router.post("")
async def decide(request: Request, form: VerifiedForm) -> Response:
    """Without a decision, the page that asks for one."""
    visitor = form.visitor
    await _admit(visitor)
    user_code = device.read_user_code(form.field("user_code"))
    found = await _find(visitor, user_code)
    if user_code is None or found is None:
        return await _unknown(request, visitor)
    match form.field("decision"):
        case "":
            await _require_network(visitor, found)
            return _decision_page(request, visitor, user_code, found, None)
        case "allow":
            await _require_network(visitor, found)
            return await _allow(request, visitor, user_code, found, form.field("code"))
        case "deny":
            return await _deny(request, visitor, user_code, found)
        case _:
            raise InvalidRequest("Say allow or deny.")


async def _admit(visitor: Visitor) -> None:
    throttle = visitor.parts.throttle
    await throttle.admit(USER_CODE_PER_ACCOUNT, visitor.who.context.principal.id)
    await throttle.admit(USER_CODE_PER_ADDRESS, throttle_key(visitor.context.ip))
    await throttle.admit(USER_CODE_GLOBAL, "all")


async def _find(visitor: Visitor, user_code: str | None) -> DeviceLogin | None:
    if user_code is None:
        return None
    return await visitor.parts.device_logins.find_device_login(device.hash_of_user_code(user_code))


async def _require_network(visitor: Visitor, found: DeviceLogin) -> None:
    """Raises Forbidden, and has it on record, where the settings ask for one network."""
    if visitor.parts.device_flow is not DeviceFlow.SAME_NETWORK:
        return
    if device.same_network(found.ip, visitor.context.ip):
        return
    await _record_refusal(visitor, "other_network", device_login=found.id, device_ip=found.ip)
    raise Forbidden(
        "This login was started from another network than yours, which this broker does not "
        "allow. If you did not start it yourself, tell your security team."
    )


async def _allow(
    request: Request, visitor: Visitor, user_code: str, found: DeviceLogin, code: str
) -> Response:
    """The one-time code first, which gives the browser a new cookie; then the approval."""
    parts = visitor.parts
    await parts.throttle.admit(CODE_PER_ADDRESS, throttle_key(visitor.context.ip))
    cookie = Token.new(TokenKind.BROWSER)
    try:
        await parts.second_factor.verify(
            visitor.who,
            code,
            actor=visitor.actor,
            request_id=visitor.context.id,
            replaces=visitor.cookie,
            cookie=cookie,
        )
    except (WrongCode, MfaLocked) as refusal:
        return _decision_page(request, visitor, user_code, found, refusal)
    if await _decided(visitor, user_code, approve=True):
        response = _done_page(request, found, allowed=True)
    else:
        response = _code_page(request, visitor, cookie, "", InvalidRequest(_SETTLED))
    parts.cookies.set_session(response, cookie)
    return response


async def _deny(request: Request, visitor: Visitor, user_code: str, found: DeviceLogin) -> Response:
    if await _decided(visitor, user_code, approve=False):
        return _done_page(request, found, allowed=False)
    return _code_page(request, visitor, visitor.cookie, "", InvalidRequest(_SETTLED))


async def _decided(visitor: Visitor, user_code: str, *, approve: bool) -> bool:
    return await device.decide(
        visitor.parts.device_logins,
        user_code,
        approve=approve,
        login_session_id=visitor.who.context.login_session_id,
        actor=visitor.actor,
        request_id=visitor.context.id,
    )


async def _unknown(request: Request, visitor: Visitor) -> Response:
    await _record_refusal(visitor, "unknown_user_code")
    return _code_page(request, visitor, visitor.cookie, "", InvalidRequest(_UNKNOWN))


async def _record_refusal(visitor: Visitor, reason: str, **detail: object) -> None:
    """Through the journal: somebody who guesses must not fill the log."""
    context = visitor.who.context
    await visitor.parts.journal.deny(
        Event(
            EventType.LOGIN_FAILED,
            visitor.actor,
            Outcome.DENIED,
            subject={
                "principal": context.principal.id,
                "login_session": context.login_session_id,
            },
            detail={"client": DEVICE_CLIENT, "reason": reason, **detail},
            request_id=visitor.context.id,
        )
    )


# --- pages ------------------------------------------------------------------


def _code_page(
    request: Request,
    visitor: Visitor,
    cookie: Token,
    user_code: str,
    refusal: BrokerError | None,
) -> Response:
    return page(
        request,
        "device.html",
        status=200 if refusal is None else STATUS[refusal.code],
        csrf_token=csrf_token(cookie),
        handle=visitor.handle,
        user_code=user_code,
        error=None if refusal is None else refusal.detail,
    )


def _decision_page(
    request: Request,
    visitor: Visitor,
    user_code: str,
    found: DeviceLogin,
    refusal: BrokerError | None,
) -> Response:
    context = visitor.who.context
    response = page(
        request,
        "device_decision.html",
        status=200 if refusal is None else STATUS[refusal.code],
        csrf_token=visitor.csrf_token,
        handle=visitor.handle,
        user_code=user_code,
        device=found,
        started=_ago(found.created_at, visitor.who.now),
        same_network=device.same_network(found.ip, visitor.context.ip),
        session_expires_at=context.login_session_expires_at,
        rights=RIGHTS,
        error=_sentence(refusal),
    )
    if refusal is not None:
        response.headers.update(error_headers(refusal, response.status_code))
    return response


def _done_page(request: Request, found: DeviceLogin, *, allowed: bool) -> Response:
    return page(request, "device_done.html", allowed=allowed, device=found)


def _sentence(refusal: BrokerError | None) -> str | None:
    if refusal is None:
        return None
    wait = refusal.extra.get("retry_after")
    return refusal.detail if wait is None else f"{refusal.detail} Wait {wait} s."


def _ago(moment: datetime, now: datetime) -> str:
    minutes = max(now - moment, timedelta()) // timedelta(minutes=1)
    if minutes == 0:
        return "just now"
    return "a minute ago" if minutes == 1 else f"{minutes} minutes ago"
