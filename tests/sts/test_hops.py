"""A role behind hops, against the stand-in, which refuses what AWS refuses of chained sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.access.decide import Allowed, Ceiling
from broker.access.parse import parse_policy
from broker.adapters.sts import StsClient, StsConfig
from broker.devstack.aws import AwsStandIn
from broker.errors import AwsDenied
from broker.issuance.issue import _mint
from broker.issuance.request import CredentialRequest
from broker.issuance.scope import Scoped, scope
from broker.issuance.sts import Minted, StsFailure
from tests.sts.test_standin import be
from tests.unit.access.examples import NOW, context

ACCOUNT = "111122223333"
BASE = f"arn:aws:iam::{ACCOUNT}"
HUB, SECOND, TARGET = (f"{BASE}:role/{name}" for name in ("Hub", "net/Second", "Target"))
POLICY = """
version: 1
accounts: {prod: {id: "111122223333"}}
roles:
  target:
    account: prod
    role_arn: arn:aws:iam::111122223333:role/Target
    via: [VIA]
    external_id: canary-external-id
    role_maximum: 4h
    default_duration: 4h
    tags: {team: web, ticket: t-1}
    transitive_tags: [team]
    session_policy:
      Version: "2012-10-17"
      Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "*"}]
entitlements:
  - {role: target, to: {group: corp/analysts}, mode: standing}
"""


def trust(principal: str, external_id: str | None = None) -> dict[str, object]:
    statement: dict[str, object] = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
    }
    if external_id is not None:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return {"Version": "2012-10-17", "Statement": [statement]}


def may_go_on() -> dict[str, dict[str, object]]:
    statement = {"Effect": "Allow", "Action": "sts:*", "Resource": "*"}
    return {"access": {"Version": "2012-10-17", "Statement": [statement]}}


@pytest.fixture
def standin() -> Iterator[AwsStandIn]:
    with AwsStandIn.start() as one:
        one.put_role(HUB, trust(f"{BASE}:root"), 3600, may_go_on())
        one.put_role(SECOND, trust(HUB), 3600, may_go_on())
        one.put_role(TARGET, trust(SECOND, "canary-external-id"), 4 * 3600)
        yield one


@pytest.fixture
async def client(standin, monkeypatch) -> AsyncIterator[StsClient]:
    be(monkeypatch, standin, "user")
    one = StsClient((StsConfig("aws", "us-east-1", standin.url),))
    await one.start()
    yield one
    await one.aclose()


def scoped(*via: str) -> Scoped:
    policy = parse_policy(POLICY.replace("VIA", ", ".join(via)), providers=frozenset({"corp"}))
    return scope(
        Allowed(policy.roles["target"], policy.entitlements[0], Ceiling()),
        context(),
        CredentialRequest("target"),
        issuance_id="iss-abcdefghijklmnopqrstuvwxyz",
        organization=policy.organization,
        chained=False,
        now=NOW,
    )


async def test_the_target_is_reached_over_each_hop(standin, client):
    asked = scoped(HUB, SECOND)
    hops: list[Minted] = []
    minted = await _mint(client, asked, hops)
    assert [hop.assumed_role_arn.split("/")[1] for hop in hops] == ["Hub", "Second"]
    assert minted.assumed_role_arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/Target/")
    assert (asked.duration.granted, asked.duration.bound_by) == (3600, "role_chaining")
    # Three sets of keys, none used twice.
    keys = {one.credentials.access_key_id for one in (*hops, minted)}
    assert len(keys) == 3


async def test_a_hop_may_only_go_on(standin, client):
    """Its keys, were they ever stolen, reach the next role and nothing else."""
    asked = scoped(HUB, SECOND)
    hop = await client.assume_role(asked.hops[0])
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(asked.call, hop.credentials)
    assert isinstance(caught.value.error, AwsDenied)


async def test_a_hop_that_is_not_trusted_is_named(standin, client):
    standin.put_role(SECOND, trust(f"{BASE}:role/Another"), 3600, may_go_on())
    hops: list[Minted] = []
    with pytest.raises(StsFailure) as caught:
        await _mint(client, scoped(HUB, SECOND), hops)
    assert len(hops) == 1
    assert SECOND in caught.value.error.detail
    assert f"let {HUB} do sts:AssumeRole" in caught.value.error.detail


async def test_a_target_that_trusts_the_broker_alone_refuses_the_hop(standin, client):
    standin.put_role(TARGET, trust(f"{BASE}:user/other"), 4 * 3600)
    with pytest.raises(StsFailure):
        await _mint(client, scoped(HUB), [])
