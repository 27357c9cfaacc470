"""What AWS refuses in a policy document, and what it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.devstack.aws.grammar import Kind, MalformedPolicy, parse

GOOD: dict[str, Any] = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
TRUST: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole"}


def document(statement: object, **top: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statement, **top})


@pytest.mark.parametrize(
    "text",
    [
        document([GOOD]),
        document(GOOD),
        document([GOOD], Id="one"),
        json.dumps({"Statement": [GOOD]}),
        document([{**GOOD, "Sid": ""}, {**GOOD, "Sid": ""}]),
        document([{**GOOD, "Resource": "arn:aws:s3:::b/${aws:PrincipalTag/a b, 'c'}/${*}"}]),
        document(
            [{**GOOD, "Condition": {"StringEquals": {"aws:PrincipalTag/broker:issuance": "x"}}}]
        ),
        document([{**GOOD, "Condition": {}}]),
    ],
)
def test_taken(text: str) -> None:
    assert parse(text).statements


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Syntax errors"),
        ("{", "Syntax errors"),
        ("[]", "Syntax errors"),
        ('{"Version":"2012-10-17"}', "Syntax errors"),
        (
            '{"Statement":[{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}]}',
            "Syntax",
        ),
        (
            '{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a:b":NaN}}}]}',
            "Syntax",
        ),
        ("[" * 100_000, "Syntax errors"),
        (document([]), "Syntax errors"),
        (document("x"), "Syntax errors"),
        (document(["x"]), "Syntax errors"),
        (document([GOOD], Version="2012-10-18"), "Syntax errors"),
        (document([GOOD], Extra=1), "Syntax errors"),
        (document([{**GOOD, "Effekt": "x"}]), "Syntax errors"),
        (document([{**GOOD, "Effect": "allow"}]), "Syntax errors"),
        (document([{**GOOD, "Action": []}]), "must contain actions"),
        (document([{"Effect": "Allow", "Resource": "*"}]), "must contain actions"),
        (document([{"Effect": "Allow", "Action": "*"}]), "must contain resources"),
        (document([{**GOOD, "NotAction": "s3:*"}]), "Syntax errors"),
        (document([{**GOOD, "NotResource": "*"}]), "Syntax errors"),
        (document([{**GOOD, "Action": "GetObject"}]), "prefaced by a vendor"),
        (document([{**GOOD, "Action": "s3:Get Object"}]), "is not valid"),
        (document([{**GOOD, "Action": "s3:Get:Object"}]), "is not valid"),
        (document([{**GOOD, "Action": 7}]), "Syntax errors"),
        (document([{**GOOD, "Resource": "reports/*"}]), "must be in ARN format"),
        (document([{**GOOD, "Resource": "arn:aws:s3"}]), "must be in ARN format"),
        (document([{**GOOD, "Resource": "arn:aws:s3:::b/${aws:x"}]), "policy variable"),
        (document([{**GOOD, "Resource": "arn:aws:s3:::b/${}"}]), "policy variable"),
        (document([{**GOOD, "Resource": "arn:aws:s3:::b/${x}"}]), "policy variable"),
        (document([{**GOOD, "Sid": "a b"}]), "alpha-numeric"),
        (document([{**GOOD, "Sid": "a"}, {**GOOD, "Sid": "a"}]), "must be unique"),
        (document([{**GOOD, "Principal": "*"}]), "should not specify a principal"),
        (document([{**GOOD, "Condition": {"StringIs": {"a:b": "c"}}}]), "Invalid Condition type"),
        (document([{**GOOD, "Condition": {"NullIfExists": {"a:b": "true"}}}]), "Invalid Condition"),
        (document([{**GOOD, "Condition": {"StringEquals": {"ab": "c"}}}]), "prefaced by a vendor"),
        (document([{**GOOD, "Condition": {"StringEquals": {"a:b": {"c": 1}}}}]), "Syntax errors"),
        (document([{**GOOD, "Condition": []}]), "Syntax errors"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(MalformedPolicy, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (TRUST, "Principal"),
        ({**TRUST, "Principal": {"AWS": "*"}, "Resource": "*"}, "prohibited field Resource"),
        ({**TRUST, "Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}}, "Invalid principal"),
        ({**TRUST, "Principal": {"AWS": "ada"}}, "Invalid principal"),
        ({**TRUST, "Principal": {"Who": "ada"}}, "Invalid principal"),
        ({**TRUST, "Principal": {}}, "Invalid principal"),
        ({**TRUST, "Principal": {"AWS": "*"}, "NotPrincipal": {"AWS": "*"}}, "Principal"),
    ],
)
def test_trust_policies_refused(statement: object, says: str) -> None:
    with pytest.raises(MalformedPolicy, match=says):
        parse(document([statement]), Kind.TRUST)
