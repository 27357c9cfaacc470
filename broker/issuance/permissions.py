"""What the policies of the broker's own role, and of the roles on the way, must allow; and no more.

Owns: the statements for each thing that the broker does at AWS, each on named
resources alone, and the Deny statements for what it must never do. Sources:
Service Authorization Reference, AWS STS, IAM and KMS, for which action takes
which resource and condition key. Does not own: what a role trusts
(`trust_policy`), or where the statements are put (`aws_setup`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from broker.access.grammar import VERSION
from broker.access.session_policy import compact
from broker.issuance.trust_policy import broker_calls

Statement = dict[str, object]

# IAM's quotas in characters, white space not counted (IAM User Guide, "IAM and AWS STS quotas").
MAX_MANAGED_CHARACTERS = 6144
MAX_INLINE_CHARACTERS = 10_240  # of all inline policies of one role
MAX_ATTACHED = 10

# Ways to credentials that do not die, and to rights beyond the ones here: denied, so that no
# policy that is attached to the role later gives them.
_NEVER = (
    "iam:AddUserToGroup",
    "iam:AttachGroupPolicy",
    "iam:AttachRolePolicy",
    "iam:AttachUserPolicy",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:CreateOpenIDConnectProvider",
    "iam:CreatePolicyVersion",
    "iam:CreateRole",
    "iam:CreateSAMLProvider",
    "iam:CreateServiceSpecificCredential",
    "iam:CreateUser",
    "iam:DeleteRolePermissionsBoundary",
    "iam:PassRole",
    "iam:PutGroupPolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutUserPolicy",
    "iam:SetDefaultPolicyVersion",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateLoginProfile",
    "iam:UploadSigningCertificate",
    "sts:AssumeRoot",
    "sts:GetFederationToken",
)


def assume_statements(role_arns: Sequence[str], *, after_hop: bool) -> list[Statement]:
    """The three actions that a call of the broker's needs, in the broker's form alone."""
    who, tags, assume = broker_calls(after_hop=after_hop)
    return [
        _allow("BrokerAssumeRole", ["sts:AssumeRole"], role_arns, assume),
        _allow("BrokerTagSession", ["sts:TagSession"], role_arns, tags),
        _allow("BrokerSetSourceIdentity", ["sts:SetSourceIdentity"], role_arns, who),
    ]


def reading_statements(role_arns: Sequence[str]) -> list[Statement]:
    """What doctor reads instead of trying."""
    return [_allow("BrokerReadRoles", ["iam:GetRole"], role_arns)]


def denying_statements(role_arns: Sequence[str]) -> list[Statement]:
    """To deny sessions that are out: an inline policy on the role, put, read and dropped.

    AWS has no condition on what such a policy says: who has this permission can also give those
    roles more.
    """
    actions = ["iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy"]
    return [_allow("BrokerDenySessions", actions, role_arns)]


def key_statements(sealing: str | None, signing: str | None) -> list[Statement]:
    """`sealing` and `signing` are ARNs of KMS keys, never of aliases: those can be moved.

    The conditions are what the broker's own calls say (`adapters/kms`): nothing else that these
    keys may be used for is the broker's to do.
    """
    found: list[Statement] = []
    if sealing is not None:
        actions = ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"]
        context = {"StringEquals": {"kms:EncryptionContext:broker:purpose": "sealing"}}
        found.append(_allow("BrokerSeal", actions, [sealing], context))
    if signing is not None:
        how = {"StringEquals": {"kms:SigningAlgorithm": "ED25519_SHA_512"}}
        found.append(_allow("BrokerSign", ["kms:Sign"], [signing], how))
        found.append(_allow("BrokerKnowKey", ["kms:GetPublicKey"], [signing]))
    return found


def never_statements(may_deny_sessions_on: Sequence[str]) -> list[Statement]:
    """For the broker's own role, where it is the broker's alone."""
    put = "iam:PutRolePolicy"
    if not may_deny_sessions_on:
        actions = sorted([*_NEVER, put])
        return [_deny("BrokerNever", actions, {"Resource": "*"})]
    return [
        _deny("BrokerNever", list(_NEVER), {"Resource": "*"}),
        _deny("BrokerNeverElsewhere", [put], {"NotResource": list(may_deny_sessions_on)}),
    ]


def document(statements: Sequence[Statement]) -> dict[str, object]:
    return {"Version": VERSION, "Statement": list(statements)}


def characters(policy: Mapping[str, object]) -> int:
    """What AWS counts, or a little more: white space within a text is counted here."""
    return len(compact(policy))


def documents_over(
    role_arns: Sequence[str], statements: Callable[[Sequence[str]], list[Statement]]
) -> list[dict[str, object]]:
    """As many documents as it takes to name every role, each short enough for a policy."""
    found: list[dict[str, object]] = []
    batch: list[str] = []
    for arn in role_arns:
        if batch and characters(document(statements([*batch, arn]))) > MAX_MANAGED_CHARACTERS:
            found.append(document(statements(batch)))
            batch = []
        batch.append(arn)
    if batch:
        found.append(document(statements(batch)))
    return found


def _allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Mapping[str, object] | None = None,
) -> Statement:
    statement: Statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
    }
    return statement if condition is None else {**statement, "Condition": dict(condition)}


def _deny(sid: str, actions: Sequence[str], resource: Mapping[str, object]) -> Statement:
    return {"Sid": sid, "Effect": "Deny", "Action": list(actions), **resource}
