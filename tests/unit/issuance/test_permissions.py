"""What the broker's role may do: each permission on named resources, and nothing beside them."""

from __future__ import annotations

import itertools
import json

import pytest

from broker.issuance.permissions import (
    MAX_ATTACHED,
    MAX_INLINE_CHARACTERS,
    MAX_MANAGED_CHARACTERS,
    assume_statements,
    characters,
    denying_statements,
    document,
    documents_over,
    key_statements,
    never_statements,
    reading_statements,
)

READER, WRITER = (f"arn:aws:iam::111122223333:role/{name}" for name in ("Reader", "Writer"))
SEALING, SIGNING = (f"arn:aws:kms:eu-west-1:111122223333:key/{name}" for name in ("1-2", "3-4"))


@pytest.mark.parametrize(
    ("after_hop", "identity", "issuance"),
    [
        (False, "sts:SourceIdentity", "aws:RequestTag/broker:issuance"),
        # After a hop they are the caller's own already.
        (True, "aws:SourceIdentity", "aws:PrincipalTag/broker:issuance"),
    ],
)
def test_assuming_roles_in_the_brokers_own_form_alone(
    after_hop: bool, identity: str, issuance: str
) -> None:
    both = [READER, WRITER]
    who, tag = {identity: ["p-*", "w-*"]}, {issuance: "iss-*"}
    assert assume_statements(both, after_hop=after_hop) == [
        {
            "Sid": "BrokerAssumeRole",
            "Effect": "Allow",
            "Action": ["sts:AssumeRole"],
            "Resource": both,
            "Condition": {"StringLike": {**who, "sts:RoleSessionName": "*-iss-*", **tag}},
        },
        {
            "Sid": "BrokerTagSession",
            "Effect": "Allow",
            "Action": ["sts:TagSession"],
            "Resource": both,
            "Condition": {"StringLike": tag},
        },
        {
            "Sid": "BrokerSetSourceIdentity",
            "Effect": "Allow",
            "Action": ["sts:SetSourceIdentity"],
            "Resource": both,
            "Condition": {"StringLike": who},
        },
    ]


def test_reading_roles_and_denying_their_sessions() -> None:
    assert reading_statements([READER]) == [
        {
            "Sid": "BrokerReadRoles",
            "Effect": "Allow",
            "Action": ["iam:GetRole"],
            "Resource": [READER],
        }
    ]
    assert denying_statements([WRITER]) == [
        {
            "Sid": "BrokerDenySessions",
            "Effect": "Allow",
            "Action": ["iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy"],
            "Resource": [WRITER],
        }
    ]


SEAL = {
    "Sid": "BrokerSeal",
    "Effect": "Allow",
    "Action": ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"],
    "Resource": [SEALING],
    "Condition": {"StringEquals": {"kms:EncryptionContext:broker:purpose": "sealing"}},
}
SIGN = {
    "Sid": "BrokerSign",
    "Effect": "Allow",
    "Action": ["kms:Sign"],
    "Resource": [SIGNING],
    "Condition": {"StringEquals": {"kms:SigningAlgorithm": "ED25519_SHA_512"}},
}
KNOW = {
    "Sid": "BrokerKnowKey",
    "Effect": "Allow",
    "Action": ["kms:GetPublicKey"],
    "Resource": [SIGNING],
}


@pytest.mark.parametrize(
    ("sealing", "signing", "expected"),
    [
        (None, None, []),
        (SEALING, None, [SEAL]),
        (None, SIGNING, [SIGN, KNOW]),
        (SEALING, SIGNING, [SEAL, SIGN, KNOW]),
    ],
)
def test_each_key_for_its_one_use(
    sealing: str | None, signing: str | None, expected: list[object]
) -> None:
    assert key_statements(sealing, signing) == expected


# Credentials that do not die, and rights beyond what is given.
NEVER = [
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
]


def test_what_the_broker_never_does_is_denied_whatever_is_attached_later() -> None:
    [never] = never_statements([])
    assert never == {
        "Sid": "BrokerNever",
        "Effect": "Deny",
        "Action": sorted([*NEVER, "iam:PutRolePolicy"]),
        "Resource": "*",
    }
    assert never_statements([READER, WRITER]) == [
        {"Sid": "BrokerNever", "Effect": "Deny", "Action": NEVER, "Resource": "*"},
        {
            "Sid": "BrokerNeverElsewhere",
            "Effect": "Deny",
            "Action": ["iam:PutRolePolicy"],
            "NotResource": [READER, WRITER],
        },
    ]


def test_a_document_and_its_size_as_aws_counts_it() -> None:
    statements = reading_statements([READER])
    made = document(statements)
    assert made == {"Version": "2012-10-17", "Statement": statements}
    assert characters(made) == len(json.dumps(made, separators=(",", ":")))
    # IAM User Guide, "IAM and AWS STS quotas".
    assert (MAX_MANAGED_CHARACTERS, MAX_INLINE_CHARACTERS, MAX_ATTACHED) == (6144, 10240, 10)


@pytest.mark.parametrize("count", [0, 1, 2, 120, 500])
def test_every_role_is_named_once_in_documents_that_fit_a_policy(count: int) -> None:
    arns = [f"arn:aws:iam::111122223333:role/Role{number:04}" for number in range(count)]
    made = documents_over(arns, reading_statements)
    named = [one["Statement"][0]["Resource"] for one in made]  # type: ignore[index]
    assert [arn for resources in named for arn in resources] == arns
    assert all(characters(one) <= MAX_MANAGED_CHARACTERS for one in made)
    # As few as that takes: the next role would not have fitted.
    for resources, following in itertools.pairwise(named):
        over = document(reading_statements([*resources, following[0]]))
        assert characters(over) > MAX_MANAGED_CHARACTERS


def test_a_document_may_be_as_long_as_aws_takes() -> None:
    def padded(size: int) -> list[str]:
        short = ["arn:aws:iam::111122223333:role/A", "arn:aws:iam::111122223333:role/"]
        missing = size - characters(document(reading_statements(short)))
        return [short[0], short[1] + "x" * missing]

    assert len(documents_over(padded(6144), reading_statements)) == 1
    assert len(documents_over(padded(6145), reading_statements)) == 2
