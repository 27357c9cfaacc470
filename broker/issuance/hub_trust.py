"""Who gets the broker's own role: the trust policy of the hub, for each kind of host.

Owns: the documents, and what AWS takes in them. Sources: EC2, ECS and EKS User
Guides, "task IAM role", "IAM roles for service accounts", "EKS Pod Identity".
Does not own: what the hub may do (`permissions`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.access.grammar import VERSION
from broker.errors import Conflict

# EC2's principal has the partition's own suffix; where that is not known, the role is made by hand.
_SUFFIXES = {
    "aws": "amazonaws.com",
    "aws-us-gov": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
}
_OIDC_PROVIDER = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/(?P<host>[A-Za-z0-9.:/_-]{1,255})", re.ASCII
)
_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_SERVICE_ACCOUNT = re.compile(rf"(?P<namespace>{_NAME})/(?P<name>{_NAME})", re.ASCII)
_AUDIENCE = re.compile(r"[A-Za-z0-9._:/-]{1,255}", re.ASCII)
ROLE_ARN = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/([!-#%-)+-.0->@-~]{1,128}/){0,8}[A-Za-z0-9_+=,.@-]{1,64}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HubTrust:
    """`instance_profile`: EC2 hands a role to a machine inside one. `notes` are for people."""

    document: Mapping[str, object]
    instance_profile: bool = False
    notes: tuple[str, ...] = ()


def ec2(partition: str) -> HubTrust:
    """Raises Conflict for a partition whose service principals are not known."""
    suffix = _suffix(partition)
    return HubTrust(
        _document({"Service": f"ec2.{suffix}"}, ["sts:AssumeRole"]),
        instance_profile=True,
        notes=("Whoever may run instances with this role's instance profile is the broker.",),
    )


def ecs(partition: str, account: str) -> HubTrust:
    """For tasks of this account's clusters. Raises Conflict as `ec2` does."""
    _suffix(partition)
    condition = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:{partition}:ecs:*:{account}:*"},
    }
    return HubTrust(
        _document({"Service": "ecs-tasks.amazonaws.com"}, ["sts:AssumeRole"], condition),
        notes=("It is the task role, not the task execution role.",),
    )


def irsa(provider: str, service_account: str, audience: str, *, account: str) -> HubTrust:
    """A pod with this service account of the cluster whose OIDC provider `provider` is.

    Raises Conflict.
    """
    found = _OIDC_PROVIDER.fullmatch(provider)
    if found is None:
        raise Conflict(
            f"{provider[:120]!r} is no ARN of an OIDC provider: write "
            "arn:aws:iam::111122223333:oidc-provider/oidc.eks.REGION.amazonaws.com/id/..."
        )
    if provider.split(":")[4] != account:
        raise Conflict(f"the OIDC provider is in account {provider.split(':')[4]}, not {account}")
    if not _AUDIENCE.fullmatch(audience):
        raise Conflict(f"{audience[:120]!r} is no audience: write sts.amazonaws.com")
    namespace, name = _split(service_account)
    host = found["host"]
    condition = {
        "StringEquals": {
            f"{host}:aud": audience,
            f"{host}:sub": f"system:serviceaccount:{namespace}:{name}",
        }
    }
    principal = {"Federated": provider}
    return HubTrust(_document(principal, ["sts:AssumeRoleWithWebIdentity"], condition))


def pod_identity(partition: str, service_account: str | None) -> HubTrust:
    """By an association of the cluster's. `service_account` narrows it by the session tags that
    EKS adds, which must then stay on. Raises Conflict.
    """
    _suffix(partition)
    condition: dict[str, object] = {}
    if service_account is None:
        note = (
            "Who may make Pod Identity associations, and pass this role (iam:PassRole), says which "
            "pods are the broker. Make the association with session tags disabled "
            "(disableSessionTags): they are transitive, and would be carried into every session "
            "that is issued."
        )
    else:
        namespace, name = _split(service_account)
        condition = {
            "StringEquals": {
                "aws:RequestTag/kubernetes-namespace": namespace,
                "aws:RequestTag/kubernetes-service-account": name,
            }
        }
        note = (
            "These conditions need the association's session tags, which are transitive: every "
            "session that is issued carries six tags of the cluster's. Without --service-account "
            "they can be disabled."
        )
    principal = {"Service": "pods.eks.amazonaws.com"}
    actions = ["sts:AssumeRole", "sts:TagSession"]
    return HubTrust(_document(principal, actions, condition), notes=(note,))


def other_role(arn: str, *, partition: str) -> HubTrust:
    """The host has that role, and assumes the hub with it. Raises Conflict."""
    if not ROLE_ARN.fullmatch(arn) or arn.split(":")[1] != partition:
        raise Conflict(f"{arn[:120]!r} is no ARN of a role in partition {partition}")
    note = (
        "Set a source identity or transitive tags nowhere on the way: AWS lets nobody change them."
    )
    return HubTrust(_document({"AWS": arn}, ["sts:AssumeRole"]), notes=(note,))


def _suffix(partition: str) -> str:
    suffix = _SUFFIXES.get(partition)
    if suffix is None:
        raise Conflict(
            f"the service principals of partition {partition} are not known here: make the "
            "broker's role by hand, and name it with --hub-arn"
        )
    return suffix


def _split(service_account: str) -> tuple[str, str]:
    found = _SERVICE_ACCOUNT.fullmatch(service_account)
    if found is None:
        raise Conflict(f"{service_account[:120]!r} is no service account: write NAMESPACE/NAME")
    return found["namespace"], found["name"]


def _document(
    principal: Mapping[str, str], actions: list[str], condition: Mapping[str, object] | None = None
) -> dict[str, object]:
    statement: dict[str, object] = {
        "Sid": "Host",
        "Effect": "Allow",
        "Principal": dict(principal),
        "Action": actions,
    }
    if condition:
        statement["Condition"] = dict(condition)
    return {"Version": VERSION, "Statement": [statement]}
