"""The broker as an OAuth 2.0 server for its own clients (RFC 6749, 7636, 8252, 7009).

Owns: the known client, what an authorization request may say, PKCE, and the
verbs that create and redeem codes. Does not own: the token endpoint's requests
(`oauth_token`), HTTP and the consent page (`web`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol
from urllib.parse import urlencode

from broker.audit.record import Event
from broker.identity.sessions import LoginSession, Token

CLI_CLIENT_ID = "broker-cli"
_MAX_PARAMETER = 4096
_MAX_STATE = 512

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
# RFC 8252 section 7.3: any port of the loopback interface, by address and never by the name
# localhost, which may resolve elsewhere. A port 0 or above 65535 is refused below.
_REDIRECT = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/callback", re.ASCII)
# RFC 6749 appendix A.5: VSCHAR. Anything else could not be sent back verbatim.
_STATE = re.compile(r"[\x20-\x7e]*", re.ASCII)
CODE_LIFETIME = timedelta(seconds=60)


class OAuthError(Exception):
    """An error of RFC 6749, sections 4.1.2.1 and 5.2.

    `error` is the code on the wire and `description` a constant sentence. `redirect_to` is the
    full URL to send the browser to, or None where the client or its redirect_uri could not be
    trusted: then the error is shown to the person on a page, and nothing is redirected.
    """

    def __init__(self, error: str, description: str, *, redirect_to: str | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.redirect_to = redirect_to


def single_valued(
    pairs: Iterable[tuple[str, str]], *, longer: Mapping[str, int] = MappingProxyType({})
) -> Mapping[str, str]:
    """The parameters by name; an empty one counts as absent (RFC 6749 section 3.1).

    Raises OAuthError for a repeated or over-long one, whatever its name: two readers of one
    request must never see two values. `longer` are the bounds of those that may be longer.
    """
    parameters: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise OAuthError("invalid_request", "A parameter is given more than once.")
        seen.add(name)
        if len(name) > _MAX_PARAMETER or len(value) > longer.get(name, _MAX_PARAMETER):
            raise OAuthError("invalid_request", "A parameter is over-long.")
        if value:
            parameters[name] = value
    return parameters


def challenge_of(verifier: str) -> str | None:
    """The S256 challenge of a PKCE verifier (RFC 7636), or None for one of the wrong shape."""
    if not _VERIFIER.fullmatch(verifier):
        return None
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What `GET /oauth/authorize` asks, fully checked. `state` goes back verbatim."""

    client_id: str
    redirect_uri: str
    port: int  # of the redirect: the consent page names it
    code_challenge: str
    state: str | None

    @classmethod
    def parse(
        cls, pairs: Iterable[tuple[str, str]], *, issuer: str | None = None
    ) -> AuthorizationRequest:
        """The request in the query's pairs. Unknown parameters are ignored (RFC 6749, 3.1).

        `issuer` is the broker's own, for error redirects (RFC 9207). Raises OAuthError; with
        `redirect_to` once client and redirect_uri are known good.
        """
        parameters = single_valued(pairs)
        if parameters.get("client_id") != CLI_CLIENT_ID:
            raise OAuthError("invalid_request", "The client_id is not known.")
        redirect_uri = parameters.get("redirect_uri", "")
        port = _loopback_port(redirect_uri)
        if port is None:
            raise OAuthError(
                "invalid_request",
                "The redirect_uri must be http://127.0.0.1:PORT/callback or"
                " http://[::1]:PORT/callback.",
            )
        state = parameters.get("state")
        if state is not None and (len(state) > _MAX_STATE or not _STATE.fullmatch(state)):
            raise OAuthError("invalid_request", "The state is over-long or not ASCII.")

        def refuse(error: str, description: str) -> OAuthError:
            target = redirect_with(
                redirect_uri,
                error=error,
                error_description=description,
                state=state,
                iss=issuer,
            )
            return OAuthError(error, description, redirect_to=target)

        if parameters.get("response_type") != "code":
            raise refuse("unsupported_response_type", "The response_type must be code.")
        if parameters.get("code_challenge_method") != "S256":
            raise refuse("invalid_request", "PKCE with code_challenge_method S256 is required.")
        challenge = parameters.get("code_challenge", "")
        if not _CHALLENGE.fullmatch(challenge):
            raise refuse("invalid_request", "The code_challenge must be an S256 challenge.")
        if "scope" in parameters:
            raise refuse("invalid_scope", "This server has no scopes.")
        return cls(CLI_CLIENT_ID, redirect_uri, port, challenge, state)

    def grant(self, login_session_id: str) -> CodeGrant:
        """What a code for this request stands for, once the session's person has clicked."""
        return CodeGrant(self.client_id, self.redirect_uri, self.code_challenge, login_session_id)

    def approved(self, code: str, issuer: str) -> str:
        """Where the browser goes with the code; `issuer` is the broker's own (RFC 9207)."""
        return redirect_with(self.redirect_uri, code=code, state=self.state, iss=issuer)

    def denied(self, issuer: str) -> str:
        """Where the browser goes when the person said no."""
        return redirect_with(self.redirect_uri, error="access_denied", state=self.state, iss=issuer)


def redirect_with(redirect_uri: str, **parameters: str | None) -> str:
    """`redirect_uri` with a query of the parameters that are not None.

    `redirect_uri` is one that AuthorizationRequest accepted: it has no query and no fragment.
    """
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{redirect_uri}?{query}"


def _loopback_port(redirect_uri: str) -> int | None:
    match = _REDIRECT.fullmatch(redirect_uri)
    if match is None or int(match[1]) > 65535:
        return None
    return int(match[1])


@dataclass(frozen=True, slots=True)
class CodeGrant:
    """What an authorization code stands for; the code itself is stored as SHA-256."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    login_session_id: str  # the browser session whose person clicked


class Redeemed(StrEnum):
    OK = "ok"
    REFUSED = "refused"  # unknown, expired, or not this client's, redirect's or verifier's
    REUSED = "reused"  # the session made from it was ended (RFC 6749 section 4.1.2)


class CodeStore(Protocol):
    async def create_code(self, code_hash: bytes, grant: CodeGrant) -> None: ...

    async def redeem_code(
        self,
        code_hash: bytes,
        *,
        client_id: str,
        redirect_uri: str,
        code_challenge: str,
        access: Token,
        refresh: Token,
        ip: str | None,
        user_agent: str | None,
        event: Event,
        reuse_event: Event,
    ) -> tuple[Redeemed, LoginSession | None]:
        """One transaction, one winner: spend the code, open a `cli` login session that inherits
        the browser session's auth_time, mfa_time and expires_at, store both tokens, append.

        A wrong client, redirect or challenge spends the code too. A code whose browser session
        ended meanwhile is REFUSED.

        `event` is login.succeeded, `reuse_event` session.revoked. Who acts is known to the store
        alone: it puts the principal's id, kind and handle into their anonymous actor, and
        principal and login session into their subject.
        """
        ...
