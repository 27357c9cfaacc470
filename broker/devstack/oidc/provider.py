"""The provider as an ASGI application: discovery, authorize, token, userinfo, keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from urllib.parse import unquote, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CODE_SECONDS = 60
TOKEN_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in. `groups` are the provider's own names, unqualified."""

    username: str
    password: str = field(repr=False)
    subject: str
    email: str
    name: str
    groups: tuple[str, ...] = ()
    claims: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """The one relying party. Its redirect URI must match to the letter."""

    id: str
    secret: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True, repr=False)
class _Code:
    person: Person
    nonce: str | None
    challenge: str
    auth_time: int
    expires_at: float


class _Refused(Exception):
    """An OAuth error (RFC 6749) that may be shown to the client."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


def create_provider(
    issuer: str,
    client: Client,
    people: Iterable[Person],
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """An application to be served at `issuer` (an origin without a path)."""
    provider = _Provider(issuer, client, {p.username: p for p in people}, clock)
    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", provider.discovery),
            Route("/jwks", provider.jwks),
            Route("/authorize", provider.authorize, methods=["GET", "POST"]),
            Route("/token", provider.token, methods=["POST"]),
            Route("/userinfo", provider.userinfo),
        ]
    )


class _Provider:
    def __init__(
        self,
        issuer: str,
        client: Client,
        people: dict[str, Person],
        clock: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._people = people
        self._clock = clock
        self._key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
        self._codes: dict[str, _Code] = {}
        self._access: dict[str, tuple[Person, float]] = {}

    async def discovery(self, request: Request) -> Response:
        url = self._issuer
        return JSONResponse(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "userinfo_endpoint": f"{url}/userinfo",
                "jwks_uri": f"{url}/jwks",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "profile", "email", "groups"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def jwks(self, request: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})

    async def authorize(self, request: Request) -> Response:
        asked = request.query_params
        if asked.get("client_id") != self._client.id:
            return HTMLResponse("unknown client_id", 400)
        if asked.get("redirect_uri") != self._client.redirect_uri:
            # RFC 6749 section 4.1.2.1: an unverified redirect URI is never followed.
            return HTMLResponse("redirect_uri is not registered", 400)
        answer = {"state": asked.get("state", ""), "iss": self._issuer}
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return self._redirect(answer | {"error": "invalid_request"})
        if request.method == "GET":
            return HTMLResponse(self._login_page())
        form = await request.form()
        person = self._people.get(str(form.get("username", "")))
        password = str(form.get("password", ""))
        if person is None or not hmac.compare_digest(
            person.password.encode(), password.encode("utf-8", "replace")
        ):
            return HTMLResponse(self._login_page("Wrong name or password."), 401)
        code = secrets.token_urlsafe(32)
        now = self._clock()
        self._codes[code] = _Code(
            person,
            asked.get("nonce"),
            asked.get("code_challenge", ""),
            int(now),
            now + CODE_SECONDS,
        )
        return self._redirect(answer | {"code": code})

    def _redirect(self, answer: dict[str, str]) -> Response:
        return RedirectResponse(f"{self._client.redirect_uri}?{urlencode(answer)}", 303)

    async def token(self, request: Request) -> Response:
        form = {key: str(value) for key, value in (await request.form()).items()}
        try:
            self._authenticate_client(request)
            grant = self._take_code(form)
        except _Refused as refused:
            return JSONResponse({"error": refused.error}, refused.status)
        access = secrets.token_urlsafe(32)
        self._access[access] = (grant.person, self._clock() + TOKEN_SECONDS)
        return JSONResponse(
            {
                "access_token": access,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "id_token": self._id_token(grant, access),
            },
            headers={"Cache-Control": "no-store"},
        )

    def _authenticate_client(self, request: Request) -> None:
        """HTTP Basic with form-encoded halves (RFC 6749 section 2.3.1)."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            name, _, secret = (
                base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
            )
        except ValueError:
            raise _Refused("invalid_client", 401) from None
        right = hmac.compare_digest(unquote(secret).encode(), self._client.secret.encode())
        if scheme.lower() != "basic" or unquote(name) != self._client.id or not right:
            raise _Refused("invalid_client", 401)

    def _take_code(self, form: dict[str, str]) -> _Code:
        if form.get("grant_type") != "authorization_code":
            raise _Refused("unsupported_grant_type")
        grant = self._codes.pop(form.get("code", ""), None)
        if grant is None or grant.expires_at < self._clock():
            raise _Refused("invalid_grant")
        digest = hashlib.sha256(form.get("code_verifier", "").encode("utf-8", "replace")).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenge != grant.challenge or form.get("redirect_uri") != self._client.redirect_uri:
            raise _Refused("invalid_grant")
        return grant

    def _id_token(self, grant: _Code, access: str) -> str:
        now = int(self._clock())
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._client.id,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "auth_time": grant.auth_time,
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            **self._claims(grant.person),
        }
        if grant.nonce is not None:
            claims["nonce"] = grant.nonce
        return jwt.encode({"alg": "RS256", "kid": self._key.kid}, claims, self._key)

    def _claims(self, person: Person) -> dict[str, object]:
        return {
            "sub": person.subject,
            "email": person.email,
            "email_verified": True,
            "name": person.name,
            "groups": list(person.groups),
            **dict(person.claims),
        }

    async def userinfo(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        person, expires_at = self._access.get(token, (None, 0.0))
        if person is None or expires_at < self._clock():
            return JSONResponse({"error": "invalid_token"}, 401)
        return JSONResponse(self._claims(person))

    def _login_page(self, problem: str = "") -> str:
        rows = "".join(
            f"<tr><td>{escape(p.name)}</td><td><code>{escape(p.username)}</code></td>"
            f"<td><code>{escape(p.password)}</code></td></tr>"
            for p in self._people.values()
        )
        return _PAGE.format(problem=escape(problem), rows=rows)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Local OpenID provider</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 4rem auto;
  padding: 0 1rem }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
input, button {{ padding: .6rem; margin: .2rem 0 1rem }}
td {{ padding-right: 1rem }} .problem {{ color: #b00020 }}
</style>
<h1>Local OpenID provider</h1>
<p>A stand-in for your company's sign-in, started by <code>broker dev</code>.</p>
<p class="problem" role="alert">{problem}</p>
<form method="post">
<label for="username">User name</label>
<input id="username" name="username" autocomplete="username" autofocus required>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button>
</form>
<table>{rows}</table>
</html>
"""
