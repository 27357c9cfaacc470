"""What the grammar of session policies takes, and what it refuses with its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.finding import Fault, dotted
from broker.access.grammar import policy_faults, statement_faults

GOOD = {"Sid": "A", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::x/*"}

NO_OPERATOR = (
    "is no condition operator; write one of: ArnEquals, ArnLike, ArnNotEquals, ArnNotLike, "
    "BinaryEquals, Bool, DateEquals, DateGreaterThan, DateGreaterThanEquals, DateLessThan, "
    "DateLessThanEquals, DateNotEquals, IpAddress, NotIpAddress, Null, NumericEquals, "
    "NumericGreaterThan, NumericGreaterThanEquals, NumericLessThan, NumericLessThanEquals, "
    "NumericNotEquals, StringEquals, StringEqualsIgnoreCase, StringLike, StringNotEquals, "
    "StringNotEqualsIgnoreCase, StringNotLike"
)
NO_VALUES = (
    "a condition's values are strings, whole numbers or booleans; "
    "write one, or a list with at least one"
)


def told(faults: Iterator[Fault]) -> list[str]:
    return [f"{dotted(fault.path)}: {fault.message}; {fault.instead}" for fault in faults]


LAMBDA = "arn:aws:lambda:eu-west-1:111122223333:function:f:*"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Action": "*", "Resource": "*"},
        {"Action": ["s3:Get*", "s3-object-lambda:List?bject", "execute-api:Invoke"]},
        {"Resource": [LAMBDA, "arn:aws:s3:::${aws:PrincipalTag/team}/*"]},
        {"Resource": "arn:*:s3:::x"},
        {"Condition": {"Bool": {"aws:SecureTransport": True}}},
        {"Condition": {"NumericLessThanEquals": {"s3:max-keys": [10, "20"]}}},
        {"Condition": {"ForAllValues:StringLikeIfExists": {"aws:TagKeys": ["a*"]}}},
        {
            "Condition": {
                "Null": {"aws:TokenIssueTime": "true"},
                "IpAddress": {"aws:SourceIp": "::"},
            }
        },
    ],
)
def test_session_policies(changes):
    statement = {**GOOD, **changes}
    assert not list(policy_faults({"Version": "2012-10-17", "Statement": statement}))
    other = {**statement, "Sid": "B"}
    assert not list(policy_faults({"Version": "2012-10-17", "Statement": [statement, other]}))


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ("x", [": a session policy is an object; write {Version: ..., Statement: [...]}"]),
        (
            {"Statement": [GOOD]},
            [
                (
                    ": without Version 2012-10-17 IAM reads ${...} as plain text; write "
                    'Version: "2012-10-17"'
                )
            ],
        ),
        (
            {"Version": "2012-10-17"},
            [": there is no statement; write Statement: [{Effect: Allow, ...}]"],
        ),
        (
            {"Version": "2012-10-17", "Statement": []},
            ["Statement: there is no statement; write Statement: [{Effect: Allow, ...}]"],
        ),
        (
            {"Version": "2012-10-17", "Statement": "x"},
            ["Statement: there is no statement; write Statement: [{Effect: Allow, ...}]"],
        ),
        (
            {"Version": "2012-10-17", "Statement": [1]},
            ["Statement[0]: a statement is an object; write {Effect: ..., Action: ..., ...}"],
        ),
        (
            {"Version": "2012-10-17", "Statement": [GOOD], "Id": 1},
            ["Id: Id is a string; put it in quotes"],
        ),
        (
            {"Version": "2012-10-17", "Statement": GOOD, "version": 1},
            ["version: 'version' is unknown here; did you mean Version?"],
        ),
        (
            {"Version": "2012-10-17", "Statement": [GOOD, GOOD]},
            ["Statement[1].Sid: 'A' stands here twice; write another Sid"],
        ),
        (
            {"Version": "2008-10-17", "Statement": GOOD},
            [
                (
                    "Version: without Version 2012-10-17 IAM reads ${...} as plain text; write "
                    'Version: "2012-10-17"'
                )
            ],
        ),
        (
            {"Version": None, "Statement": GOOD},
            [
                (
                    "Version: without Version 2012-10-17 IAM reads ${...} as plain text; write "
                    'Version: "2012-10-17"'
                )
            ],
        ),
        (
            {"Version": "2012-10-17", "Statement": [GOOD], "x": 1, "y": 2},
            [
                "x: 'x' is unknown here; write one of: Version, Id, Statement",
                "y: 'y' is unknown here; write one of: Version, Id, Statement",
            ],
        ),
        (
            {
                "Version": "2012-10-17",
                "Statement": [
                    {**GOOD, "Sid": ""},
                    {**GOOD, "Sid": 7},
                    {**GOOD, "Sid": 7},
                    GOOD,
                    1,
                    GOOD,
                ],
            },
            [
                "Statement[1].Sid: Sid holds letters and digits only; write Sid: ReadReports",
                "Statement[2].Sid: Sid holds letters and digits only; write Sid: ReadReports",
                "Statement[4]: a statement is an object; write {Effect: ..., Action: ..., ...}",
                "Statement[5].Sid: 'A' stands here twice; write another Sid",
            ],
        ),
        (
            {"Version": "2012-10-17", "Statement": {**GOOD, "Effect": "x"}},
            ["Statement.Effect: Effect is Allow or Deny; write Effect: Allow"],
        ),
        (
            {
                "Version": "2012-10-17",
                "Statement": [GOOD],
                "k" * 90: 1,
            },
            [f"{'k' * 90}: '{'k' * 79} is unknown here; write one of: Version, Id, Statement"],
        ),
    ],
)
def test_what_is_no_session_policy(document, faults):
    assert told(policy_faults(document)) == faults


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"Sid": "a b"}, ["Sid: Sid holds letters and digits only; write Sid: ReadReports"]),
        ({"Effect": "Permit"}, ["Effect: Effect is Allow or Deny; write Effect: Allow"]),
        (
            {"Principal": "*"},
            [
                (
                    "Principal: a session policy names no principal: it is the role session's; "
                    "leave Principal out"
                )
            ],
        ),
        (
            {"NotPrincipal": {}},
            [
                (
                    "NotPrincipal: a session policy names no principal: it is the role "
                    "session's; leave NotPrincipal out"
                )
            ],
        ),
        (
            {"NotAction": "s3:*"},
            [
                (
                    ": a statement has exactly one of Action and NotAction; write one of the "
                    'two, such as Action: ["s3:GetObject"]'
                )
            ],
        ),
        (
            {"NotResource": "*"},
            [
                (
                    ": a statement has exactly one of Resource and NotResource; write one of "
                    'the two, such as Resource: ["arn:aws:s3:::reports/*"]'
                )
            ],
        ),
        ({"Action": []}, ['Action: is no string; write Action: ["s3:GetObject"]']),
        ({"Action": 1}, ['Action: is no string; write Action: ["s3:GetObject"]']),
        ({"Action": ["s3:Get", None]}, ['Action[1]: is no string; write Action: ["s3:GetObject"]']),
        ({"Action": "s3"}, ["Action: 's3' is no action; write Action: [\"s3:GetObject\"]"]),
        ({"Action": "*:*"}, ["Action: '*:*' is no action; write Action: [\"s3:GetObject\"]"]),
        (
            {"Action": "s3:Get Object"},
            ["Action: 's3:Get Object' is no action; write Action: [\"s3:GetObject\"]"],
        ),
        (
            {"Action": "s3:Get\n"},
            ["Action: 's3:Get\\n' is no action; write Action: [\"s3:GetObject\"]"],
        ),
        (
            {"Resource": "bucket"},
            [
                (
                    "Resource: 'bucket' is no resource: an ARN, or * for all; write Resource: "
                    '["arn:aws:s3:::reports/*"]'
                )
            ],
        ),
        (
            {"Resource": "arn:aws:s3"},
            [
                (
                    "Resource: 'arn:aws:s3' is no resource: an ARN, or * for all; write "
                    'Resource: ["arn:aws:s3:::reports/*"]'
                )
            ],
        ),
        (
            {"Condition": []},
            [
                (
                    "Condition: Condition is an object of operators; write {StringEquals: "
                    '{"aws:PrincipalTag/team": [web]}}'
                )
            ],
        ),
        (
            {"Condition": {}},
            [
                (
                    "Condition: Condition is an object of operators; write {StringEquals: "
                    '{"aws:PrincipalTag/team": [web]}}'
                )
            ],
        ),
        (
            {"Condition": {"StringIs": {}}},
            ["Condition.StringIs: 'StringIs' is no condition operator; did you mean StringEquals?"],
        ),
        (
            {"Condition": {"NullIfExists": {}}},
            [f"Condition.NullIfExists: 'NullIfExists' {NO_OPERATOR}"],
        ),
        (
            {"Condition": {"Bool": {}}},
            [
                (
                    "Condition.Bool: a condition operator holds an object of keys; write "
                    '{StringEquals: {"aws:PrincipalTag/team": [web]}}'
                )
            ],
        ),
        (
            {"Condition": {"Bool": {"x": "y"}}},
            ["Condition.Bool.x: 'x' is no condition key; write one such as aws:SourceIp"],
        ),
        (
            {"Condition": {"Bool": {"aws:x": []}}},
            [f"Condition.Bool.aws:x: {NO_VALUES}"],
        ),
        (
            {"Condition": {"Bool": {"aws:x": None}}},
            [f"Condition.Bool.aws:x: {NO_VALUES}"],
        ),
        (
            {"Condition": {"Bool": {"aws:x": [1.5]}}},
            [f"Condition.Bool.aws:x: {NO_VALUES}"],
        ),
        ({"Sid": 7}, ["Sid: Sid holds letters and digits only; write Sid: ReadReports"]),
        ({"Effect": None}, ["Effect: Effect is Allow or Deny; write Effect: Allow"]),
        (
            {"Action": "s3:Get", "Extra": 1},
            [
                (
                    "Extra: 'Extra' is unknown here; write one of: Sid, Effect, Action, "
                    "NotAction, Resource, NotResource, Condition"
                )
            ],
        ),
        (
            {"Action": "", "Resource": ""},
            [
                "Action: '' is no action; write Action: [\"s3:GetObject\"]",
                (
                    "Resource: '' is no resource: an ARN, or * for all; write Resource: "
                    '["arn:aws:s3:::reports/*"]'
                ),
            ],
        ),
        (
            {"Action": ["s3"], "Resource": ["x", 1, "*"]},
            [
                "Action[0]: 's3' is no action; write Action: [\"s3:GetObject\"]",
                (
                    "Resource[0]: 'x' is no resource: an ARN, or * for all; write Resource: "
                    '["arn:aws:s3:::reports/*"]'
                ),
                'Resource[1]: is no string; write Resource: ["arn:aws:s3:::reports/*"]',
            ],
        ),
        ({"Resource": []}, ['Resource: is no string; write Resource: ["arn:aws:s3:::reports/*"]']),
        ({"Resource": "arn:aws:s3:::\n"}, []),
        (
            {"Condition": {"ForAnyValue:ForAllValues:StringLike": {"aws:x": "y"}}},
            [
                (
                    f"Condition.ForAnyValue:ForAllValues:StringLike: "
                    f"'ForAnyValue:ForAllValues:StringLike' {NO_OPERATOR}"
                )
            ],
        ),
        (
            {"Condition": {"StringLikeForAnyValue:": {"aws:x": "y"}}},
            [
                (
                    "Condition.StringLikeForAnyValue:: 'StringLikeForAnyValue:' is no condition "
                    "operator; did you mean StringLike?"
                )
            ],
        ),
        (
            {"Condition": {"ForAllValues:": {"aws:x": "y"}}},
            [f"Condition.ForAllValues:: 'ForAllValues:' {NO_OPERATOR}"],
        ),
        (
            {"Condition": {1: {"aws:x": "y"}}},
            [f"Condition.1: 1 {NO_OPERATOR}"],
        ),
        (
            {"Condition": {"BoolIfExistsIfExists": {"aws:x": "y"}}},
            [f"Condition.BoolIfExistsIfExists: 'BoolIfExistsIfExists' {NO_OPERATOR}"],
        ),
        (
            {"Condition": {"StringEquals": []}},
            [
                (
                    "Condition.StringEquals: a condition operator holds an object of keys; "
                    'write {StringEquals: {"aws:PrincipalTag/team": [web]}}'
                )
            ],
        ),
        (
            {"Condition": {"StringEquals": {1: "x"}, "Nope": {}, "Bool": {"aws:x": {}}}},
            [
                "Condition.StringEquals.1: 1 is no condition key; write one such as aws:SourceIp",
                f"Condition.Nope: 'Nope' {NO_OPERATOR}",
                f"Condition.Bool.aws:x: {NO_VALUES}",
            ],
        ),
        (
            {"Condition": {"Bool": {"aws:x y": "z", "aws:": [True, 1, "x", None]}}},
            [
                (
                    "Condition.Bool.aws:x y: 'aws:x y' is no condition key; write one such as "
                    "aws:SourceIp"
                ),
                "Condition.Bool.aws:: 'aws:' is no condition key; write one such as aws:SourceIp",
                f"Condition.Bool.aws:: {NO_VALUES}",
            ],
        ),
        (
            {"Condition": None},
            [
                (
                    "Condition: Condition is an object of operators; write {StringEquals: "
                    '{"aws:PrincipalTag/team": [web]}}'
                )
            ],
        ),
        (
            {"Action": "x" * 90},
            [f'Action: \'{"x" * 79} is no action; write Action: ["s3:GetObject"]'],
        ),
    ],
)
def test_what_is_no_statement(changes, faults):
    assert told(statement_faults({**GOOD, **changes})) == faults


@pytest.mark.parametrize(
    ("statement", "faults"),
    [
        (
            {},
            [
                ": Effect is Allow or Deny; write Effect: Allow",
                (
                    ": a statement has exactly one of Action and NotAction; write one of the "
                    'two, such as Action: ["s3:GetObject"]'
                ),
                (
                    ": a statement has exactly one of Resource and NotResource; write one of "
                    'the two, such as Resource: ["arn:aws:s3:::reports/*"]'
                ),
            ],
        ),
        (
            {"Effect": "Deny"},
            [
                (
                    ": a statement has exactly one of Action and NotAction; write one of the "
                    'two, such as Action: ["s3:GetObject"]'
                ),
                (
                    ": a statement has exactly one of Resource and NotResource; write one of "
                    'the two, such as Resource: ["arn:aws:s3:::reports/*"]'
                ),
            ],
        ),
        (
            {"NotAction": [1], "NotResource": "x", "Effect": "Allow"},
            [
                'NotAction[0]: is no string; write NotAction: ["s3:GetObject"]',
                (
                    "NotResource: 'x' is no resource: an ARN, or * for all; write NotResource: "
                    '["arn:aws:s3:::reports/*"]'
                ),
            ],
        ),
        ([], [": a statement is an object; write {Effect: ..., Action: ..., ...}"]),
        (None, [": a statement is an object; write {Effect: ..., Action: ..., ...}"]),
    ],
)
def test_what_a_statement_lacks(statement, faults):
    assert told(statement_faults(statement)) == faults


@pytest.mark.parametrize(
    ("effect", "path"), [("Allow", "deny[0].Effect"), (None, "deny[0].Effect"), ("", "deny[0]")]
)
def test_only_denials_may_be_added(effect, path):
    statement = {"Action": "s3:*", "Resource": "*"}
    assert not list(statement_faults({**statement, "Effect": "Deny"}, deny_only=True))
    if effect != "":
        statement["Effect"] = effect
    assert told(statement_faults(statement, ("deny", 0), deny_only=True)) == [
        f"{path}: only Deny statements may be added here; write Effect: Deny"
    ]


@pytest.mark.parametrize(
    "operator",
    [
        "StringEquals",
        "ForAnyValue:StringEquals",
        "ForAllValues:ArnLikeIfExists",
        "BoolIfExists",
        "DateLessThanIfExists",
        "Null",
        "ForAllValues:Null",
        "BinaryEquals",
        "NotIpAddressIfExists",
    ],
)
def test_condition_operators(operator):
    assert not list(statement_faults({**GOOD, "Condition": {operator: {"aws:x": ["y", 1, True]}}}))


@pytest.mark.parametrize(
    "operator",
    [
        "ForAllValues:ForAnyValue:StringLike",
        "ForAnyValue:ForAnyValue:StringLike",
        "StringEqualsNullIfExists",
        "StringEqualsNull",
        "NullStringEqualsIfExists",
        "StringEqualsIfExistsIfExists",
        "IfExists",
        "stringequals",
    ],
)
def test_what_only_looks_like_a_condition_operator(operator):
    condition = {operator: {"aws:x": "y"}}
    (fault,) = statement_faults({**GOOD, "Condition": condition})
    assert fault.path == ("Condition", operator)
    assert fault.message == f"{operator!r} is no condition operator"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*GOOD, "Condition", "Statement", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(document=_JSON)
def test_any_json_is_judged_and_only_denials_pass_as_such(document):
    list(policy_faults(document))
    if not list(statement_faults(document, deny_only=True)):
        assert document["Effect"] == "Deny"
