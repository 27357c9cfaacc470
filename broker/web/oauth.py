"""The broker's OAuth endpoints: metadata, consent, tokens, revocation.

`GET /oauth/authorize` only ever shows a page: another program on the same
computer may have opened the address, so a person must read who asks, on which
port, for what, and click.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from broker.errors import BrokerError, InvalidRequest
from broker.identity import device, oauth_token, token_exchange
from broker.identity.device import DeviceFlow
from broker.identity.oauth import AuthorizationRequest, OAuthError
from broker.identity.oauth_token import (
    CodeExchange,
    DeviceExchange,
    TokenPair,
    parse_token_request,
)
from broker.identity.throttle import DEVICE_GLOBAL, DEVICE_PER_ADDRESS, TOKEN_PER_ADDRESS
from broker.web.address import throttle_key
from broker.web.browser import VerifiedForm, VerifiedVisitor, Visitor, expected_host
from broker.web.ci import exchange_token
from broker.web.context import request_context
from broker.web.forms import form_pairs, query_pairs
from broker.web.parts import Parts, parts_of
from broker.web.problems import STATUS, error_headers, error_page
from broker.web.render import page

RIGHTS = (
    "list the AWS roles you may have",
    "get temporary AWS credentials for them, each recorded under your name",
    "do what your own rights in the broker allow, after a fresh code where one is asked for",
)
_CLIENT_TITLES = {"broker-cli": "broker command line"}
_AUTHORIZE_FIELDS = (
    "response_type",
    "client_id",
    "redirect_uri",
    "code_challenge",
    "code_challenge_method",
    "state",
)

pages = APIRouter(dependencies=[Depends(expected_host)], include_in_schema=False)
endpoints = APIRouter(tags=["oauth"])


@pages.get("/oauth/authorize")
async def ask_consent(request: Request, visitor: VerifiedVisitor) -> Response:
    try:
        asked = AuthorizationRequest.parse(query_pairs(request), issuer=visitor.parts.public_url)
    except OAuthError as error:
        return _refused(request, error)
    return _consent_page(request, visitor, asked)


@pages.post("/oauth/authorize")
async def decide_consent(request: Request, form: VerifiedForm) -> Response:
    """The click. The form repeats the request, which is checked again as if it were new."""
    visitor = form.visitor
    issuer = visitor.parts.public_url
    repeated = [(name, form.fields[name]) for name in _AUTHORIZE_FIELDS if name in form.fields]
    try:
        asked = AuthorizationRequest.parse(repeated, issuer=issuer)
    except OAuthError as error:
        return _refused(request, error)
    match form.field("decision"):
        case "allow":
            code = await oauth_token.create_code(
                visitor.parts.codes, asked, login_session_id=visitor.who.context.login_session_id
            )
            return RedirectResponse(asked.approved(code, issuer), 303)
        case "deny":
            return RedirectResponse(asked.denied(issuer), 303)
        case _:
            raise InvalidRequest("Say allow or deny.")


@endpoints.get("/.well-known/oauth-authorization-server")
async def metadata(request: Request) -> dict[str, object]:
    """RFC 8414."""
    parts = parts_of(request)
    base = parts.public_url
    grant_types = ["authorization_code", "refresh_token", token_exchange.GRANT_TYPE]
    document: dict[str, object] = {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        "revocation_endpoint": f"{base}/oauth/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grant_types,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
    }
    if parts.device_flow is not DeviceFlow.OFF:
        document["device_authorization_endpoint"] = f"{base}/oauth/device_authorization"
        grant_types.append(oauth_token.DEVICE_GRANT_TYPE)
    return document


@endpoints.post("/oauth/device_authorization")
async def start_device_login(request: Request) -> Response:
    """RFC 8628 section 3.1. `host_name` is what the machine calls itself, for the page."""
    parts, context = parts_of(request), request_context(request)
    try:
        _require_device_flow(parts)
        await parts.throttle.admit(DEVICE_PER_ADDRESS, throttle_key(context.ip))
        await parts.throttle.admit(DEVICE_GLOBAL, "all")
        asked = device.DeviceRequest.parse(await _pairs(request))
        started = await device.start(
            parts.device_logins, asked, ip=context.ip, user_agent=context.user_agent
        )
    except OAuthError as error:
        return _oauth_error(error)
    except BrokerError as error:
        return _unavailable(request, error)
    return _json(200, started.response(f"{parts.public_url}/device"))


@endpoints.post("/oauth/token")
async def token(request: Request) -> Response:
    """RFC 6749 section 3.2, for public clients: PKCE and rotation stand for a client secret."""
    parts, context = parts_of(request), request_context(request)
    try:
        pairs = await _pairs(request)
        if ("grant_type", token_exchange.GRANT_TYPE) in pairs:
            return _json(200, await exchange_token(request, pairs))
        await parts.throttle.admit(TOKEN_PER_ADDRESS, throttle_key(context.ip))
        asked = parse_token_request(pairs)
        if isinstance(asked, CodeExchange):
            pair = await oauth_token.exchange_code(
                parts.codes,
                asked,
                ip=context.ip,
                user_agent=context.user_agent,
                request_id=context.id,
            )
        elif isinstance(asked, DeviceExchange):
            _require_device_flow(parts)
            pair = await device.poll(
                parts.device_logins,
                asked,
                ip=context.ip,
                user_agent=context.user_agent,
                request_id=context.id,
            )
        else:
            pair = await oauth_token.refresh_tokens(
                parts.sessions,
                asked,
                ip=context.ip,
                user_agent=context.user_agent,
                request_id=context.id,
            )
    except OAuthError as error:
        return _oauth_error(error)
    except BrokerError as error:
        return _unavailable(request, error)
    return _tokens(pair)


@endpoints.post("/oauth/revoke")
async def revoke(request: Request) -> Response:
    """RFC 7009: 200 whether or not there was such a token."""
    parts, context = parts_of(request), request_context(request)
    try:
        await parts.throttle.admit(TOKEN_PER_ADDRESS, throttle_key(context.ip))
        await oauth_token.revoke(
            parts.sessions,
            await _pairs(request),
            ip=context.ip,
            user_agent=context.user_agent,
            request_id=context.id,
        )
    except OAuthError as error:
        return _oauth_error(error)
    except BrokerError as error:
        return _unavailable(request, error)
    return Response(b"{}", media_type="application/json")


def _require_device_flow(parts: Parts) -> None:
    """Raises OAuthError where the settings switch it off."""
    if parts.device_flow is DeviceFlow.OFF:
        raise OAuthError("unauthorized_client", "This broker does not offer the device flow.")


async def _pairs(request: Request) -> list[tuple[str, str]]:
    try:
        return await form_pairs(request)
    except InvalidRequest as error:
        raise OAuthError("invalid_request", error.detail) from None


def _consent_page(request: Request, visitor: Visitor, asked: AuthorizationRequest) -> Response:
    redirect = urlsplit(asked.redirect_uri)
    parameters = {
        "response_type": "code",
        "client_id": asked.client_id,
        "redirect_uri": asked.redirect_uri,
        "code_challenge": asked.code_challenge,
        "code_challenge_method": "S256",
    }
    if asked.state is not None:
        parameters["state"] = asked.state
    return page(
        request,
        "consent.html",
        form_target=_form_target(asked),
        csrf_token=visitor.csrf_token,
        handle=visitor.handle,
        client_id=asked.client_id,
        client_title=_CLIENT_TITLES[asked.client_id],
        redirect_host=redirect.hostname,
        redirect_port=asked.port,
        rights=RIGHTS,
        parameters=list(parameters.items()),
    )


def _form_target(asked: AuthorizationRequest) -> str:
    """The source that lets the loopback redirect through. CSP has no syntax for a v6 address
    (CSP level 3, host-source), so for [::1] only the scheme can be named.
    """
    if urlsplit(asked.redirect_uri).hostname == "127.0.0.1":
        return f"http://127.0.0.1:{asked.port}"
    return "http:"


def _refused(request: Request, error: OAuthError) -> Response:
    if error.redirect_to is not None:
        return RedirectResponse(error.redirect_to, 303)
    # Never to an address that could not be trusted.
    return error_page(request, InvalidRequest(error.description), 400)


def _tokens(pair: TokenPair) -> Response:
    return _json(200, pair.response())


def _oauth_error(error: OAuthError) -> Response:
    """RFC 6749 section 5.2. invalid_client is 400: no client authenticates with a header."""
    return _json(400, {"error": error.error, "error_description": error.description})


def _unavailable(request: Request, error: BrokerError) -> Response:
    parts_of(request).telemetry.denied(error.code)
    status = STATUS[error.code]
    name = "temporarily_unavailable" if status in (429, 503) else "invalid_request"
    # `code` is the broker's own: RFC 8693 has one error for every token it does not accept.
    body: dict[str, object] = {"error": name, "error_description": error.detail, "code": error.code}
    response = _json(400 if status == 401 else status, body)
    response.headers.update(error_headers(error, status))
    return response


def _json(status: int, body: dict[str, object]) -> Response:
    # RFC 6749 section 5.1 asks for both headers.
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store", "pragma": "no-cache"},
    )
