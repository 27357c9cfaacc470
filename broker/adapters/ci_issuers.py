"""The public keys of CI platforms, fetched and cached within limits.

Owns: which documents of a configured issuer are kept, and for how long. Does not
own: which issuers are configured (the access policy; nobody asks here for
another), fetching (`issuer_documents`), and what a token must say
(`identity.ci_token`).

Keys are fresh for 9 min, so that a withdrawn one is dead within 10; the other
lifetimes are those of `issuer_documents`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from broker.adapters.issuer_documents import IssuerDocuments, endpoint_of, require_issuer
from broker.adapters.outbound import FetchFailed
from broker.identity.ci_token import KeysUnavailable
from broker.identity.verification_keys import VerificationKey

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
        self._issuers: dict[str, IssuerDocuments[str]] = {}

    async def key(self, issuer: str, key_id: str | None, algorithm: str) -> VerificationKey:
        """See IssuerKeys."""
        try:
            return await self._of(issuer).key(key_id, algorithm)
        except FetchFailed as failure:
            raise KeysUnavailable(failure.reason) from failure

    async def key_after_rotation(
        self, issuer: str, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        """See IssuerKeys."""
        try:
            return await self._of(issuer).key_after_rotation(known, algorithm)
        except FetchFailed as failure:
            raise KeysUnavailable(failure.reason) from failure

    def _of(self, issuer: str) -> IssuerDocuments[str]:
        if issuer not in self._issuers:
            self._issuers[issuer] = IssuerDocuments(
                issuer,
                self._client,
                self._clock,
                read=_key_set_url,
                key_set_url=str,
                keys_fresh=KEYS_FRESH,
            )
        return self._issuers[issuer]


def _key_set_url(document: Mapping[str, object], issuer: str) -> str:
    """All that keys need of a discovery document."""
    require_issuer(document, issuer)
    return endpoint_of(document, "jwks_uri", issuer)
