"""AssumeRole's constraints, with AWS's codes and texts, through stock boto3; and what it gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.devstack.aws import AwsStandIn, DemoAccount
from tests.devstack.asking import ACCOUNT, READ, TAG, refusal

Client = Callable[..., Any]


def test_what_is_given(call: Callable[..., Any], standin: AwsStandIn) -> None:
    before = datetime.now(UTC)
    answer = call(
        DurationSeconds=1800,
        SourceIdentity="p-ada",
        Policy=json.dumps(READ),
        Tags=[{"Key": "broker:issuance", "Value": "01J"}],
        TransitiveTagKeys=["broker:issuance"],
        MinimumSessionTokenSize=2000,
    )
    user, credentials = answer["AssumedRoleUser"], answer["Credentials"]
    assert user["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/DataReader/ada-0123"
    assert user["AssumedRoleId"].startswith("AROA")
    assert user["AssumedRoleId"].endswith(":ada-0123")
    assert credentials["AccessKeyId"].startswith("ASIA")
    assert len(credentials["SessionToken"]) == 2000 == answer["SessionTokenSize"]
    assert abs(credentials["Expiration"] - before - timedelta(seconds=1800)) < timedelta(seconds=5)
    assert answer["SourceIdentity"] == "p-ada"
    assert 0 < answer["PackedPolicySize"] < 100
    assert answer["ResponseMetadata"]["RequestId"]
    [seen] = standin.calls.of("AssumeRole")
    assert (seen.outcome, seen.issued_key_id) == ("ok", credentials["AccessKeyId"])
    assert seen.parameters["SourceIdentity"] == "p-ada"


def too_long(label: str, high: int) -> str:
    rule = f"Member must have length less than or equal to {high}"
    return f"at '{label}' failed to satisfy constraint: {rule}"


def pattern(label: str) -> str:
    rule = "Member must satisfy regular expression pattern: "
    return f"at '{label}' failed to satisfy constraint: {rule}"


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (
            {"DurationSeconds": 43201},
            "ValidationError",
            "must have value less than or equal to 43200",
        ),
        (
            {"DurationSeconds": 3601},
            "ValidationError",
            "exceeds the 1 hour session limit for roles assumed by role chaining.",
        ),
        ({"RoleSessionName": "a" * 65}, "ValidationError", too_long("roleSessionName", 64)),
        ({"RoleSessionName": "a b"}, "ValidationError", pattern("roleSessionName")),
        ({"RoleSessionName": "zoë"}, "ValidationError", pattern("roleSessionName")),
        ({"RoleSessionName": "a/b"}, "ValidationError", pattern("roleSessionName")),
        ({"SourceIdentity": "a:b"}, "ValidationError", pattern("sourceIdentity")),
        ({"SourceIdentity": "b" * 65}, "ValidationError", too_long("sourceIdentity", 64)),
        ({"ExternalId": "a b"}, "ValidationError", pattern("externalId")),
        ({"ExternalId": "a" * 1225}, "ValidationError", too_long("externalId", 1224)),
        ({"RoleArn": "arn:aws:iam::1111:role/DataReader"}, "ValidationError", "is invalid"),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:user/DataReader"}, "ValidationError", "is invalid"),
        ({"Policy": "x" * 2049}, "ValidationError", too_long("policy", 2048)),
        ({"Policy": json.dumps(READ) + "\u0100"}, "ValidationError", pattern("policy")),
        ({"Policy": json.dumps(READ) + "\x0b"}, "ValidationError", pattern("policy")),
        ({"Policy": "{"}, "MalformedPolicyDocument", "Syntax errors in policy."),
        (
            {"Policy": json.dumps({**READ, "Statement": [{"Effect": "Allow", "Action": "*"}]})},
            "MalformedPolicyDocument",
            "Policy statement must contain resources.",
        ),
        (
            {
                "Policy": json.dumps(
                    {
                        "Statement": [
                            {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}
                        ]
                    }
                )
            },
            "MalformedPolicyDocument",
            "Policy document should not specify a principal.",
        ),
        (
            {"PolicyArns": [{"arn": f"arn:aws:iam::aws:policy/p{n}"} for n in range(11)]},
            "ValidationError",
            too_long("policyArns", 10),
        ),
        ({"PolicyArns": [{"arn": "arn:aws:s3:::bucket/policy"}]}, "ValidationError", "is invalid"),
        (
            {"PolicyArns": [{"arn": "arn:aws:iam::444455556666:policy/P"}]},
            "ValidationError",
            "same account",
        ),
        (
            {"PolicyArns": [{"arn": f"arn:aws:iam::{ACCOUNT}:policy/None"}]},
            "ValidationError",
            "does not match an existing IAM Managed Policy ARN.",
        ),
        (
            {"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]},
            "ValidationError",
            too_long("tags", 50),
        ),
        (
            {"Tags": [{"Key": "k" * 129, "Value": ""}]},
            "ValidationError",
            too_long("tags.1.member.key", 128),
        ),
        (
            {"Tags": [{"Key": "k", "Value": "v" * 257}]},
            "ValidationError",
            too_long("tags.1.member.value", 256),
        ),
        ({"Tags": [{"Key": "k*", "Value": ""}]}, "ValidationError", pattern("tags.1.member.key")),
        (
            {"Tags": [{"Key": "k", "Value": "a,b"}]},
            "ValidationError",
            pattern("tags.1.member.value"),
        ),
        (
            {"Tags": [{"Key": "aws:k", "Value": ""}]},
            "InvalidParameterValue",
            "aws: prefixed tag key",
        ),
        (
            {"Tags": [TAG, {"Key": "TEAM", "Value": "x"}]},
            "InvalidParameterValue",
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        ),
        (
            {"Tags": [TAG], "TransitiveTagKeys": ["other"]},
            "InvalidParameterValue",
            "The specified transitive tag key must be included in the requested tags.",
        ),
        (
            {
                "Tags": [
                    {"Key": f"key{n}", "Value": hashlib.sha256(bytes([n])).hexdigest()}
                    for n in range(50)
                ]
            },
            "PackedPolicyTooLarge",
            "Packed size of session tags consumes",
        ),
        (
            {
                "Policy": json.dumps(
                    {
                        "Statement": {
                            "Effect": "Allow",
                            "Action": [
                                f"s{n * 7919 % 1009}:Get{n * 104729 % 99991:x}" for n in range(110)
                            ],
                            "Resource": "*",
                        }
                    }
                )
            },
            "PackedPolicyTooLarge",
            "Packed policy consumes",
        ),
    ],
)
def test_constraints(
    call: Callable[..., Any], standin: AwsStandIn, changes: dict[str, Any], code: str, text: str
) -> None:
    got_code, message, status = refusal(call, **changes)
    assert (got_code, status) == (code, 400)
    assert text in message
    assert standin.calls[-1].issued_key_id is None


def test_two_faults_are_told_together(call: Callable[..., Any]) -> None:
    code, message, _ = refusal(call, RoleSessionName="a b", SourceIdentity="c d")
    assert code == "ValidationError"
    assert message.startswith("2 validation errors detected: Value 'a b' at 'roleSessionName'")


def test_at_the_limits(call: Callable[..., Any]) -> None:
    policy = json.dumps(READ)
    answer = call(
        DurationSeconds=900,
        RoleSessionName="a" * 64,
        SourceIdentity="Az0_+=,.@-",
        Policy=policy + " " * (2048 - len(policy)),
        Tags=[{"Key": f"k{n}", "Value": ""} for n in range(50)],
    )
    assert answer["Credentials"]["AccessKeyId"]


def test_the_reserved_source_identity(standin: AwsStandIn, call: Callable[..., Any]) -> None:
    # Its colon is outside the pattern: no further rule is needed to refuse the prefix.
    code, message, _ = refusal(call, SourceIdentity="aws:ada")
    assert code == "ValidationError"
    assert "sourceIdentity" in message


def test_a_region_where_sts_is_off(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    standin.disabled_regions.add("us-east-1")
    sts = client("sts", demo.hub)
    assert refusal(sts.assume_role, RoleArn=demo.admin_arn, RoleSessionName="ada") == (
        "RegionDisabledException",
        (
            f"STS is not activated in this region for account:{ACCOUNT}. Your account administrator"
            " can activate STS in this region using the IAM Console."
        ),
        403,
    )


def test_an_action_that_is_not_there(
    standin: AwsStandIn, demo: DemoAccount, client: Client
) -> None:
    sts = client("sts", demo.hub)
    code, message, _ = refusal(sts.get_session_token)
    assert (code, "GetSessionToken" in message) == ("InvalidAction", True)
