"""What the grammar of session policies takes, and what it refuses with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.finding import dotted
from broker.access.grammar import policy_faults, statement_faults

GOOD = {"Sid": "A", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::x/*"}
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
    ("document", "path", "message"),
    [
        ("x", "", "a session policy is an object"),
        ({"Statement": [GOOD]}, "", "without Version 2012-10-17"),
        ({"Version": "2012-10-17"}, "", "there is no statement"),
        ({"Version": "2012-10-17", "Statement": []}, "Statement", "there is no statement"),
        ({"Version": "2012-10-17", "Statement": "x"}, "Statement", "there is no statement"),
        ({"Version": "2012-10-17", "Statement": [1]}, "Statement[0]", "a statement is an object"),
        ({"Version": "2012-10-17", "Statement": [GOOD], "Id": 1}, "Id", "Id is a string"),
        ({"Version": "2012-10-17", "Statement": GOOD, "version": 1}, "version", "is unknown here"),
        ({"Version": "2012-10-17", "Statement": [GOOD, GOOD]}, "Statement[1].Sid", "twice"),
    ],
)
def test_what_is_no_session_policy(document, path, message):
    (fault,) = policy_faults(document)
    assert (dotted(fault.path), message in fault.message) == (path, True)


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"Sid": "a b"}, "Sid", "letters and digits only"),
        ({"Effect": "Permit"}, "Effect", "Effect is Allow or Deny"),
        ({"Principal": "*"}, "Principal", "names no principal"),
        ({"NotPrincipal": {}}, "NotPrincipal", "names no principal"),
        ({"NotAction": "s3:*"}, "", "exactly one of Action and NotAction"),
        ({"NotResource": "*"}, "", "exactly one of Resource and NotResource"),
        ({"Action": []}, "Action", "is no string"),
        ({"Action": 1}, "Action", "is no string"),
        ({"Action": ["s3:Get", None]}, "Action[1]", "is no string"),
        ({"Action": "s3"}, "Action", "'s3' is no action"),
        ({"Action": "*:*"}, "Action", "'*:*' is no action"),
        ({"Action": "s3:Get Object"}, "Action", "is no action"),
        ({"Action": "s3:Get\n"}, "Action", "is no action"),
        ({"Resource": "bucket"}, "Resource", "is no resource"),
        ({"Resource": "arn:aws:s3"}, "Resource", "is no resource"),
        ({"Condition": []}, "Condition", "an object of operators"),
        ({"Condition": {}}, "Condition", "an object of operators"),
        ({"Condition": {"StringIs": {}}}, "Condition.StringIs", "no condition operator"),
        ({"Condition": {"NullIfExists": {}}}, "Condition.NullIfExists", "no condition operator"),
        ({"Condition": {"Bool": {}}}, "Condition.Bool", "an object of keys"),
        ({"Condition": {"Bool": {"x": "y"}}}, "Condition.Bool.x", "no condition key"),
        ({"Condition": {"Bool": {"aws:x": []}}}, "Condition.Bool.aws:x", "values are strings"),
        ({"Condition": {"Bool": {"aws:x": None}}}, "Condition.Bool.aws:x", "values are strings"),
        ({"Condition": {"Bool": {"aws:x": [1.5]}}}, "Condition.Bool.aws:x", "values are strings"),
    ],
)
def test_what_is_no_statement(changes, path, message):
    faults = list(statement_faults({**GOOD, **changes}))
    assert [(dotted(one.path), message in one.message) for one in faults] == [(path, True)]
    assert faults[0].instead


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
