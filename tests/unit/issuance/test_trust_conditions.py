"""Whether a Condition holds for the broker's call: yes, no, or None for what only AWS knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.issuance.rehearsal import rehearse, varying_tags
from broker.issuance.request import PLACEHOLDER_ID
from broker.issuance.sts import AssumeRole, CallerIdentity
from broker.issuance.trust_conditions import Known, holds, keys_of
from broker.issuance.trust_document import Clause, Statement, glob, read_trust_policy
from tests.unit.issuance.trust_examples import (
    ACCOUNT,
    HUB,
    ROLE,
    SESSION,
    USER,
    without_external_id,
)

HOP = f"arn:aws:iam::{ACCOUNT}:role/Hop"
NOBODY = "p-0000000000000000"
NAME = f"broker-doctor-{PLACEHOLDER_ID}"


def known(call: AssumeRole, identity: CallerIdentity, principal: str) -> dict[str, Known]:
    return keys_of(call, identity, principal, varying_tags(ROLE))


ALWAYS = {
    "aws:principalaccount": Known((ACCOUNT,)),
    "aws:principalisawsservice": Known(("false",)),
    "aws:viaawsservice": Known(("false",)),
    "aws:securetransport": Known(("true",)),
    "sts:rolesessionname": Known((NAME,), sample=True),
}
OF_THE_CALL = {
    "sts:externalid": Known(("e-4711",)),
    "sts:sourceidentity": Known((NOBODY,), sample=True),
    "aws:tagkeys": Known(("team", "broker:issuance")),
    "sts:transitivetagkeys": Known(("team", "broker:issuance")),
    "aws:requesttag/team": Known(("broker-doctor",), sample=True),
    "aws:requesttag/broker:issuance": Known((PLACEHOLDER_ID,), sample=True),
}
ROLE_SESSION = {
    "aws:principaltype": Known(("AssumedRole",)),
    "aws:multifactorauthpresent": Known(("false",)),
    "aws:multifactorauthage": Known(()),
}


def test_what_aws_knows_of_a_call_by_the_brokers_own_session() -> None:
    assert known(rehearse(ROLE).call, SESSION, HUB) == {
        **ALWAYS,
        **OF_THE_CALL,
        **ROLE_SESSION,
        "aws:principalarn": Known((HUB,), sample=True),  # its path is not known
        "aws:sourceidentity": Known(()),
    }


def test_what_aws_knows_of_a_call_by_a_user() -> None:
    """Whether a second factor was shown is not among it."""
    assert known(rehearse(ROLE).call, USER, USER.arn) == {
        **ALWAYS,
        **OF_THE_CALL,
        "aws:principalarn": Known((USER.arn,)),
        "aws:principaltype": Known(("User",)),
        "aws:sourceidentity": Known(()),
    }


@pytest.mark.parametrize("identity", [SESSION, USER])
def test_what_aws_knows_of_a_call_after_a_hop(identity: CallerIdentity) -> None:
    """Whoever the broker is, the caller is the hop's session, which carries on what it has."""
    call = rehearse(replace(ROLE, via=(HOP,))).call
    assert known(call, identity, HOP) == {
        **ALWAYS,
        **ROLE_SESSION,
        "sts:externalid": Known(("e-4711",)),
        "sts:sourceidentity": Known(()),
        "aws:tagkeys": Known(()),
        "sts:transitivetagkeys": Known(()),
        "aws:principalarn": Known((HOP,)),
        "aws:sourceidentity": Known((NOBODY,), sample=True),
        "aws:principaltag/broker:issuance": Known((PLACEHOLDER_ID,), sample=True),
    }


def test_what_is_not_sent_is_known_not_to_be_there() -> None:
    keys = known(rehearse(without_external_id()).call, SESSION, HUB)
    assert keys["sts:externalid"] == Known(())
    fixed = keys_of(rehearse(ROLE).call, SESSION, HUB, frozenset())
    assert fixed["aws:requesttag/team"] == Known(("broker-doctor",))


KEYS = {
    "k:one": Known(("blue",)),
    "k:flag": Known(("true",)),
    "k:none": Known(()),
    "k:many": Known(("blue", "green")),
    "k:sample": Known(("p-000",), sample=True),
    "k:arn": Known(("arn:aws:iam::111122223333:role/hubs/Hub",)),
}


