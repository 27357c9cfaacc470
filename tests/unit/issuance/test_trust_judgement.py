"""What is read from a role's trust policy: whom it lets in, and what is missing for the broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.rehearsal import rehearse
from broker.issuance.trust_judgement import Level, Verdict
from tests.unit.issuance.trust_examples import (
    ACCOUNT,
    ALL,
    ELSEWHERE,
    EXTERNAL_ID,
    HUB,
    PASTE,
    ROLE,
    SESSION,
    USER,
    document,
    good,
    judged,
    statement,
    with_external_id,
    without_external_id,
    written,
)


def only(verdict: Verdict) -> tuple[str, str, str | None]:
    [judgement] = verdict.judgements
    return judgement.level.value, judgement.message, judgement.cure


@pytest.mark.parametrize("identity", [SESSION, USER, ELSEWHERE], ids=["session", "user", "far"])
def test_the_policy_that_the_broker_writes_is_good(identity):
    verdict = judged(written(identity), identity)
    assert verdict.judgements == ()
    # Elsewhere, and along a chain, the caller's own policies count too.
    assert verdict.open == (() if identity is USER else ("the broker's own policies",))


@pytest.mark.parametrize(
    "principal",
    [
        HUB,
        f"arn:aws:iam::{ACCOUNT}:role/team/eu/BrokerHub",  # with its path, as IAM wants it
        ["arn:aws:iam::444455556666:root", HUB],
        {"Service": "ec2.amazonaws.com", "AWS": HUB},
    ],
)
def test_an_exact_principal(principal):
    assert judged(good(principal)).judgements == ()


@pytest.mark.parametrize(
    ("principal", "said"),
    [
        ("arn:aws:iam::111122223333:role/Other", "it names arn:aws:iam::111122223333:role/Other"),
        ("arn:aws:iam::111122223333:role/brokerhub", "it names"),  # names of roles have a case
        ("arn:aws:iam::444455556666:role/BrokerHub", "it names"),
        ("arn:aws-cn:iam::111122223333:role/BrokerHub", "it names"),
        ("arn:aws:iam::111122223333:user/BrokerHub", "it names"),
        ("arn:aws:iam::444455556666:root", "it names"),
        ("444455556666", "it names"),
        ("arn:aws:sts::111122223333:assumed-role/BrokerHub/i-other", "it names"),
        ({"Service": "ec2.amazonaws.com"}, "it names Service ec2.amazonaws.com"),
        ("AROAEXAMPLEEXAMPLE01", "AROAEXAMPLEEXAMPLE01 stands for a principal that was deleted"),
    ],
)
def test_another_principal(principal, said):
    level, message, cure = only(judged(good(principal)))
    assert level == "fail"
    assert message.startswith(f"the trust policy does not name the broker, {HUB}")
    assert said in message
    assert cure == PASTE


@pytest.mark.parametrize("principal", [f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT])
def test_a_whole_account_is_warned_of_and_left_open(principal):
    for identity in (SESSION, USER):
        verdict = judged(good(principal), identity)
        level, message, cure = only(verdict)
        assert level == "warn"
        assert f"the whole account {ACCOUNT}" in message
        assert cure is not None
        assert cure.startswith("name the broker as the principal: arn:aws:iam::")
        assert "the broker's own policies" in verdict.open


def test_one_session_is_warned_of():
    level, message, cure = only(judged(good(SESSION.arn)))
    assert level == "warn"
    assert "present session alone" in message
    assert cure == f"name the role behind it: {HUB}"


@pytest.mark.parametrize(
    ("members", "level"),
    [
        ({"principal": "*"}, "fail"),
        ({"principal": {"AWS": ["*"]}}, "fail"),
        ({"Principal": "*"}, "fail"),
        ({"Principal": ..., "NotPrincipal": {"AWS": "arn:aws:iam::444455556666:root"}}, "fail"),
        ({"principal": "*", "action": "*"}, "fail"),
        ({"principal": "*", "action": "sts:*"}, "fail"),
        ({"principal": "*", "action": ..., "NotAction": "s3:*"}, "fail"),
        # Conditions that shut nobody out.
        ({"principal": "*", "condition": {"Bool": {"aws:SecureTransport": "true"}}}, "fail"),
        ({"principal": "*", "condition": {"StringLike": {"aws:PrincipalArn": "*"}}}, "fail"),
        ({"principal": "*", "condition": {"Null": {"sts:ExternalId": "false"}}}, "fail"),
        (
            {
                "principal": "*",
                "condition": {"StringNotEquals": {"aws:PrincipalAccount": "444455556666"}},
            },
            "fail",
        ),
        (
            {
                "principal": "*",
                "condition": {"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}},
            },
            "fail",
        ),
        (
            {
                "principal": "*",
                "condition": {"ForAllValues:StringEquals": {"aws:PrincipalOrgPaths": ["o-1/*"]}},
            },
            "fail",
        ),
        # Conditions that do.
        ({"principal": "*", "condition": {"ArnEquals": {"aws:PrincipalArn": HUB}}}, "warn"),
        ({"principal": "*", "condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, "warn"),
        ({"principal": "*", "condition": EXTERNAL_ID}, "warn"),
    ],
)
def test_everybody(members, level):
    """Beside a statement that is right, so that nothing else is at fault."""
    verdict = judged(document(*good()["Statement"], statement(**members)))
    found = verdict.judgements[0]
    assert found.level.value == level
    if level == "fail":
        assert found.message.startswith("the trust policy lets anybody in, of any AWS account")
        assert found.cure == PASTE
    else:
        assert "limited only by" in found.message
        assert found.cure == f"name the broker as the principal: {HUB}"


def test_everybody_may_tag_is_no_way_in():
    assert judged(document(*good()["Statement"], statement(ALL[1:], "*"))).judgements == ()


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"StringEquals": {"sts:ExternalId": "guess"}}, "another ExternalId"),
        ({"StringEquals": {"sts:ExternalId": ["a", "b"]}}, "another ExternalId"),
        ({"StringEquals": {"STS:EXTERNALID": "guess"}}, "another ExternalId"),
        ({"StringEquals": {"sts:ExternalId": "E-4711"}}, "another ExternalId"),
        ({"StringLike": {"sts:ExternalId": "e-48*"}}, "another ExternalId"),
    ],
)
def test_another_external_id(condition, said):
    trust = document(statement("sts:AssumeRole", HUB, condition), statement(ALL[1:]))
    level, message, cure = only(judged(trust))
    assert level == "fail"
    assert said in message
    assert "external_id" in (cure or "")
    # Half a secret: neither one is repeated.
    assert not any(text in message + (cure or "") for text in ("e-4711", "guess"))


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"sts:ExternalId": ["x", "e-4711"]}},
        {"StringLike": {"sts:ExternalId": "e-*"}},
        {"StringEqualsIgnoreCase": {"sts:ExternalId": "E-4711"}},
    ],
)
def test_the_external_id_in_other_words(condition):
    trust = document(statement("sts:AssumeRole", HUB, condition), statement(ALL[1:]))
    assert judged(trust).judgements == ()


def test_an_external_id_that_is_not_asked_for():
    for condition in (None, {"StringEqualsIfExists": {"sts:ExternalId": "e-4711"}}):
        level, message, cure = only(judged(document(statement(condition=condition))))
        assert (level, cure) == ("warn", PASTE)
        assert "does not ask for the ExternalId" in message


def test_an_external_id_that_the_access_policy_lacks():
    level, message, cure = only(judged(good(), role=without_external_id()))
    assert level == "fail"
    assert "asks for an ExternalId, and the access policy has none" in message
    assert (cure or "").startswith("write the trust policy's as the role's external_id")
    assert judged(document(statement()), role=without_external_id()).judgements == ()


@pytest.mark.parametrize("missing", ALL[1:])
def test_each_of_the_two_other_actions(missing):
    kept = [action for action in ALL if action != missing]
    level, message, cure = only(judged(document(statement(kept, HUB, EXTERNAL_ID))))
    assert (level, cure) == ("fail", PASTE)
    assert message == f"the trust policy does not allow {missing} to the broker"


def test_the_actions_in_other_words():
    for action in ("sts:*", "*", "STS:assumerole", "sts:?ssumeRole"):
        trust = document(statement(action, HUB, EXTERNAL_ID), statement(ALL[1:]))
        assert judged(trust).judgements == ()
    everything_else = statement(..., HUB, EXTERNAL_ID, NotAction="sts:GetCallerIdentity")
    assert judged(document(everything_else)).judgements == ()


@pytest.mark.parametrize(
    ("action", "condition", "named"),
    [
        ("sts:AssumeRole", {"Bool": {"aws:MultiFactorAuthPresent": "true"}}, "Bool aws:MultiF"),
        (
            "sts:AssumeRole",
            {"NumericLessThan": {"aws:MultiFactorAuthAge": "300"}},
            "aws:MultiFactorAuthAge",
        ),
        ("sts:AssumeRole", {"StringEquals": {"aws:PrincipalType": "User"}}, "aws:PrincipalType"),
        ("sts:AssumeRole", {"Null": {"sts:SourceIdentity": "true"}}, "Null sts:SourceIdentity"),
        ("sts:AssumeRole", {"StringNotLike": {"sts:RoleSessionName": "*-iss-*"}}, "StringNotLike"),
        ("sts:TagSession", {"Null": {"aws:RequestTag/project": "false"}}, "aws:RequestTag/project"),
        (
            "sts:TagSession",
            {"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}},
            "aws:TagKeys",
        ),
        (
            "sts:TagSession",
            {"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["team"]}},
            "sts:TransitiveTagKeys",
        ),
        ("sts:SetSourceIdentity", {"Null": {"sts:SourceIdentity": "true"}}, "sts:SourceIdentity"),
    ],
)
def test_a_condition_that_the_broker_does_not_meet(action, condition, named):
    others = [statement(other, HUB, EXTERNAL_ID) for other in ALL if other != action]
    level, message, cure = only(
        judged(document(*others, statement(action, HUB, with_external_id(condition))))
    )
    assert level == "fail"
    assert named in message
    assert f"on {action} refuses the broker" in message
    assert cure == f"drop it, or {PASTE}"


@pytest.mark.parametrize(
    ("condition", "open_question"),
    [
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "IpAddress aws:SourceIp"),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}, "StringEquals aws:PrincipalOrgID"),
        ({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}, "DateLessThan"),
        # What the broker sends varies from person to person.
        ({"StringLike": {"sts:SourceIdentity": "alice*"}}, "StringLike sts:SourceIdentity"),
        ({"StringEquals": {"aws:RequestTag/team": ["web", "ops"]}}, "aws:RequestTag/team"),
        ({"StringEquals": {"sts:RoleSessionName": "${aws:username}"}}, "sts:RoleSessionName"),
        ({"StringEquals": {"aws:PrincipalTag/stage": "prod"}}, "aws:PrincipalTag/stage"),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/hubs/*"}}, "aws:PrincipalArn"),
    ],
)
def test_what_only_aws_knows_is_open(condition, open_question):
    trust = document(
        statement("sts:AssumeRole", HUB, with_external_id(condition)), *good()["Statement"][1:]
    )
    verdict = judged(trust)
    assert verdict.judgements == ()
    assert not verdict.refused
    assert open_question in verdict.open[0]
    denied = judged(document(*good()["Statement"], statement(ALL[0], HUB, condition, "Deny")))
    assert denied.judgements == ()
    assert open_question in denied.open[0]


def test_a_deny_decides():
    for deny in (
        statement("sts:*", HUB, effect="Deny"),
        statement("*", "*", effect="Deny"),
        statement("sts:AssumeRole", "*", {"Null": {"aws:SourceIdentity": "true"}}, "Deny"),
        statement(
            "sts:AssumeRole",
            effect="Deny",
            Principal=...,
            NotPrincipal={"AWS": "arn:aws:iam::111122223333:role/Other"},
        ),
    ):
        verdict = judged(document(*good()["Statement"], deny))
        assert verdict.refused
        assert "a Deny statement" in verdict.judgements[0].message
    harmless = statement("sts:AssumeRole", "arn:aws:iam::111122223333:role/Other", effect="Deny")
    assert judged(document(*good()["Statement"], harmless)).judgements == ()


def test_a_pattern_that_would_take_forever_does_not():
    slow = {"StringLike": {"sts:RoleSessionName": "*a" * 3000}}
    verdict = judged(document(statement("sts:AssumeRole", HUB, slow), *good()["Statement"]))
    assert not verdict.refused


def test_after_a_hop_the_hop_is_the_principal():
    hop = f"arn:aws:iam::{ACCOUNT}:role/Hop"
    role = replace(ROLE, via=(hop,))
    first, last = rehearse(role).calls
    assert judged(written(SESSION, role), SESSION, role, last).judgements == ()
    assert judged(good(hop), SESSION, role, last).judgements == ()
    refused = judged(good(HUB), SESSION, role, last)
    assert "does not name the broker" in refused.judgements[0].message
    # The hop itself is assumed by the broker, and asked for no ExternalId.
    assert judged(document(statement()), SESSION, role, first).judgements == ()
    carried = {"StringLike": {"aws:SourceIdentity": "p-*"}}
    assert (
        judged(
            document(statement(ALL, hop, with_external_id(carried))), SESSION, role, last
        ).judgements
        == ()
    )


def test_levels_are_words() -> None:
    assert [str(level) for level in Level] == ["ok", "warn", "fail"]


def test_messages_are_one_line() -> None:
    principals: list[Any] = ["arn:aws:iam::444455556666:root"] * 50
    assert "\n" not in only(judged(good(principals)))[1]
    assert len(only(judged(good(principals)))[1]) < 400
