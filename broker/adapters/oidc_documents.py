"""What a login needs of an OpenID provider's discovery document.

Owns: its checks (OpenID Connect Discovery 1.0, section 3). Does not own: fetching
and caching (`issuer_documents`), the login protocol (`oidc`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import httpx

from broker.adapters.issuer_documents import IssuerDocuments, endpoint_of, require_issuer

KEYS_FRESH = 600.0


@dataclass(frozen=True, slots=True)
class Metadata:
    """The checked members of a discovery document (OpenID Connect Discovery 1.0, section 3)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    scopes_supported: frozenset[str]
    token_endpoint_auth_methods: frozenset[str]
    sends_iss: bool  # RFC 9207: the callback must name the issuer
    id_token_algorithms: frozenset[str]  # what it says it signs with; empty where it says nothing


class ProviderDocuments(IssuerDocuments[Metadata]):
    """One provider's discovery document and keys; these are fresh for 10 min."""

    def __init__(self, issuer: str, client: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        super().__init__(
            issuer,
            client,
            clock,
            read=parse_metadata,
            key_set_url=attrgetter("jwks_uri"),
            keys_fresh=KEYS_FRESH,
        )


def parse_metadata(document: Mapping[str, object], issuer: str) -> Metadata:
    """Raises FetchFailed for another issuer's document, or one without what a login needs."""
    require_issuer(document, issuer)
    endpoint = partial(endpoint_of, document, issuer=issuer)
    methods = _strings(document.get("token_endpoint_auth_methods_supported"))
    return Metadata(
        authorization_endpoint=endpoint("authorization_endpoint"),
        token_endpoint=endpoint("token_endpoint"),
        jwks_uri=endpoint("jwks_uri"),
        userinfo_endpoint=(
            endpoint("userinfo_endpoint") if "userinfo_endpoint" in document else None
        ),
        scopes_supported=_strings(document.get("scopes_supported")),
        # The default of the specification.
        token_endpoint_auth_methods=methods or frozenset({"client_secret_basic"}),
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        id_token_algorithms=_strings(document.get("id_token_signing_alg_values_supported")),
    )


def _strings(value: object) -> frozenset[str]:
    if not isinstance(value, list):
        return frozenset()
    return frozenset(item for item in value if isinstance(item, str))