@pytest.mark.parametrize(
    ("operator", "key", "values", "outcome"),
    [
        ("StringEquals", "k:one", ["blue"], True),
        ("StringEquals", "K:One", ["blue"], True),  # keys have no case
        ("StringEquals", "k:one", ["Blue"], False),
        ("StringEquals", "k:one", ["b*"], False),
        ("StringEquals", "k:one", ["green", "blue"], True),
        ("StringEquals", "k:one", [], False),
        ("StringEqualsIgnoreCase", "k:one", ["BLUE"], True),
        ("StringEqualsIgnoreCase", "k:one", ["red"], False),
        ("StringLike", "k:one", ["b?u*"], True),
        ("StringLike", "k:one", ["g*"], False),
        ("StringNotEquals", "k:one", ["green"], True),
        ("StringNotEquals", "k:one", ["green", "blue"], False),
        ("StringNotLike", "k:one", ["b*"], False),
        ("StringNotEqualsIgnoreCase", "k:one", ["BLUE"], False),
        ("Bool", "k:flag", ["True"], True),
        ("Bool", "k:flag", ["false"], False),
        ("BoolIfExists", "k:flag", ["false"], False),
        # A key that the request does not have.
        ("StringEquals", "k:none", ["blue"], False),
        ("StringNotEquals", "k:none", ["blue"], True),
        ("StringEqualsIfExists", "k:none", ["blue"], True),
        ("ForAllValues:StringEquals", "k:none", ["blue"], True),
        ("ForAnyValue:StringEquals", "k:none", ["blue"], False),
        ("ForAnyValue:StringNotEquals", "k:none", ["blue"], False),
        ("ForAnyValue:StringEqualsIfExists", "k:none", ["blue"], True),
        ("NumericLessThan", "k:none", ["300"], False),
        ("Null", "k:none", ["true"], True),
        ("Null", "k:none", ["TRUE"], True),
        ("Null", "k:none", ["false"], False),
        ("Null", "k:one", ["false"], True),
        ("Null", "k:one", ["true"], False),
        ("Null", "k:one", ["true", "False"], True),
        # A key with several values.
        ("ForAllValues:StringEquals", "k:many", ["blue", "green"], True),
        ("ForAllValues:StringEquals", "k:many", ["blue"], False),
        ("ForAllValues:StringEqualsIfExists", "k:many", ["blue"], False),
        ("ForAnyValue:StringEquals", "k:many", ["blue"], True),
        ("ForAnyValue:StringEquals", "k:many", ["red"], False),
        ("ForAnyValue:StringNotEquals", "k:many", ["blue"], True),
        ("ForAnyValue:StringNotEquals", "k:many", ["blue", "green"], False),
        ("StringEquals", "k:many", ["blue"], True),
        ("StringNotEquals", "k:many", ["blue"], False),
        ("StringNotEquals", "k:many", ["red"], True),
        # What the broker sends is only like the sample: a pattern for it may mean all of its kind.
        ("StringLike", "k:sample", ["p-*"], True),
        ("StringLike", "k:sample", ["q-*"], None),
        ("StringNotLike", "k:sample", ["q-*"], None),
        ("StringNotLike", "k:sample", ["p-*"], False),
        # What only AWS knows.
        ("StringEquals", "k:other", ["blue"], None),
        ("Null", "k:other", ["true"], None),
        ("StringEqualsIfExists", "k:other", ["blue"], None),
        ("StringEquals", "k:one", ["${aws:username}"], None),
        ("StringEquals", "k:one", ["blue", "${aws:username}"], None),
        ("StringEquals", "k:one", ["$blue", "{blue}"], False),
        ("IpAddress", "k:one", ["10.0.0.0/8"], None),
        ("NumericLessThan", "k:one", ["300"], None),
        # Of tags the broker sends these and no others.
        ("StringEquals", "aws:RequestTag/team", ["web"], False),
        ("Null", "aws:RequestTag/team", ["true"], True),
        ("StringEquals", "aws:PrincipalTag/team", ["web"], None),
        # ARNs are compared part by part.
        ("ArnLike", "k:arn", ["*"], True),
        ("ArnLike", "k:arn", ["arn:aws:iam::111122223333:role/hubs/Hub"], True),
        ("ArnEquals", "k:arn", ["arn:aws:iam::*:role/*"], True),
        ("ArnLike", "k:arn", ["arn:*:iam::1111*:role/hubs/H?b"], True),
        ("ArnLike", "k:arn", ["arn:aws:iam:*"], True),
        ("ArnLike", "k:arn", ["arn:*"], True),
        ("ArnLike", "k:arn", ["arn:aws:s3*"], False),
        ("ArnLike", "k:arn", ["arn:*:role/hubs/Hub"], False),  # over a colon
        ("ArnLike", "k:arn", ["arn:aws:iam::111122223333"], False),
        ("ArnLike", "k:arn", ["arn:aws:iam::111122223333:role/hubs/Hub:*"], False),
        ("ArnNotLike", "k:arn", ["arn:aws:iam::999988887777:role/*"], True),
        ("ArnNotEquals", "k:arn", ["arn:aws:iam::111122223333:*"], False),
        ("ArnLike", "k:one", ["b*"], False),  # what is no ARN is like none
        ("ArnLike", "k:one", ["blue"], False),
        ("ArnLike", "k:one", ["*"], True),
    ],
)
def test_an_operator(operator: str, key: str, values: list[str], outcome: bool | None) -> None:
    assert holds(Clause(operator, key, tuple(values)), KEYS) is outcome


