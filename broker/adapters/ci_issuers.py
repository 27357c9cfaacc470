"""The public keys of CI platforms, fetched and cached within limits.

Owns: each configured issuer's discovery document and key set. Does not own:
which issuers are configured (the access policy; nobody asks here for another),
and what a token must say (`identity.ci_token`).

Lifetimes: discovery fresh 1 h, stale at most 24 h; keys fresh 9 min, so that a
withdrawn key is dead within 10, and stale at most 1 h while the issuer is down;
for an unknown key id on demand at most once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from broker.adapters.oidc_documents import (
    DISCOVERY_FRESH,
    DISCOVERY_STALE,
    KEYS_STALE,
    Renewing,
    is_endpoint,
    is_loopback_http,
)
from broker.adapters.outbound import FetchFailed, fetch_json
from broker.identity.ci_token import KeysUnavailable
from broker.identity.verification_keys import NoSuitableKey, VerificationKey, VerificationKeys

KEYS_FRESH = 540.0


class CiIssuers:
    """Implements `identity.ci_token.IssuerKeys`. `client` is one of `outbound.new_client()`;
    `clock` is monotonic seconds.
    """

    def __init__(
        self, client: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._issuers: dict[str, _Issuer] = {}

    async def key(self, issuer: str, key_id: str | None, algorithm: str) -> VerificationKey:
        """See IssuerKeys."""
        keys = self._of(issuer).keys
        try:
            found = await keys.get()
            try:
                return found.select(key_id, algorithm)
            except NoSuitableKey:
                renewed = await keys.renewed()
                if renewed is None:
                    raise
                return renewed.select(key_id, algorithm)
        except FetchFailed as failure:
            raise KeysUnavailable(failure.reason) from failure

    async def key_after_rotation(
        self, issuer: str, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        """See IssuerKeys."""
        try:
            renewed = await self._of(issuer).keys.renewed()
        except FetchFailed as failure:
            raise KeysUnavailable(failure.reason) from failure
        if renewed is None:
            return None
        key = renewed.select(known.key_id, algorithm)
        return None if key.key == known.key else key

    def _of(self, issuer: str) -> _Issuer:
        if issuer not in self._issuers:
            self._issuers[issuer] = _Issuer(issuer, self._client, self._clock)
        return self._issuers[issuer]


class _Issuer:
    """One issuer's documents (OpenID Connect Discovery 1.0; of it, only what keys need)."""

    def __init__(self, issuer: str, client: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._client = client
        self._key_set_url = Renewing(
            self._fetch_key_set_url,
            fresh=DISCOVERY_FRESH,
            stale=DISCOVERY_STALE,
            clock=clock,
            name=f"discovery document of {issuer}",
        )
        self.keys = Renewing(
            self._fetch_keys,
            fresh=KEYS_FRESH,
            stale=KEYS_STALE,
            clock=clock,
            name=f"keys of {issuer}",
        )

    async def _fetch_key_set_url(self) -> str:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self._fetch(url, "discovery")
        if document.get("issuer") != self._issuer:
            # Exactly: else one tenant of a platform could stand in for another.
            raise FetchFailed("discovery: the document is another issuer's")
        address = document.get("jwks_uri")
        plain_http = is_loopback_http(self._issuer)
        if not isinstance(address, str) or not is_endpoint(address, plain_http):
            raise FetchFailed("discovery: its jwks_uri is missing or not an https URL")
        return address

    async def _fetch_keys(self) -> VerificationKeys:
        document = await self._fetch(await self._key_set_url.get(), "key set")
        try:
            keys = VerificationKeys.parse(document)
        except NoSuitableKey as error:
            raise FetchFailed(f"key set: {error.reason}") from None
        if not keys.keys:
            # An issuer in the middle of a deployment; the keys we have are worth more.
            raise FetchFailed("key set: it has no usable key")
        return keys

    async def _fetch(self, url: str, what: str) -> Mapping[str, object]:
        try:
            answer = await fetch_json(self._client, "GET", url)
        except FetchFailed as failure:
            raise FetchFailed(f"{what}: {failure.reason}") from failure
        if answer.status != httpx.codes.OK:
            raise FetchFailed(f"{what}: answered {answer.status}")
        return answer.body
