"""The cookies of browser sessions.

With an https public URL the names carry `__Host-`: a browser then takes them
from this host alone, with Secure and Path=/, so a neighbouring subdomain or a
plain-http attacker can't plant one (RFC 6265bis section 4.1.3.2). Over loopback
http, which browsers give no such names, the same attributes hold without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from broker.identity.login import LOGIN_ATTEMPT_LIFETIME
from broker.identity.sessions import LOGIN_SESSION_LIFETIME, Token, TokenKind


@dataclass(frozen=True, slots=True)
class Cookies:
    """Names and attributes, fixed by whether the public URL is https."""

    secure: bool

    @property
    def session_name(self) -> str:
        return "__Host-broker_session" if self.secure else "broker_session"

    @property
    def login_name(self) -> str:
        return "__Host-broker_login" if self.secure else "broker_login"

    def session(self, request: Request) -> Token | None:
        """The browser session's token, or None where the cookie is not exactly one."""
        text = _only(request, self.session_name)
        token = Token.parse(text) if text else None
        return token if token and token.kind is TokenKind.BROWSER else None

    def set_session(self, response: Response, token: Token) -> None:
        self._set(
            response, self.session_name, token.text, int(LOGIN_SESSION_LIFETIME.total_seconds())
        )

    def drop_session(self, response: Response) -> None:
        self._set(response, self.session_name, "", 0)

    def login(self, request: Request) -> str | None:
        """The browser's half of its login attempt, unparsed."""
        return _only(request, self.login_name)

    def set_login(self, response: Response, value: str) -> None:
        self._set(response, self.login_name, value, int(LOGIN_ATTEMPT_LIFETIME.total_seconds()))

    def drop_login(self, response: Response) -> None:
        self._set(response, self.login_name, "", 0)

    def _set(self, response: Response, name: str, value: str, max_age: int) -> None:
        # Lax, not Strict: the redirect back from the identity provider is cross-site.
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )


def _only(request: Request, name: str) -> str | None:
    r"""The value of the one cookie of exactly this name (RFC 6265bis section 5.7.3).

    Not Starlette's reading, which strips every kind of space from names: a neighbouring
    subdomain may plant `\xa0__Host-broker_session`, which to a browser has no `__Host-` prefix.
    Of two values nobody can tell which one is ours.
    """
    found = [
        value.strip(" \t")
        for pair in request.headers.get("cookie", "").split(";")
        for key, equals, value in (pair.partition("="),)
        if equals and key.strip(" \t") == name
    ]
    return found[0] if len(found) == 1 else None
