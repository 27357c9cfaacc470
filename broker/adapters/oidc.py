"""Sign-in through one OpenID provider (OpenID Connect Core 1.0, RFC 7636, RFC 9207).

Owns: the order of the protocol's steps over HTTP. Does not own: what an ID
token must say (`identity.id_token`), the provider's documents and their caches
(`oidc_documents`), limits on requests (`outbound`), what becomes of the person
(`identity.login_flow`).

Nothing is fetched before the first login: a provider that is down must not keep
the broker from starting.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import quote_plus

import httpx
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.client import OAuth2Client

from broker.adapters.oidc_documents import Metadata, ProviderDocuments
from broker.adapters.outbound import FetchFailed, JsonAnswer, fetch_json
from broker.errors import StartupError
from broker.identity.id_token import (
    Expected,
    IdTokenClaims,
    TokenRejected,
    UnverifiedToken,
    check_claims,
)
from broker.identity.login import LoginRejected, ProviderIdentity
from broker.identity.profile import identity_of, needs_userinfo, read_groups
from broker.identity.verification_keys import KEY_TYPE_OF_ALGORITHM, NoSuitableKey

_GROUPS_SCOPE = "groups"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One `[[oidc]]` section. `client_secret` is None for a public client."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False, default=None)
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    handle_claim: str = "email"
    algorithms: frozenset[str] = frozenset({"RS256", "ES256", "PS256"})

    def __post_init__(self) -> None:
        """Raises StartupError for algorithms that must never be trusted here."""
        unknown = sorted(self.algorithms - KEY_TYPE_OF_ALGORITHM.keys())
        if unknown or not self.algorithms:
            known = ", ".join(sorted(KEY_TYPE_OF_ALGORITHM))
            found = ", ".join(unknown) or "none"
            raise StartupError(
                f"oidc {self.name}: algorithms must be among {known}; found {found}."
            )


@dataclass(frozen=True, slots=True, repr=False)
class _Tokens:
    """The parts of a token answer that are used."""

    id_token: object
    access_token: str | None


class OidcProvider:
    """Implements `login.IdentityProvider`. `client` is one of `outbound.new_client()`."""

    def __init__(
        self,
        config: ProviderConfig,
        client: httpx.AsyncClient,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._client = client
        self._now = now
        self._documents = ProviderDocuments(config.issuer, client, monotonic)

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def issuer(self) -> str:
        return self._config.issuer

    async def metadata(self) -> Metadata:
        """The provider's checked discovery document. Raises LoginRejected."""
        try:
            return await self._documents.discovery()
        except FetchFailed as failure:
            raise LoginRejected(f"the provider is not usable: {failure.reason}") from failure

    async def authorization_url(
        self, *, state: str, nonce: str, code_challenge: str, redirect_uri: str
    ) -> str:
        """Where to send the browser. Raises LoginRejected while the provider is unreachable."""
        metadata = await self.metadata()
        scopes = list(self._config.scopes)
        if _GROUPS_SCOPE in metadata.scopes_supported and _GROUPS_SCOPE not in scopes:
            scopes.append(_GROUPS_SCOPE)
        url, _ = self._oauth(metadata).create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            nonce=nonce,
            code_challenge=code_challenge,
            code_challenge_method="S256",
            redirect_uri=redirect_uri,
            scope=" ".join(scopes),
        )
        return str(url)

    async def identify(
        self, *, code: str, code_verifier: str, nonce: str, redirect_uri: str, iss: str | None
    ) -> ProviderIdentity:
        """Redeem the code and verify everything. Raises LoginRejected."""
        metadata = await self.metadata()
        self._check_iss(iss, metadata)
        tokens = await self._redeem(metadata, code, code_verifier, redirect_uri)
        claims = await self._verify(tokens, nonce)
        userinfo = await self._userinfo(metadata, claims, tokens.access_token)
        self._warn_of_unusable_groups(claims, userinfo)
        return identity_of(
            claims,
            userinfo,
            provider=self._config.name,
            issuer=self._config.issuer,
            groups_claim=self._config.groups_claim,
            handle_claim=self._config.handle_claim,
        )

    def _check_iss(self, iss: str | None, metadata: Metadata) -> None:
        """RFC 9207: a code of another provider must not reach this one's token endpoint."""
        if iss is None:
            if metadata.sends_iss:
                raise LoginRejected("the callback does not name the issuer, as it should")
        elif iss != self._config.issuer:
            raise LoginRejected("the callback is from another issuer")

    async def _redeem(
        self, metadata: Metadata, code: str, code_verifier: str, redirect_uri: str
    ) -> _Tokens:
        answer = await self._oauth(metadata).redeem(
            metadata.token_endpoint, code, code_verifier, redirect_uri
        )
        access_token = answer.get("access_token")
        if access_token is not None and not isinstance(access_token, str):
            raise LoginRejected("the token answer is malformed")
        if "id_token" not in answer:
            raise LoginRejected("the token answer has no ID token; is openid among the scopes?")
        return _Tokens(answer["id_token"], access_token)

    async def _verify(self, tokens: _Tokens, nonce: str) -> IdTokenClaims:
        try:
            token = UnverifiedToken.parse(tokens.id_token, self._config.algorithms)
            claims = await self._verified_claims(token)
            return check_claims(
                claims,
                Expected(
                    issuer=self._config.issuer,
                    client_id=self._config.client_id,
                    now=self._now(),
                    algorithm=token.algorithm,
                    nonce=nonce,
                    access_token=tokens.access_token,
                ),
            )
        except (TokenRejected, NoSuitableKey) as error:
            raise LoginRejected(f"the ID token is refused: {error.reason}") from error
        except FetchFailed as failure:
            raise LoginRejected(f"the provider is not usable: {failure.reason}") from failure

    async def _verified_claims(self, token: UnverifiedToken) -> Mapping[str, object]:
        key = await self._documents.key(token.key_id, token.algorithm)
        try:
            return token.verify(key)
        except TokenRejected:
            rotated = await self._documents.key_after_rotation(key, token.algorithm)
            if rotated is None:
                raise
            return token.verify(rotated)

    async def _userinfo(
        self, metadata: Metadata, claims: IdTokenClaims, access_token: str | None
    ) -> Mapping[str, object] | None:
        """The userinfo answer where the ID token lacks groups or e-mail, else None.

        Without the answer the person's rights can't be known: the login is refused and may be
        tried again, rather than going on without groups.
        """
        endpoint = metadata.userinfo_endpoint
        if endpoint is None or access_token is None:
            return None
        if not needs_userinfo(claims, self._config.groups_claim):
            return None
        if not (access_token.isascii() and access_token.isprintable()) or " " in access_token:
            raise LoginRejected("the access token is malformed")
        headers = {"Authorization": f"Bearer {access_token}"}
        answer = await self._ask("userinfo", "GET", endpoint, headers=headers)
        if answer.status != httpx.codes.OK:
            raise LoginRejected(f"userinfo: answered {answer.status}")
        if answer.body.get("sub") != claims.subject:
            # OpenID Connect Core, section 5.3.2: an access token of another person (token
            # substitution) must not lend their groups.
            raise LoginRejected("userinfo is about another subject than the ID token")
        return answer.body

    def _warn_of_unusable_groups(
        self, claims: IdTokenClaims, userinfo: Mapping[str, object] | None
    ) -> None:
        name = self._config.groups_claim
        source = claims.all if name in claims.all else userinfo or {}
        if name in source and read_groups(source[name]) is None:
            _log.warning(
                "provider %s: the claim %s is over-long or not a list of names: no groups",
                self._config.name,
                name,
            )

    def _oauth(self, metadata: Metadata) -> _CodeClient:
        return _CodeClient(self._config, _auth_method(self._config, metadata), self._ask)

    async def _ask(
        self,
        what: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: str | None = None,
    ) -> JsonAnswer:
        try:
            return await fetch_json(self._client, method, url, headers=headers, content=content)
        except FetchFailed as failure:
            raise LoginRejected(f"{what}: {failure.reason}") from failure


