"""The client against the stand-in, which refuses what AWS refuses, signatures included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.adapters.sts import StsClient, StsConfig
from broker.devstack.aws import AwsStandIn
from broker.errors import AwsDenied, BrokerError, StartupError
from broker.issuance.sts import StsFailure
from tests.sts.misbehaving import a_call

ROLE = "arn:aws:iam::111122223333:role/team/DataReader"
EXTERNAL_ID = "canary-external-id"


def trust(principal: str, *actions: str) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal},
                "Action": list(actions),
                "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
            }
        ],
    }


ALL = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")


@pytest.fixture
def standin() -> Iterator[AwsStandIn]:
    with AwsStandIn.start() as one:
        one.put_role(ROLE, trust("arn:aws:iam::111122223333:root", *ALL))
        yield one


@pytest.fixture
async def client(standin) -> AsyncIterator[StsClient]:
    one = StsClient((StsConfig("aws", "us-east-1", standin.url),))
    yield one
    await one.aclose()


def be(monkeypatch, standin, kind) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in standin.hub_credentials(kind).environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("kind", "chained"), [("user", False), ("role", True)])
async def test_as_a_user_and_as_a_role(standin, client, monkeypatch, kind, chained):
    be(monkeypatch, standin, kind)
    await client.start()
    assert client.chained("aws") is chained
    minted = await client.assume_role(a_call(role_arn=ROLE, external_id=EXTERNAL_ID))
    assert minted.assumed_role_arn.startswith(
        "arn:aws:sts::111122223333:assumed-role/DataReader/grace-"
    )


async def test_as_root_the_start_is_refused(standin, client, monkeypatch):
    be(monkeypatch, standin, "root")
    with pytest.raises(StartupError, match="root user"):
        await client.start()


async def refused(client, **changes) -> BrokerError:
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call(**({"role_arn": ROLE} | changes)))
    assert not caught.value.alarm
    return caught.value.error


async def test_what_aws_refuses_is_told_with_its_cure(standin, client, monkeypatch):
    be(monkeypatch, standin, "role")
    await client.start()
    error = await refused(client, external_id="another")
    assert isinstance(error, AwsDenied)
    assert "ExternalId" in error.detail
    error = await refused(client, role_arn=ROLE + "Gone")
    assert isinstance(error, AwsDenied)
    assert "must exist" in error.detail
    error = await refused(client, duration_seconds=7200)
    assert isinstance(error, AwsDenied)
    assert "3600" in error.detail or "role_maximum" in error.detail
    error = await refused(client, policy="{}")
    assert isinstance(error, AwsDenied)
    assert "session policy" in error.detail


@pytest.mark.parametrize("missing", ["sts:TagSession", "sts:SetSourceIdentity"])
async def test_a_trust_policy_that_lacks_one_action_is_told(standin, client, monkeypatch, missing):
    be(monkeypatch, standin, "role")
    await client.start()
    rest = [action for action in ALL if action != missing]
    standin.put_role(ROLE, trust("arn:aws:iam::111122223333:root", *rest))
    error = await refused(client)
    assert isinstance(error, AwsDenied)
    assert missing in error.detail
    assert standin.hub_credentials("role").arn.split("/")[1] in error.detail
