"""What an OpenID issuer publishes of itself, cached: its discovery document and its keys.

Owns: the caches, how the two documents are fetched, and which addresses may be
asked. A cache is fresh for a while, then renewed by one fetch that all callers
share; while that fails, the old document serves for a bounded time. Does not
own: what of a discovery document matters (`oidc_documents` for logins,
`ci_issuers` for jobs).

Lifetimes: discovery fresh 1 h, stale at most 24 h; keys fresh as the caller says, stale at
most 1 h (a withdrawn key must stop to count); on demand at most once a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from broker.adapters.outbound import FetchFailed, fetch_json
from broker.identity.verification_keys import NoSuitableKey, VerificationKey, VerificationKeys

DISCOVERY_FRESH = 3600.0
DISCOVERY_STALE = 86400.0
KEYS_STALE = 3600.0
# The least between two fetches that unknown key ids can cause, and between two tries while the
# issuer is down and an old document serves.
RENEW_NOT_BEFORE = 60.0

_MAX_URL = 2048
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Renewing(Generic[T]):
    """A cached document. Many callers, one fetch; `clock` is monotonic seconds."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        *,
        fresh: float,
        stale: float,
        clock: Callable[[], float],
        name: str,
    ) -> None:
        self._fetch = fetch
        self._fresh = fresh
        self._stale = stale
        self._clock = clock
        self._name = name
        self._value: T | None = None
        self._fetched_at = 0.0
        self._tried_at = 0.0
        self._demanded_at: float | None = None
        self._flight: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The document, fetched when there is none fresh. Raises FetchFailed."""
        value, age = self._value, self._clock() - self._fetched_at
        if value is None:
            return await self._renew()
        tried = self._clock() - self._tried_at
        if age < self._fresh or (age < self._stale and tried < RENEW_NOT_BEFORE):
            return value
        try:
            return await self._renew()
        except FetchFailed as failure:
            if age >= self._stale:
                raise
            _log.warning("%s: still using the old one: %s", self._name, failure.reason)
            return value

    async def renewed(self) -> T | None:
        """A newer document than the cached one, or None where one was asked for less than a
        minute ago: random key ids must not turn into requests. Raises FetchFailed.
        """
        if self._flight is None:
            now = self._clock()
            if self._demanded_at is not None and now - self._demanded_at < RENEW_NOT_BEFORE:
                return None
            self._demanded_at = now
        return await self._renew()

    async def _renew(self) -> T:
        if self._flight is None:
            self._tried_at = self._clock()
            self._flight = asyncio.create_task(self._fetch_once())
            self._flight.add_done_callback(self._landed)
        # Shielded: a browser that hangs up must not fail the others who wait for this fetch.
        return await asyncio.shield(self._flight)

    async def _fetch_once(self) -> T:
        value = await self._fetch()
        self._value, self._fetched_at = value, self._clock()
        return value

    def _landed(self, flight: asyncio.Task[T]) -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # seen, also where every caller has gone


class IssuerDocuments(Generic[T]):
    """One issuer's discovery document, as `read(document, issuer)` makes it, and its keys at
    `key_set_url`. `clock` is monotonic seconds, `keys_fresh` seconds.
    """

    def __init__(
        self,
        issuer: str,
        client: httpx.AsyncClient,
        clock: Callable[[], float],
        *,
        read: Callable[[Mapping[str, object], str], T],
        key_set_url: Callable[[T], str],
        keys_fresh: float,
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._read = read
        self._key_set_url = key_set_url
        self._discovery = Renewing(
            self._fetch_discovery,
            fresh=DISCOVERY_FRESH,
            stale=DISCOVERY_STALE,
            clock=clock,
            name=f"discovery document of {issuer}",
        )
        self._keys = Renewing(
            self._fetch_keys,
            fresh=keys_fresh,
            stale=KEYS_STALE,
            clock=clock,
            name=f"keys of {issuer}",
        )

    async def discovery(self) -> T:
        """Raises FetchFailed."""
        return await self._discovery.get()

    async def keys(self) -> VerificationKeys:
        """The usable ones, at least one. Raises FetchFailed."""
        return await self._keys.get()

    async def key(self, key_id: str | None, algorithm: str) -> VerificationKey:
        """The issuer's key for a token's header; fetched anew, within limits, if not known.

        Raises FetchFailed, NoSuitableKey.
        """
        keys = await self._keys.get()
        try:
            return keys.select(key_id, algorithm)
        except NoSuitableKey:
            renewed = await self._keys.renewed()
            if renewed is None:
                raise
            return renewed.select(key_id, algorithm)

    async def key_after_rotation(
        self, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        """Another key under the same id, where the issuer has changed it in place (or names
        its keys not at all). None where there is none. Raises FetchFailed, NoSuitableKey.
        """
        renewed = await self._keys.renewed()
        if renewed is None:
            return None
        key = renewed.select(known.key_id, algorithm)
        return None if key.key == known.key else key

    async def _fetch_discovery(self) -> T:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        return self._read(await self._fetch(url, "discovery"), self._issuer)

    async def _fetch_keys(self) -> VerificationKeys:
        url = self._key_set_url(await self.discovery())
        document = await self._fetch(url, "key set")
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


def endpoint_of(document: Mapping[str, object], name: str, issuer: str) -> str:
    """The document's address `name`. Raises FetchFailed where requests may not go there."""
    value = document.get(name)
    if not isinstance(value, str) or not is_endpoint(value, is_loopback_http(issuer)):
        raise FetchFailed(f"discovery: its {name} is missing or not an https URL")
    return value


def require_issuer(document: Mapping[str, object], issuer: str) -> None:
    """Raises FetchFailed unless the document is exactly this issuer's: else one tenant of a
    provider or platform could stand in for another (mix-up).
    """
    if document.get("issuer") != issuer:
        raise FetchFailed("discovery: the document is another issuer's than the configured one")


def is_endpoint(url: str, plain_http: bool) -> bool:
    """Whether requests may go there. `plain_http`: the issuer itself is on this machine, and so
    may this be.
    """
    if len(url) > _MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (plain_http and is_loopback_http(url))


def is_loopback_http(url: str) -> bool:
    """Whether this is plain http to this very machine."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return False
    try:
        return parts.hostname == "localhost" or ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