class _CodeClient(OAuth2Client):  # type: ignore[misc]  # Authlib ships no types
    """Authlib's OAuth 2.0 client, its requests sent within our limits and read strictly.

    Authlib's own httpx client reads answers of any size and kind.
    """

    def __init__(
        self,
        config: ProviderConfig,
        auth_method: str,
        ask: Callable[..., Awaitable[JsonAnswer]],
    ) -> None:
        super().__init__(
            session=None,
            client_id=config.client_id,
            client_secret=config.client_secret,
            token_endpoint_auth_method=auth_method,
        )
        self._ask = ask
        self.register_client_auth_method(("client_secret_basic", _encode_basic))

    async def redeem(
        self, url: str, code: str, code_verifier: str, redirect_uri: str
    ) -> Mapping[str, object]:
        """The members of a successful token answer. Raises LoginRejected."""
        answer: Mapping[str, object] = await self.fetch_token(
            url,
            grant_type="authorization_code",
            code=code,
            code_verifier=code_verifier,
            redirect_uri=redirect_uri,
        )
        return answer

    async def _fetch_token(
        self,
        url: str,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        auth: ClientAuth | None = None,
        method: str = "POST",
    ) -> Mapping[str, object]:
        if auth is None:
            raise TypeError("fetch_token always names how the client authenticates")
        url, headers, body = auth.prepare(method, url, dict(headers or {}), body)
        answer = await self._ask("token endpoint", method, url, headers=headers, content=body)
        if answer.status != httpx.codes.OK or "error" in answer.body:
            _refuse(answer)
        return answer.body


def _refuse(answer: JsonAnswer) -> NoReturn:
    """RFC 6749 section 5.2. Its words go to the log: they are the provider's, not ours."""
    raise LoginRejected(
        f"token endpoint: answered {answer.status} and gave no tokens",
        log_detail=repr(
            [str(answer.body.get(name, ""))[:300] for name in ("error", "error_description")]
        ),
    )


def _auth_method(config: ProviderConfig, metadata: Metadata) -> str:
    if config.client_secret is None:
        return "none"
    for method in ("client_secret_basic", "client_secret_post"):
        if method in metadata.token_endpoint_auth_methods:
            return method
    raise LoginRejected(
        "the provider takes neither client_secret_basic nor client_secret_post at its token"
        " endpoint"
    )


def _encode_basic(
    client: ClientAuth, _: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """RFC 6749 section 2.3.1: form-encoded first. Authlib's leaves that out, so that a secret
    with `%`, `+`, `:` or beyond Latin-1 fails.
    """
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"
    return uri, headers, body
