"""What the broker asks over the network, from the settings: login providers, STS, and whether each
answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from pydantic import SecretStr

from broker.adapters.oidc import OidcProvider, ProviderConfig
from broker.adapters.outbound import new_client
from broker.adapters.reachability import Connect, Reachability
from broker.adapters.sts import StsClient, StsConfig
from broker.adapters.telemetry.instruments import Instruments
from broker.identity.login import IdentityProvider
from broker.settings import Aws, Settings


async def open_providers(settings: Settings, stack: AsyncExitStack) -> dict[str, IdentityProvider]:
    client = new_client()
    stack.push_async_callback(client.aclose)
    return {
        oidc.name: OidcProvider(
            ProviderConfig(
                name=oidc.name,
                issuer=oidc.issuer,
                client_id=oidc.client_id,
                client_secret=_revealed(oidc.client_secret),
                scopes=oidc.scopes,
                groups_claim=oidc.groups_claim,
                handle_claim=oidc.handle_claim,
                algorithms=frozenset(oidc.algorithms),
            ),
            client,
        )
        for oidc in settings.oidc
    }


def sts_config(aws: Aws) -> StsConfig:
    return StsConfig(
        partition=aws.partition,
        region=aws.region,
        sts_endpoint_url=aws.sts_endpoint_url,
        chained=aws.chained,
        profile=aws.profile,
    )


async def open_sts(settings: Settings, stack: AsyncExitStack, meters: Instruments) -> StsClient:
    client = StsClient(
        tuple(sts_config(aws) for aws in settings.aws),
        observe=meters.sts_attempt,
    )
    stack.push_async_callback(client.aclose)
    await client.start()
    return client


def open_reachability(outside: Mapping[str, Connect], stack: AsyncExitStack) -> Reachability:
    reachability = Reachability(outside)
    reachability.start()
    stack.push_async_callback(reachability.aclose)
    return reachability


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
