"""Each OpenID provider: its discovery document, its keys, what it signs with, its clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from broker.adapters.oidc_documents import Metadata, ProviderDocuments
from broker.adapters.outbound import FetchFailed, new_client
from broker.identity.verification_keys import VerificationKeys
from broker.server_cli.checks.check import Check, clock, fail, ok, within
from broker.settings import Oidc

_SECONDS = 20.0
_REACH = (
    "open ISSUER/.well-known/openid-configuration from this host: check the network, the "
    "certificate, and that issuer is written exactly as the document writes it"
)


async def provider_checks(oidc: Oidc) -> list[Check]:
    return await within(_SECONDS, f"provider {oidc.name}", _checks(oidc), cure=_REACH)


async def _checks(oidc: Oidc) -> list[Check]:
    name = f"provider {oidc.name}"
    async with new_client() as client:
        documents = ProviderDocuments(oidc.issuer, client, time.monotonic)
        try:
            metadata = await documents.discovery()
        except FetchFailed as failure:
            return [fail(name, f"{oidc.issuer}: {failure.reason}", _REACH)]
        checks = [_discovery(name, oidc, metadata)]
        try:
            checks.append(_algorithms(f"{name} keys", oidc, metadata, await documents.keys()))
        except FetchFailed as failure:
            message = f"{metadata.jwks_uri}: {failure.reason}"
            checks.append(fail(f"{name} keys", message, "make its key set reachable from here"))
        return [*checks, *await _clock(f"{name} clock", oidc.issuer, client)]


def _discovery(name: str, oidc: Oidc, metadata: Metadata) -> Check:
    methods = metadata.token_endpoint_auth_methods
    if oidc.client_secret is not None and not methods & {
        "client_secret_basic",
        "client_secret_post",
    }:
        return fail(
            name,
            f"{oidc.issuer} takes no client secret at its token endpoint: {_listed(methods)}",
            "allow client_secret_basic for this client at the provider",
        )
    unknown = set(oidc.scopes) - metadata.scopes_supported
    if metadata.scopes_supported and unknown:
        return fail(
            name,
            f"{oidc.issuer} does not know the scopes {_listed(unknown)}",
            f"take them out of scopes of [[oidc]] {oidc.name}",
        )
    return ok(name, f"{oidc.issuer} (its client id and secret are tried at the first sign-in)")


def _algorithms(name: str, oidc: Oidc, metadata: Metadata, keys: VerificationKeys) -> Check:
    fitting = {
        algorithm for algorithm in oidc.algorithms if any(key.fits(algorithm) for key in keys.keys)
    }
    said = metadata.id_token_algorithms
    usable = fitting & said if said else fitting
    if usable:
        return ok(name, f"{len(keys.keys)} usable, for {_listed(usable)}")
    signs = said or {key.algorithm or key.key_type for key in keys.keys}
    return fail(
        name,
        f"it signs with {_listed(signs)}; [[oidc]] {oidc.name} takes {_listed(oidc.algorithms)}",
        f"set algorithms of [[oidc]] {oidc.name} to what the provider signs ID tokens with",
    )


async def _clock(name: str, issuer: str, client: httpx.AsyncClient) -> list[Check]:
    """By the Date of an answer. Providers that send none are not asked for more."""
    before = datetime.now(UTC)
    try:
        answer = await client.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        theirs = parsedate_to_datetime(answer.headers.get("date", ""))
    except (httpx.HTTPError, ValueError):
        return []
    if theirs.tzinfo is None:
        return []
    ours = before + (datetime.now(UTC) - before) / 2
    return [clock(name, issuer, theirs, ours)]


def _listed(names: object) -> str:
    return ", ".join(sorted(str(name) for name in names)) if names else "nothing"  # type: ignore[attr-defined]
