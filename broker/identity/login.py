"""From a verified ID token to a login session.

Owns: the login attempt that binds a browser to its redirect, what an identity
provider has said of a person (`ProviderIdentity`), and the verbs that turn it
into a principal with a session. Does not own: the order of a login
(`login_flow`), how ID tokens are verified (`id_token`), HTTP to the provider
(`adapters/oidc`), cookies (`web`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from broker.audit.record import Actor, Event
from broker.identity.principal import Principal
from broker.identity.sessions import LoginSession, Token

LOGIN_ATTEMPT_LIFETIME = timedelta(minutes=10)

_BINDING = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ProviderIdentity:
    """What a provider vouched for at one login. `groups` are already qualified: `corp/sre`."""

    provider: str
    issuer: str
    subject: str
    handle: str
    email: str | None
    email_verified: bool
    groups: frozenset[str]
    claims: Mapping[str, str] = field(default_factory=dict)
    auth_time: datetime | None = None


class LoginRejected(Exception):
    """The provider's answer was not acceptable. `reason` is for the log and the record alone;
    the person sees a constant sentence and the request id. `log_detail` (what the provider
    wrote, say) goes to the log and not to the record: anybody can put anything in it.

    `reason` never holds a token, a code or a secret.
    """

    def __init__(self, reason: str, *, log_detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log_detail = log_detail


class IdentityProvider(Protocol):
    """One configured OpenID provider."""

    @property
    def name(self) -> str: ...

    @property
    def issuer(self) -> str: ...

    async def authorization_url(
        self, *, state: str, nonce: str, code_challenge: str, redirect_uri: str
    ) -> str:
        """Where to send the browser. Raises LoginRejected while the provider is unreachable."""
        ...

    async def identify(
        self,
        *,
        code: str,
        code_verifier: str,
        nonce: str,
        redirect_uri: str,
        iss: str | None,
    ) -> ProviderIdentity:
        """Redeem the code and verify everything (RFC 9207 `iss` included). Raises LoginRejected."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class LoginBinding:
    """The browser's half of a login attempt: 256 random bits in a cookie, from which state,
    nonce and PKCE verifier are derived by HMAC, so that the database and the URL hold none.
    """

    cookie_value: str

    @classmethod
    def new(cls) -> LoginBinding:
        return cls(secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, cookie_value: str) -> LoginBinding | None:
        """The binding in a cookie, or None where it does not have the exact shape."""
        return cls(cookie_value) if _BINDING.fullmatch(cookie_value) else None

    @property
    def hash(self) -> bytes:
        """32 bytes: what the database keeps of the attempt's key."""
        return hashlib.sha256(self.cookie_value.encode("ascii")).digest()

    @property
    def state(self) -> str:
        return self._derive(b"broker login state")

    @property
    def nonce(self) -> str:
        return self._derive(b"broker login nonce")

    @property
    def code_verifier(self) -> str:
        """43 characters, as RFC 7636 section 4.1 advises."""
        return self._derive(b"broker login code_verifier")

    @property
    def code_challenge(self) -> str:
        """S256 of the verifier (RFC 7636 section 4.2)."""
        digest = hashlib.sha256(self.code_verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def _derive(self, label: bytes) -> str:
        # Distinct labels: state and nonce travel in URLs, and must not tell the verifier.
        digest = hmac.digest(self.cookie_value.encode("ascii"), label, "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def __repr__(self) -> str:
        return "LoginBinding(…)"


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A login on its way to a provider. `binding_hash` is SHA-256 of the browser's cookie value."""

    binding_hash: bytes
    provider: str
    next_path: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class BootstrapAdmin:
    """From settings: by (issuer, subject), or by (provider, email) once while no admin exists."""

    issuer: str | None = None
    subject: str | None = None
    provider: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedIn:
    principal: Principal
    session: LoginSession
    has_confirmed_factor: bool
    bootstrapped: bool  # became the pinned admin by this login


class LoginStore(Protocol):
    async def open_login_attempt(self, binding_hash: bytes, provider: str, next_path: str) -> None:
        """Remember the attempt for LOGIN_ATTEMPT_LIFETIME."""
        ...

    async def take_login_attempt(self, binding_hash: bytes) -> LoginAttempt | None:
        """The attempt, once: it is deleted by being read. None where unknown or expired."""
        ...

    async def log_in(
        self,
        identity: ProviderIdentity,
        *,
        cookie: Token,
        ip: str | None,
        user_agent: str | None,
        replaces: Token | None,
        bootstrap: tuple[BootstrapAdmin, ...],
        request_id: str,
    ) -> LoggedIn:
        """One transaction: upsert the principal by (issuer, subject) with the groups of this
        login (never stale ones), bind pending `user:` entries of the access policy by provider
        and verified e-mail, pin a bootstrap admin where the rule of BootstrapAdmin holds, open
        a browser login session with the factor pending, end the session of the `replaces`
        cookie (fixation), append login.succeeded (and admin.bootstrapped).

        Raises Suspended (login.failed is appended) for a suspended principal.
        """
        ...

    async def record_login_failure(self, event: Event) -> None: ...


def login_failed_actor(ip: str | None, user_agent: str | None) -> Actor:
    """Nobody is known yet when a login fails."""
    return Actor("anonymous", "anonymous", ip=ip, user_agent=user_agent)
