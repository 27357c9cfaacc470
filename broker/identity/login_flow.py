"""One login from the browser's point of view: out to the provider, and back.

Owns: the order of the checks at the callback, and which local path the browser
goes to afterwards. Does not own: cookies and pages (`web`), the provider's
protocol (`adapters/oidc`).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.audit.record import Event, EventType, Outcome
from broker.errors import NotFound
from broker.identity.login import (
    BootstrapAdmin,
    IdentityProvider,
    LoggedIn,
    LoginAttempt,
    LoginBinding,
    LoginRejected,
    LoginStore,
    login_failed_actor,
)
from broker.identity.sessions import Token, TokenKind

_MAX_NEXT = 4096
_MAX_PARAMETER = 8192
_PARAMETERS = frozenset({"code", "state", "iss", "error", "error_description"})
_LOCAL_PAGES = ("/oauth/authorize", "/device", "/mfa", "/console")
# Printable ASCII without the backslash, which browsers read as a slash, and without `#`.
_LOCAL_PATH = re.compile(r"/(?!/)[!$-\[\]-~]*", re.ASCII)
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def safe_next(path: str | None) -> str:
    """`path` where it is one of the broker's own pages, else `/`.

    An open redirect after login would send people, freshly trusting, to a page that asks for
    their second factor. So only a path (with its query) below a known page passes: no scheme,
    no host, no backslash, no control character, no dot segment, nothing but ASCII.
    """
    if path is None or len(path) > _MAX_NEXT or not _LOCAL_PATH.fullmatch(path):
        return "/"
    page, _, _ = path.partition("?")
    segments = page.lower().replace("%2e", ".").split("/")
    if "." in segments or ".." in segments or "%2f" in page.lower() or "%5c" in page.lower():
        return "/"
    if any(page == known or page.startswith(f"{known}/") for known in _LOCAL_PAGES):
        return path
    return "/"


@dataclass(frozen=True, slots=True, repr=False)
class Callback:
    """The query of a provider's redirect (RFC 6749 section 4.1.2, RFC 9207)."""

    code: str | None = None
    state: str | None = None
    iss: str | None = None
    error: str | None = None
    error_description: str | None = None

    @classmethod
    def parse(cls, query: Iterable[tuple[str, str]]) -> Callback:
        """Parameters that are not known are ignored (RFC 6749 section 4.1.2).

        Raises LoginRejected where a known one is repeated, empty or over-long.
        """
        known: dict[str, str] = {}
        for name, value in query:
            if name not in _PARAMETERS:
                continue
            if name in known:
                raise LoginRejected(f"the callback repeats {name}")
            if len(value) > _MAX_PARAMETER:
                raise LoginRejected(f"the callback's {name} is over-long")
            if value:
                known[name] = value
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Finished:
    """A completed login: the browser gets `cookie` and goes to `next_path`."""

    logged_in: LoggedIn
    next_path: str
    cookie: Token


class LoginFlow:
    """Sign-in through any of the configured providers."""

    def __init__(
        self,
        providers: Mapping[str, IdentityProvider],
        store: LoginStore,
        bootstrap: tuple[BootstrapAdmin, ...],
    ) -> None:
        self._providers = providers
        self._store = store
        self._bootstrap = bootstrap

    async def begin(
        self, provider_name: str, next_path: str | None, *, redirect_uri: str
    ) -> tuple[LoginBinding, str]:
        """The binding for the browser's cookie, and the URL to send it to.

        Raises NotFound for a provider that is not configured, LoginRejected while it can't be
        reached.
        """
        provider = self._providers.get(provider_name)
        if provider is None:
            raise NotFound
        binding = LoginBinding.new()
        url = await provider.authorization_url(
            state=binding.state,
            nonce=binding.nonce,
            code_challenge=binding.code_challenge,
            redirect_uri=redirect_uri,
        )
        # After the provider answered: an unreachable one must not fill the table of attempts.
        await self._store.open_login_attempt(binding.hash, provider.name, safe_next(next_path))
        return binding, url

    async def finish(
        self,
        cookie_value: str | None,
        query: Iterable[tuple[str, str]],
        *,
        redirect_uri: str,
        replaces: Token | None,
        ip: str | None,
        user_agent: str | None,
        request_id: str,
    ) -> Finished:
        """Turn the provider's redirect into a login session with the second factor pending.

        `cookie_value` is the cookie of `begin`; `query` the pairs of the URL as they came;
        `replaces` the browser's present login session, which ends (session fixation).
        Raises LoginRejected (login.failed is recorded), or Suspended from the store.
        """
        provider_name: str | None = None
        try:
            binding, callback = _same_browser(cookie_value, query)
            attempt = await self._take(binding)
            provider_name = attempt.provider
            identity = await self._provider(attempt).identify(
                code=_code(callback),
                code_verifier=binding.code_verifier,
                nonce=binding.nonce,
                redirect_uri=redirect_uri,
                iss=callback.iss,
            )
        except LoginRejected as rejected:
            await self._store.record_login_failure(
                Event(
                    EventType.LOGIN_FAILED,
                    login_failed_actor(ip, user_agent),
                    Outcome.FAILURE,
                    subject={} if provider_name is None else {"provider": provider_name},
                    detail={"reason": rejected.reason},
                    request_id=request_id,
                )
            )
            raise
        cookie = Token.new(TokenKind.BROWSER)
        logged_in = await self._store.log_in(
            identity,
            cookie=cookie,
            ip=ip,
            user_agent=user_agent,
            replaces=replaces,
            bootstrap=self._bootstrap,
            request_id=request_id,
        )
        return Finished(logged_in, safe_next(attempt.next_path), cookie)

    async def _take(self, binding: LoginBinding) -> LoginAttempt:
        attempt = await self._store.take_login_attempt(binding.hash)
        if attempt is None:
            raise LoginRejected("the login attempt is unknown, used or expired")
        return attempt

    def _provider(self, attempt: LoginAttempt) -> IdentityProvider:
        provider = self._providers.get(attempt.provider)
        if provider is None:
            raise LoginRejected("the provider of this attempt is no longer configured")
        return provider


def _same_browser(
    cookie_value: str | None, query: Iterable[tuple[str, str]]
) -> tuple[LoginBinding, Callback]:
    """The state must be the one derived from this browser's cookie, before anything else.

    Otherwise an attacker's callback URL logs a victim in as the attacker (login CSRF).
    """
    binding = LoginBinding.parse(cookie_value) if cookie_value else None
    if binding is None:
        raise LoginRejected("the browser has no login attempt")
    callback = Callback.parse(query)
    presented = (callback.state or "").encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(presented, binding.state.encode("ascii")):
        raise LoginRejected("the state is missing or belongs to another browser or attempt")
    return binding, callback


def _code(callback: Callback) -> str:
    if callback.error is not None:
        code = callback.error if _ERROR_CODE.fullmatch(callback.error) else "unreadable"
        raise LoginRejected(
            f"the provider answered with error {code}",
            log_detail=repr((callback.error_description or "")[:500]),
        )
    if callback.code is None:
        raise LoginRejected("the callback has neither code nor error")
    return callback.code
