"""Who gets the broker's own role, host by host: the whole document that an operator pastes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from broker.errors import Conflict
from broker.issuance.hub_trust import HubTrust, ec2, ecs, irsa, other_role, pod_identity

ACCOUNT = "111122223333"
HOST = "oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}"


def document(principal: dict[str, str], actions: list[str], **more: object) -> dict[str, object]:
    statement = {"Sid": "Host", "Effect": "Allow", "Principal": principal, "Action": actions}
    return {"Version": "2012-10-17", "Statement": [{**statement, **more}]}


@pytest.mark.parametrize(
    ("partition", "service"),
    [
        ("aws", "ec2.amazonaws.com"),
        ("aws-us-gov", "ec2.amazonaws.com"),
        ("aws-cn", "ec2.amazonaws.com.cn"),
    ],
)
def test_a_machine_by_an_instance_profile(partition: str, service: str) -> None:
    assert ec2(partition) == HubTrust(
        document({"Service": service}, ["sts:AssumeRole"]),
        instance_profile=True,
        notes=("Whoever may run instances with this role's instance profile is the broker.",),
    )


def test_a_task_of_the_accounts_own_clusters() -> None:
    assert ecs("aws-cn", ACCOUNT) == HubTrust(
        document(
            {"Service": "ecs-tasks.amazonaws.com"},
            ["sts:AssumeRole"],
            Condition={
                "StringEquals": {"aws:SourceAccount": ACCOUNT},
                "ArnLike": {"aws:SourceArn": f"arn:aws-cn:ecs:*:{ACCOUNT}:*"},
            },
        ),
        instance_profile=False,
        notes=("It is the task role, not the task execution role.",),
    )


def test_a_pod_by_its_service_account() -> None:
    audience = "sts.amazonaws.com"
    assert irsa(PROVIDER, "ops/broker", audience, account=ACCOUNT) == HubTrust(
        document(
            {"Federated": PROVIDER},
            ["sts:AssumeRoleWithWebIdentity"],
            Condition={
                "StringEquals": {
                    f"{HOST}:aud": "sts.amazonaws.com",
                    f"{HOST}:sub": "system:serviceaccount:ops:broker",
                }
            },
        ),
        instance_profile=False,
        notes=(),
    )


LONG = "x" * 200


@pytest.mark.parametrize(
    ("provider", "shown"),
    [
        ("", ""),
        (HOST, HOST),
        (f"https://{HOST}", f"https://{HOST}"),
        (PROVIDER.replace("aws:iam", "gcp:iam"), PROVIDER.replace("aws:iam", "gcp:iam")),
        (PROVIDER.replace("oidc-", "saml-"), PROVIDER.replace("oidc-", "saml-")),
        (f'{PROVIDER}"', f'{PROVIDER}"'),
        (PROVIDER + "é", PROVIDER + "é"),
        (LONG, "x" * 120),
    ],
)
def test_what_is_no_oidc_provider(provider: str, shown: str) -> None:
    with pytest.raises(Conflict) as caught:
        irsa(provider, "ops/broker", "sts.amazonaws.com", account=ACCOUNT)
    assert caught.value.detail == (
        f"{shown!r} is no ARN of an OIDC provider: write "
        "arn:aws:iam::111122223333:oidc-provider/oidc.eks.REGION.amazonaws.com/id/..."
    )


def test_a_provider_of_another_account() -> None:
    with pytest.raises(Conflict) as caught:
        irsa(PROVIDER, "ops/broker", "sts.amazonaws.com", account="444455556666")
    assert caught.value.detail == "the OIDC provider is in account 111122223333, not 444455556666"


@pytest.mark.parametrize("audience", ["", "a b", "sts*", "x" * 256, "é"])
def test_what_is_no_audience(audience: str) -> None:
    with pytest.raises(Conflict) as caught:
        irsa(PROVIDER, "ops/broker", audience, account=ACCOUNT)
    assert caught.value.detail == f"{audience[:120]!r} is no audience: write sts.amazonaws.com"


NOT_SERVICE_ACCOUNTS = ["", "broker", "ops/", "/broker", "ops/broker/x", "Ops/broker", "ops/bro*"]


@pytest.mark.parametrize("service_account", [*NOT_SERVICE_ACCOUNTS, "-ops/broker", LONG])
def test_what_is_no_service_account(service_account: str) -> None:
    refusal = f"{service_account[:120]!r} is no service account: write NAMESPACE/NAME"
    with pytest.raises(Conflict) as caught:
        irsa(PROVIDER, service_account, "sts.amazonaws.com", account=ACCOUNT)
    assert caught.value.detail == refusal
    with pytest.raises(Conflict) as caught:
        pod_identity("aws", service_account)
    assert caught.value.detail == refusal


UNNARROWED = (
    "Who may make Pod Identity associations, and pass this role (iam:PassRole), says which pods "
    "are the broker. Make the association with session tags disabled (disableSessionTags): they "
    "are transitive, and would be carried into every session that is issued."
)
NARROWED = (
    "These conditions need the association's session tags, which are transitive: every session "
    "that is issued carries six tags of the cluster's. Without --service-account they can be "
    "disabled."
)


def test_a_pod_by_an_association() -> None:
    actions = ["sts:AssumeRole", "sts:TagSession"]
    service = {"Service": "pods.eks.amazonaws.com"}
    assert pod_identity("aws", None) == HubTrust(
        document(service, actions), instance_profile=False, notes=(UNNARROWED,)
    )
    condition = {
        "StringEquals": {
            "aws:RequestTag/kubernetes-namespace": "ops",
            "aws:RequestTag/kubernetes-service-account": "broker",
        }
    }
    assert pod_identity("aws-us-gov", "ops/broker") == HubTrust(
        document(service, actions, Condition=condition), instance_profile=False, notes=(NARROWED,)
    )


@pytest.mark.parametrize("path", ["", "ops/", "a/b/c/d/e/f/g/h/"])
def test_a_host_that_has_another_role(path: str) -> None:
    arn = f"arn:aws-cn:iam::{ACCOUNT}:role/{path}Host"
    assert other_role(arn, partition="aws-cn") == HubTrust(
        document({"AWS": arn}, ["sts:AssumeRole"]),
        instance_profile=False,
        notes=(
            (
                "Set a source identity or transitive tags nowhere on the way: "
                "AWS lets nobody change them."
            ),
        ),
    )


@pytest.mark.parametrize(
    "arn",
    [
        "",
        f"arn:aws-cn:iam::{ACCOUNT}:role/Host",  # of another partition
        f"arn:aws:iam::{ACCOUNT}:user/Host",
        f"arn:aws:iam::{ACCOUNT}:role/",
        f"arn:aws:iam::{ACCOUNT}:role/*",
        f"arn:aws:iam::{ACCOUNT}:role/a*/Host",
        f"arn:aws:iam::{ACCOUNT}:role/{'x' * 65}",
        f"arn:aws:iam::{ACCOUNT}:root",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/Host/i-1",
        "arn:aws:iam::1:role/Host",
        LONG,
    ],
)
def test_what_is_no_role(arn: str) -> None:
    with pytest.raises(Conflict) as caught:
        other_role(arn, partition="aws")
    assert caught.value.detail == f"{arn[:120]!r} is no ARN of a role in partition aws"


@pytest.mark.parametrize("partition", ["aws-iso", "aws-eusc"])
def test_partitions_whose_principals_are_not_known_are_left_to_the_operator(
    partition: str,
) -> None:
    refusal = (
        f"the service principals of partition {partition} are not known here: make the "
        "broker's role by hand, and name it with --hub-arn"
    )
    trusts: list[Callable[[], HubTrust]] = [
        partial(ec2, partition),
        partial(ecs, partition, ACCOUNT),
        partial(pod_identity, partition, None),
        partial(pod_identity, partition, "ops/broker"),
    ]
    for trust in trusts:
        with pytest.raises(Conflict) as caught:
            trust()
        assert caught.value.detail == refusal