def test_a_colon_in_a_name_is_the_names_own() -> None:
    keys = {"k:arn": Known(("arn:aws:iam::111122223333:role/a:b:c",))}
    for value, outcome in (("arn:aws:iam::*:role/a:b:c", True), ("arn:aws:iam::*:role/a:b", False)):
        assert holds(Clause("ArnLike", "k:arn", (value,)), keys) is outcome


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("**", "", True),
        ("*", "abc", True),
        ("a", "", False),
        ("a", "a", True),
        ("a", "b", False),
        ("a", "ab", False),
        ("ab", "a", False),
        ("a*", "a", True),
        ("*a", "a", True),
        ("*a", "ba", True),
        ("*a", "ab", False),
        ("a*c", "abc", True),
        ("a*c", "abcd", False),
        ("a*b*c", "a-b-b-c-c", True),
        ("a*b*c", "a-c-b", False),
        ("*ab", "aab", True),
        ("*aab", "aaaab", True),
        ("?", "a", True),
        ("?", "", False),
        ("?", "*", True),
        ("a?", "ab", True),
        ("a?", "a", False),
        ("a?c*", "abc", True),
        ("*?", "a", True),
        ("*?", "", False),
        ("a**b", "ab", True),
        ("a*?b", "ab", False),
        ("X*X", "X", False),
    ],
)
def test_wildcards(pattern: str, value: str, matches: bool) -> None:
    assert glob(pattern, value) is matches


def test_a_policy_is_read_as_tolerantly_as_aws_does() -> None:
    """One statement or many, one name or a list, and values of any scalar type."""
    condition = {"Bool": {"k:a": True, "k:b": [False, "x"]}, "NumericLessThan": {"k:c": 7}}
    single = {
        "Effect": "Allow",
        "Principal": {"AWS": HUB, "Service": ["ec2.amazonaws.com"]},
        "Action": "sts:AssumeRole",
        "Condition": condition,
    }
    read = Statement(
        allow=True,
        actions=("sts:AssumeRole",),
        all_but_actions=False,
        principals=(HUB, "Service ec2.amazonaws.com"),
        all_but_principals=False,
        clauses=(
            Clause("Bool", "k:a", ("true",)),
            Clause("Bool", "k:b", ("false", "x")),
            Clause("NumericLessThan", "k:c", ("7",)),
        ),
    )
    assert read_trust_policy({"Statement": single}) == (read,)
    assert read_trust_policy({"Statement": [single, single]}) == (read, read)
    inverted = {"Effect": "Deny", "NotPrincipal": "*", "NotAction": ["sts:*", "s3:*"]}
    assert read_trust_policy({"Statement": inverted}) == (
        Statement(False, ("sts:*", "s3:*"), True, ("*",), True, ()),
    )
