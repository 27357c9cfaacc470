"""The broker's token and revocation endpoints (RFC 6749 section 5, RFC 7009).

Owns: what their requests may say, the tokens they make, and the events of each.
Does not own: HTTP, and the store's atomic verbs (`oauth.CodeStore`,
`sessions.SessionStore`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.oauth import (
    CLI_CLIENT_ID,
    AuthorizationRequest,
    CodeStore,
    OAuthError,
    Redeemed,
    challenge_of,
    single_valued,
)
from broker.identity.sessions import (
    ACCESS_TOKEN_LIFETIME,
    LoginSession,
    Refreshed,
    SessionStore,
    Token,
    TokenKind,
)

DEVICE_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_DEVICE_CODE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_REVOCABLE = frozenset({TokenKind.ACCESS, TokenKind.REFRESH, TokenKind.JOB})


@dataclass(frozen=True, slots=True)
class CodeExchange:
    """grant_type=authorization_code (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""

    redirect_uri: str
    code: str = field(repr=False)
    code_challenge: str = field(repr=False)  # S256 of the presented verifier


@dataclass(frozen=True, slots=True)
class Refresh:
    """grant_type=refresh_token (RFC 6749 section 6)."""

    refresh_token: Token


@dataclass(frozen=True, slots=True)
class DeviceExchange:
    """grant_type=urn:ietf:params:oauth:grant-type:device_code (RFC 8628 section 3.4)."""

    device_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A successful answer of the token endpoint."""

    access: Token
    refresh: Token
    session: LoginSession

    def response(self) -> dict[str, object]:
        """The JSON members of RFC 6749 section 5.1."""
        return {
            "access_token": self.access.text,
            "token_type": "Bearer",
            "expires_in": int(ACCESS_TOKEN_LIFETIME.total_seconds()),
            "refresh_token": self.refresh.text,
        }


def parse_token_request(
    pairs: Iterable[tuple[str, str]],
) -> CodeExchange | Refresh | DeviceExchange:
    """The request in the form's pairs. Raises OAuthError."""
    parameters = single_valued(pairs)
    grant_type = parameters.get("grant_type")
    if grant_type is None:
        raise OAuthError("invalid_request", "The grant_type is missing.")
    if grant_type not in {"authorization_code", "refresh_token", DEVICE_GRANT_TYPE}:
        raise OAuthError("unsupported_grant_type", "This grant_type is not offered.")
    if parameters.get("client_id") != CLI_CLIENT_ID:
        raise OAuthError("invalid_client", "The client_id is not known.")
    if grant_type == "refresh_token":
        token = Token.parse(parameters.get("refresh_token", ""))
        if token is None or token.kind is not TokenKind.REFRESH:
            raise OAuthError("invalid_grant", "The refresh token is not valid.")
        return Refresh(token)
    if grant_type == DEVICE_GRANT_TYPE:
        device_code = parameters.get("device_code", "")
        if not _DEVICE_CODE.fullmatch(device_code):
            raise OAuthError("invalid_grant", "The device_code is not valid, or was used.")
        return DeviceExchange(device_code)
    code, redirect_uri = parameters.get("code"), parameters.get("redirect_uri")
    verifier = parameters.get("code_verifier")
    if code is None or redirect_uri is None or verifier is None:
        raise OAuthError(
            "invalid_request", "code, redirect_uri and code_verifier are all required."
        )
    challenge = challenge_of(verifier)
    if challenge is None:
        raise OAuthError("invalid_request", "The code_verifier is not well-formed.")
    return CodeExchange(redirect_uri, code, challenge)


async def create_code(
    store: CodeStore, request: AuthorizationRequest, *, login_session_id: str
) -> str:
    """A single-use code for the person of that browser session, who has just clicked allow."""
    code = secrets.token_urlsafe(32)
    await store.create_code(_hash(code), request.grant(login_session_id))
    return code


async def exchange_code(
    store: CodeStore,
    request: CodeExchange,
    *,
    ip: str | None,
    user_agent: str | None,
    request_id: str,
) -> TokenPair:
    """Redeem a code. Raises OAuthError invalid_grant, the same for every cause."""
    access, refresh = Token.new(TokenKind.ACCESS), Token.new(TokenKind.REFRESH)
    redeemed, session = await store.redeem_code(
        _hash(request.code),
        client_id=CLI_CLIENT_ID,
        redirect_uri=request.redirect_uri,
        code_challenge=request.code_challenge,
        access=access,
        refresh=refresh,
        ip=ip,
        user_agent=user_agent,
        event=_event(EventType.LOGIN_SUCCEEDED, ip, user_agent, request_id, client="cli"),
        reuse_event=_event(
            EventType.SESSION_REVOKED, ip, user_agent, request_id, reason="code_reused"
        ),
    )
    if redeemed is not Redeemed.OK or session is None:
        raise OAuthError("invalid_grant", "The code is not valid, was used, or has expired.")
    return TokenPair(access, refresh, session)


async def refresh_tokens(
    store: SessionStore,
    request: Refresh,
    *,
    ip: str | None,
    user_agent: str | None,
    request_id: str,
) -> TokenPair:
    """Rotate a refresh token. Raises OAuthError invalid_grant, the same for every cause."""
    access, refresh = Token.new(TokenKind.ACCESS), Token.new(TokenKind.REFRESH)
    refreshed, session = await store.rotate_refresh_token(
        request.refresh_token,
        refresh,
        access,
        _event(EventType.SESSION_REFRESHED, ip, user_agent, request_id),
        _event(EventType.SESSION_REVOKED, ip, user_agent, request_id, reason="refresh_reused"),
    )
    if refreshed is not Refreshed.ROTATED or session is None:
        raise OAuthError("invalid_grant", "The refresh token is not valid; log in again.")
    return TokenPair(access, refresh, session)


async def revoke(
    store: SessionStore,
    pairs: Iterable[tuple[str, str]],
    *,
    ip: str | None,
    user_agent: str | None,
    request_id: str,
) -> None:
    """RFC 7009 section 2. A token that is unknown, or no token at all, is no error.

    Raises OAuthError for a request that is not well-formed.
    """
    parameters = single_valued(pairs)
    token = Token.parse(parameters.get("token", ""))
    # A job is no client: its last step ends it with the token alone.
    of_job = token is not None and token.kind is TokenKind.JOB
    if parameters.get("client_id", CLI_CLIENT_ID if of_job else None) != CLI_CLIENT_ID:
        raise OAuthError("invalid_client", "The client_id is not known.")
    if "token" not in parameters:
        raise OAuthError("invalid_request", "The token is missing.")
    if token is None or token.kind not in _REVOCABLE:
        return
    event = _event(EventType.SESSION_REVOKED, ip, user_agent, request_id, reason="signed_out")
    await store.revoke_token(token, event)


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()


def _event(
    event_type: EventType,
    ip: str | None,
    user_agent: str | None,
    request_id: str,
    **detail: object,
) -> Event:
    """An event whose actor the store fills in: the client is public, so its token says who."""
    actor = Actor("anonymous", "anonymous", ip=ip, user_agent=user_agent)
    return Event(event_type, actor, Outcome.SUCCESS, detail=detail, request_id=request_id)
