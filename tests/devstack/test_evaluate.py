"""The policy evaluation, as tables: each row is one rule of the IAM User Guide."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.devstack.aws.evaluate import (
    Caller,
    CallerPolicies,
    Cause,
    Resource,
    evaluate,
)
from broker.devstack.aws.grammar import Kind, Policy, parse

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/R"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/R/ada"
USER = f"arn:aws:iam::{ACCOUNT}:user/ada"
OBJECT = "arn:aws:s3:::reports/public/q3.csv"
IN_ROLE = Caller(SESSION, ACCOUNT, ROLE)
IN_USER = Caller(USER, ACCOUNT)


def policy(
    *statements: dict[str, Any], kind: Kind = Kind.IDENTITY, version: str = "2012-10-17"
) -> Policy:
    return parse(json.dumps({"Version": version, "Statement": list(statements)}), kind)


def allow(action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def decide(
    *statements: dict[str, Any],
    action: str = "s3:GetObject",
    resource: str = OBJECT,
    context: Mapping[str, tuple[str, ...]] | None = None,
    version: str = "2012-10-17",
) -> bool:
    decision = evaluate(
        action,
        Resource(resource, ACCOUNT),
        IN_ROLE,
        CallerPolicies((policy(*statements, version=version),)),
        context or {},
    )
    return decision.allowed


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        (allow("s3:GetObject"), True),
        (allow("S3:getobject"), True),  # actions are case-insensitive
        (allow("s3:Get*"), True),
        (allow("s3:GetObjec?"), True),
        (allow("s3:GetObjec??"), False),
        (allow("s3:*Object"), True),
        (allow("*"), True),
        (allow("s3:PutObject"), False),
        (allow(["s3:PutObject", "s3:GetObject"]), True),
        (allow("s3:GetObjectAcl"), False),
        (allow(resource="arn:aws:s3:::reports/*"), True),
        (allow(resource="arn:aws:s3:::reports/public/q?.csv"), True),
        (allow(resource="arn:aws:s3:::reports/public/q?csv"), False),
        (allow(resource="arn:aws:s3:::REPORTS/*"), False),  # resources are case-sensitive
        (allow(resource="arn:aws:s3:::reports"), False),
        (allow(resource="arn:aws:s3:::*/q3.csv"), True),
        (allow(resource="arn:aws:*:::reports/*"), True),
        (allow(resource="arn:aws:s3:*"), True),
        (allow(resource="arn:aws:s3:*:reports/*"), False),  # no wildcard over a colon
        (allow(resource=["arn:aws:s3:::logs/*", "arn:aws:s3:::reports/*"]), True),
        ({"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": ["s3:Get*", "iam:*"], "Resource": "*"}, False),
        ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::logs/*"}, True),
        ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::reports/*"}, False),
    ],
)
def test_actions_and_resources(statement: dict[str, Any], allowed: bool) -> None:
    assert decide(statement) is allowed


@pytest.mark.parametrize(
    ("condition", "context", "met"),
    [
        ({"StringEquals": {"aws:x": "a"}}, {"aws:x": ("a",)}, True),
        ({"StringEquals": {"AWS:X": "a"}}, {"aws:x": ("a",)}, True),  # keys ignore case
        ({"StringEquals": {"aws:x": "A"}}, {"aws:x": ("a",)}, False),  # values do not
        ({"StringEquals": {"aws:x": ["b", "a"]}}, {"aws:x": ("a",)}, True),
        ({"StringEquals": {"aws:x": "a*"}}, {"aws:x": ("ab",)}, False),  # no wildcard here
        ({"StringEquals": {"aws:x": "a"}}, {}, False),
        ({"StringEqualsIfExists": {"aws:x": "a"}}, {}, True),
        ({"StringEqualsIfExists": {"aws:x": "a"}}, {"aws:x": ("b",)}, False),
        ({"StringNotEquals": {"aws:x": "a"}}, {}, True),
        ({"StringNotEquals": {"aws:x": ["a", "b"]}}, {"aws:x": ("b",)}, False),
        ({"StringNotEquals": {"aws:x": ["a", "b"]}}, {"aws:x": ("c",)}, True),
        ({"StringEqualsIgnoreCase": {"aws:x": "ABC"}}, {"aws:x": ("abc",)}, True),
        ({"StringNotEqualsIgnoreCase": {"aws:x": "ABC"}}, {"aws:x": ("abc",)}, False),
        ({"StringLike": {"aws:x": "a?c*"}}, {"aws:x": ("abcd",)}, True),
        ({"StringLike": {"aws:x": "a${*}"}}, {"aws:x": ("ab",)}, False),
        ({"StringLike": {"aws:x": "a${*}"}}, {"aws:x": ("a*",)}, True),
        ({"StringNotLike": {"aws:x": "a*"}}, {"aws:x": ("b",)}, True),
        ({"NumericLessThan": {"s3:max-keys": "10"}}, {"s3:max-keys": ("9",)}, True),
        ({"NumericLessThanEquals": {"s3:max-keys": 10}}, {"s3:max-keys": ("10",)}, True),
        ({"NumericGreaterThan": {"s3:max-keys": 10}}, {"s3:max-keys": ("9",)}, False),
        ({"NumericEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": ("ten",)}, False),
        ({"NumericNotEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": ("11",)}, True),
        (
            {"DateLessThan": {"aws:TokenIssueTime": "2026-11-24T10:00:00Z"}},
            {"aws:tokenissuetime": ("2026-11-24T09:59:59Z",)},
            True,
        ),
        (
            {"DateLessThan": {"aws:TokenIssueTime": "2026-11-24T10:00:00Z"}},
            {"aws:tokenissuetime": ("2026-11-24T10:00:00Z",)},
            False,
        ),
        (
            {"DateGreaterThanEquals": {"aws:CurrentTime": "2026-11-24T12:00:00+02:00"}},
            {"aws:currenttime": ("2026-11-24T10:00:00Z",)},
            True,
        ),
        ({"DateGreaterThan": {"aws:EpochTime": "1"}}, {"aws:epochtime": ("2",)}, True),
        ({"DateEquals": {"aws:CurrentTime": "soon"}}, {"aws:currenttime": ("soon",)}, False),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:securetransport": ("true",)}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws:securetransport": ("true",)}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:sourceip": ("10.1.2.3",)}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {"aws:sourceip": ("10.1.2.3",)}, False),
        (
            {"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8"]}},
            {"aws:sourceip": ("10.1.2.3",)},
            False,
        ),
        ({"ArnEquals": {"aws:PrincipalArn": ROLE}}, {"aws:principalarn": (ROLE,)}, True),
        (
            {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"}},
            {"aws:principalarn": (ROLE,)},
            True,
        ),
        (
            {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*role/*"}},
            {"aws:principalarn": (ROLE,)},
            False,
        ),
        (
            {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}},
            {"aws:principalarn": (ROLE,)},
            True,
        ),
        ({"ArnNotEquals": {"aws:PrincipalArn": ROLE}}, {"aws:principalarn": (ROLE,)}, False),
        ({"Null": {"aws:SourceIdentity": "true"}}, {}, True),
        ({"Null": {"aws:SourceIdentity": "true"}}, {"aws:sourceidentity": ("p",)}, False),
        ({"Null": {"aws:SourceIdentity": False}}, {"aws:sourceidentity": ("p",)}, True),
        ({"BinaryEquals": {"aws:x": "QUI="}}, {"aws:x": ("QUI=",)}, True),
        (
            {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}},
            {"aws:tagkeys": ("a", "b")},
            True,
        ),
        (
            {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}},
            {"aws:tagkeys": ("a", "c")},
            False,
        ),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws:tagkeys": ("c", "a")}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        (
            {"ForAllValues:StringNotEquals": {"aws:TagKeys": ["a"]}},
            {"aws:tagkeys": ("a", "b")},
            False,
        ),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": ["te?m"]}}, {"aws:tagkeys": ("team",)}, True),
        # operators and keys are ANDed
        ({"StringEquals": {"aws:x": "a", "aws:y": "b"}}, {"aws:x": ("a",)}, False),
        (
            {"StringEquals": {"aws:x": "a"}, "StringLike": {"aws:y": "b*"}},
            {"aws:x": ("a",), "aws:y": ("bb",)},
            True,
        ),
        # variables
        (
            {"StringEquals": {"aws:x": "${aws:PrincipalTag/team}"}},
            {"aws:x": ("red",), "aws:principaltag/team": ("red",)},
            True,
        ),
        ({"StringEquals": {"aws:x": "${aws:PrincipalTag/team}"}}, {"aws:x": ("red",)}, False),
        ({"StringEquals": {"aws:x": "${aws:PrincipalTag/team, 'red'}"}}, {"aws:x": ("red",)}, True),
        (
            {"StringLike": {"s3:prefix": "home/${aws:SourceIdentity}/*"}},
            {"s3:prefix": ("home/p-1/x",), "aws:sourceidentity": ("p-1",)},
            True,
        ),
        # a value is never a wildcard
        (
            {"StringLike": {"s3:prefix": "home/${aws:username}/*"}},
            {"s3:prefix": ("home/eve/x",), "aws:username": ("*",)},
            False,
        ),
    ],
)
def test_conditions(condition: Any, context: dict[str, tuple[str, ...]], met: bool) -> None:
    assert decide(allow(Condition=condition), context=context) is met
    # The same block under Deny: an Allow beside it is taken away exactly when it is met.
    assert decide(allow(), deny(Condition=condition), context=context) is not met


@pytest.mark.parametrize(
    ("resource", "context", "allowed"),
    [
        (
            "arn:aws:s3:::reports/${aws:PrincipalTag/Dir}/*",
            {"aws:principaltag/dir": ("public",)},
            True,
        ),
        ("arn:aws:s3:::reports/${aws:PrincipalTag/Dir}/*", {"aws:principaltag/dir": ("*",)}, False),
        ("arn:aws:s3:::reports/${aws:PrincipalTag/Dir}/*", {}, False),
        ("arn:aws:s3:::reports/${aws:userid}/*", {"aws:userid": ("AROA1:ada",)}, False),
        ("arn:aws:s3:::reports/public/${*}.csv", {}, False),
    ],
)
def test_variables_in_resources(
    resource: str, context: dict[str, tuple[str, ...]], allowed: bool
) -> None:
    assert decide(allow(resource=resource), context=context) is allowed


def test_variables_are_plain_text_before_2012() -> None:
    context = {"aws:principaltag/dir": ("public",)}
    statement = allow(resource="arn:aws:s3:::reports/${aws:PrincipalTag/Dir}/*")
    assert decide(statement, context=context)
    assert not decide(statement, context=context, version="2008-10-17")
    literal = "arn:aws:s3:::reports/${aws:PrincipalTag/Dir}/x"
    assert decide(statement, resource=literal, version="2008-10-17")


def test_a_missing_variable_in_not_resource_neither_widens_an_allow_nor_narrows_a_deny() -> None:
    unresolved = {"NotResource": "arn:aws:s3:::reports/${aws:PrincipalTag/none}/*"}
    assert not decide({"Effect": "Allow", "Action": "s3:*", **unresolved})
    assert not decide(allow(), {"Effect": "Deny", "Action": "s3:*", **unresolved})


def identity(*statements: dict[str, Any]) -> tuple[Policy, ...]:
    return (policy(*statements),)


def bucket(principal: Any, *, effect: str = "Allow", action: str = "s3:GetObject") -> Policy:
    return policy(
        {
            "Effect": effect,
            "Principal": principal,
            "Action": action,
            "Resource": "arn:aws:s3:::reports/*",
        },
        kind=Kind.BUCKET,
    )


READ, WRITE = identity(allow("s3:Get*")), identity(allow("s3:Put*"))


@pytest.mark.parametrize(
    ("caller", "policies", "resource_policy", "owner", "cause"),
    [
        # identity and session policies are intersected
        (IN_ROLE, CallerPolicies(READ), None, ACCOUNT, Cause.ALLOWED),
        (IN_ROLE, CallerPolicies(WRITE), None, ACCOUNT, Cause.NO_IDENTITY),
        (IN_ROLE, CallerPolicies(READ, READ), None, ACCOUNT, Cause.ALLOWED),
        (IN_ROLE, CallerPolicies(READ, WRITE), None, ACCOUNT, Cause.NO_SESSION),
        (IN_ROLE, CallerPolicies(READ, ()), None, ACCOUNT, Cause.NO_SESSION),
        (IN_ROLE, CallerPolicies(WRITE, READ), None, ACCOUNT, Cause.NO_IDENTITY),
        # several session policies are ORed, and a Deny in any of them wins
        (IN_ROLE, CallerPolicies(READ, WRITE + READ), None, ACCOUNT, Cause.ALLOWED),
        (IN_ROLE, CallerPolicies(READ, READ + identity(deny())), None, ACCOUNT, Cause.DENY_SESSION),
        (IN_ROLE, CallerPolicies(READ + identity(deny("*"))), None, ACCOUNT, Cause.DENY_IDENTITY),
        # boundary
        (IN_ROLE, CallerPolicies(READ, None, WRITE[0]), None, ACCOUNT, Cause.NO_BOUNDARY),
        (IN_ROLE, CallerPolicies(READ, None, READ[0]), None, ACCOUNT, Cause.ALLOWED),
        # resource policy naming the account: identity policies decide
        (IN_ROLE, CallerPolicies(()), bucket({"AWS": ACCOUNT}), ACCOUNT, Cause.NO_IDENTITY),
        (
            IN_ROLE,
            CallerPolicies(READ),
            bucket({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}),
            ACCOUNT,
            Cause.ALLOWED,
        ),
        # naming the role: no identity policy needed, session policy and boundary still limit
        (IN_ROLE, CallerPolicies(()), bucket({"AWS": ROLE}), ACCOUNT, Cause.ALLOWED),
        (IN_ROLE, CallerPolicies((), WRITE), bucket({"AWS": ROLE}), ACCOUNT, Cause.NO_SESSION),
        (
            IN_ROLE,
            CallerPolicies((), None, WRITE[0]),
            bucket({"AWS": ROLE}),
            ACCOUNT,
            Cause.NO_BOUNDARY,
        ),
        # naming the session: nothing implicit limits, an explicit Deny does
        (
            IN_ROLE,
            CallerPolicies((), WRITE, WRITE[0]),
            bucket({"AWS": SESSION}),
            ACCOUNT,
            Cause.ALLOWED,
        ),
        (
            IN_ROLE,
            CallerPolicies((), identity(deny())),
            bucket({"AWS": SESSION}),
            ACCOUNT,
            Cause.DENY_SESSION,
        ),
        (IN_ROLE, CallerPolicies((), WRITE), bucket("*"), ACCOUNT, Cause.ALLOWED),
        # naming another
        (IN_ROLE, CallerPolicies(()), bucket({"AWS": f"{SESSION}2"}), ACCOUNT, Cause.NO_IDENTITY),
        (
            IN_ROLE,
            CallerPolicies(()),
            bucket({"Service": "s3.amazonaws.com"}),
            ACCOUNT,
            Cause.NO_IDENTITY,
        ),
        (IN_USER, CallerPolicies(()), bucket({"AWS": USER}), ACCOUNT, Cause.ALLOWED),
        # explicit deny of the resource
        (IN_ROLE, CallerPolicies(READ), bucket("*", effect="Deny"), ACCOUNT, Cause.DENY_RESOURCE),
        (
            IN_ROLE,
            CallerPolicies(READ),
            bucket({"AWS": USER}, effect="Deny"),
            ACCOUNT,
            Cause.ALLOWED,
        ),
        # across accounts both sides are needed
        (IN_ROLE, CallerPolicies(READ), None, "444455556666", Cause.NO_RESOURCE),
        (IN_ROLE, CallerPolicies(()), bucket({"AWS": ROLE}), "444455556666", Cause.NO_IDENTITY),
        (IN_ROLE, CallerPolicies(READ), bucket({"AWS": ACCOUNT}), "444455556666", Cause.ALLOWED),
        (
            IN_ROLE,
            CallerPolicies(READ, WRITE),
            bucket({"AWS": SESSION}),
            "444455556666",
            Cause.NO_SESSION,
        ),
        # the root user needs no identity policy
        (
            Caller(f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, root=True),
            CallerPolicies(()),
            None,
            ACCOUNT,
            Cause.ALLOWED,
        ),
    ],
)
def test_how_policies_combine(
    caller: Caller,
    policies: CallerPolicies,
    resource_policy: Policy | None,
    owner: str,
    cause: Cause,
) -> None:
    decision = evaluate(
        "s3:GetObject", Resource(OBJECT, owner, resource_policy), caller, policies, {}
    )
    assert decision.cause is cause


def test_not_principal_denies_everyone_else() -> None:
    only_ada = policy(
        {
            "Effect": "Deny",
            "NotPrincipal": {"AWS": [ROLE, SESSION, ACCOUNT]},
            "Action": "*",
            "Resource": "*",
        },
        kind=Kind.BUCKET,
    )
    resource = Resource(OBJECT, ACCOUNT, only_ada)
    other = Caller("arn:aws:iam::444455556666:user/eve", "444455556666")
    assert evaluate("s3:GetObject", resource, IN_ROLE, CallerPolicies(READ), {}).allowed
    denied = evaluate("s3:GetObject", resource, other, CallerPolicies(READ), {})
    assert denied.cause is Cause.DENY_RESOURCE


def test_the_reason_is_aws_wording() -> None:
    decision = evaluate(
        "s3:GetObject", Resource(OBJECT, ACCOUNT), IN_ROLE, CallerPolicies(READ, WRITE), {}
    )
    assert decision.reason == "because no session policy allows the s3:GetObject action"


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_wildcards_match_as_a_regular_expression_would(pattern: str, name: str) -> None:
    expected = re.fullmatch(pattern.replace("*", ".*").replace("?", "."), name) is not None
    resource = f"arn:aws:s3:::{pattern}"
    assert decide(allow(resource=resource), resource=f"arn:aws:s3:::{name}") is expected


def test_a_pattern_of_many_stars_is_decided_at_once() -> None:
    pattern = "arn:aws:s3:::" + "a*" * 200 + "b"
    assert not decide(allow(resource=pattern), resource="arn:aws:s3:::" + "a" * 1000)
