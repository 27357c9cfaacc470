"""The trust policies that the broker writes, and its judgement of others, held to the stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.devstack.aws import AwsStandIn, HubCredentials
from broker.devstack.aws.evaluate import Caller, CallerPolicies, Resource, evaluate
from broker.devstack.aws.grammar import Kind, parse
from broker.issuance.rehearsal import DENY_EVERYTHING, rehearse
from broker.issuance.sts import AssumeRole, CallerIdentity
from broker.issuance.trust_policy import trust_policies
from tests.devstack.asking import refusal
from tests.unit.issuance.trust_examples import (
    ACCOUNT,
    ALL,
    HUB,
    ROLE,
    SESSION,
    document,
    judged,
    statement,
    without_external_id,
)

Client = Callable[..., Any]
HOP = "arn:aws:iam::444455556666:role/Hop"


def arguments(call: AssumeRole, **changes: Any) -> dict[str, Any]:
    """The call as boto3 takes it; a change to None leaves the argument out."""
    found = {
        "RoleArn": call.role_arn,
        "RoleSessionName": call.role_session_name,
        "DurationSeconds": call.duration_seconds,
        "Policy": call.policy,
        "ExternalId": call.external_id,
        "SourceIdentity": call.source_identity,
        "Tags": [{"Key": key, "Value": value} for key, value in call.tags],
        "TransitiveTagKeys": list(call.transitive_tag_keys),
        **changes,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


@pytest.fixture(params=["role", "user"])
def hub(request: Any, standin: AwsStandIn) -> HubCredentials:
    return standin.hub_credentials(request.param)


def set_up(standin: AwsStandIn, hub: HubCredentials, role: Any = ROLE) -> None:
    identity = CallerIdentity(ACCOUNT, hub.arn)
    for written in trust_policies(rehearse(role), identity):
        assert set(written.document) == {"Version", "Statement"}
        standin.put_role(written.role_arn, json.loads(json.dumps(written.document)))


@pytest.mark.parametrize("role", [ROLE, without_external_id()], ids=["external_id", "without"])
def test_a_role_with_the_written_policy_lets_the_broker_in(
    standin: AwsStandIn, client: Client, hub: HubCredentials, role: Any
) -> None:
    set_up(standin, hub, role)
    call = rehearse(role).call
    minted = client("sts", hub).assume_role(**arguments(call))
    assert minted["SourceIdentity"] == call.source_identity
    # What is minted to try it may do nothing.
    assert call.policy == DENY_EVERYTHING
    listing = client("s3", minted["Credentials"], s3={"addressing_style": "path"}).list_buckets
    assert refusal(listing)[0] == "AccessDenied"


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"ExternalId": None}, "sts:AssumeRole"),
        ({"ExternalId": "guess"}, "sts:AssumeRole"),
        ({"SourceIdentity": None}, "sts:AssumeRole"),
        ({"SourceIdentity": "root"}, "sts:AssumeRole"),
        ({"RoleSessionName": "somebody"}, "sts:AssumeRole"),
        ({"Tags": [{"Key": "team", "Value": "web"}], "TransitiveTagKeys": []}, "sts:AssumeRole"),
        ({"foreign": {"Key": "stage", "Value": "prod"}}, "sts:TagSession"),
        ({"transitive": "stage", "foreign": {"Key": "stage", "Value": "x"}}, "sts:TagSession"),
    ],
)
def test_and_nothing_that_the_broker_does_not_ask(
    standin: AwsStandIn,
    client: Client,
    hub: HubCredentials,
    changes: dict[str, Any],
    action: str,
) -> None:
    set_up(standin, hub)
    call = rehearse(ROLE).call
    asked = arguments(call)
    foreign, transitive = changes.pop("foreign", None), changes.pop("transitive", None)
    if foreign is not None:
        changes["Tags"] = [*asked["Tags"], foreign]
    if transitive is not None:
        changes["TransitiveTagKeys"] = [*asked["TransitiveTagKeys"], transitive]
    code, message, _ = refusal(client("sts", hub).assume_role, **arguments(call, **changes))
    assert code == "AccessDenied"
    assert f"perform: {action} on" in message


def test_nor_anybody_else(standin: AwsStandIn, client: Client, hub: HubCredentials) -> None:
    set_up(standin, hub)
    asked = arguments(rehearse(ROLE).call)
    for other in (
        standin.hub_credentials("role", name="Other"),
        standin.hub_credentials("user", name="other"),
        standin.hub_credentials("role", name="BrokerHub", account_id="444455556666"),
    ):
        code, message, _ = refusal(client("sts", other).assume_role, **asked)
        assert code == "AccessDenied"
        assert "sts:AssumeRole" in message


def test_across_a_hop(standin: AwsStandIn, client: Client) -> None:
    hub = standin.hub_credentials("role")
    role = replace(ROLE, via=(HOP,))
    set_up(standin, hub, role)
    first, last = rehearse(role).calls
    # As its note says, the hop needs a policy of its own.
    identity = CallerIdentity(ACCOUNT, hub.arn)
    of_hop, of_role = trust_policies(rehearse(role), identity)
    assert of_hop.principal == HUB
    assert of_role.principal == HOP
    assert any(f"{HOP} also needs a policy" in note for note in of_role.notes)
    own = {"Effect": "Allow", "Action": ALL, "Resource": role.role_arn}
    standin.put_role(
        HOP,
        json.loads(json.dumps(of_hop.document)),
        policies={"on": {"Version": "2012-10-17", "Statement": [own]}},
    )
    passed = client("sts", hub).assume_role(**arguments(first))
    through = client("sts", passed["Credentials"])
    assert through.assume_role(**arguments(last))["Credentials"]
    assert refusal(through.assume_role, **arguments(last, ExternalId=None))[0] == "AccessDenied"
    # The role lets in who came over the hop as the broker goes, and not the hop by itself.
    bare = standin.hub_credentials("role", name="Hop", account_id="444455556666")
    assert refusal(client("sts", bare).assume_role, **arguments(last))[0] == "AccessDenied"


# The judgement and the stand-in's evaluation are written apart: where one is sure, they agree.

_TEXTS = [
    "e-4711",
    "E-4711",
    "*",
    "p-*",
    "w-*",
    "iss-*",
    "true",
    "false",
    "team",
    "broker:issuance",
    "AssumedRole",
    "broker-doctor",
    "*iss*",
]
PRINCIPALS = st.sampled_from(
    [
        HUB,
        SESSION.arn,
        "*",
        ACCOUNT,
        f"arn:aws:iam::{ACCOUNT}:root",
        f"arn:aws:iam::{ACCOUNT}:role/Other",
        "arn:aws:iam::444455556666:root",
    ]
)
CONDITIONS = st.dictionaries(
    st.sampled_from(
        [
            f"{qualifier}{operator}{suffix}"
            for qualifier in ("", "ForAllValues:", "ForAnyValue:")
            for operator in ("StringEquals", "StringNotEquals", "StringLike", "StringNotLike")
            for suffix in ("", "IfExists")
        ]
        + ["Null", "Bool", "ArnLike", "ArnNotEquals", "StringEqualsIgnoreCase"]
    ),
    st.dictionaries(
        st.sampled_from(
            [
                "sts:ExternalId",
                "sts:SourceIdentity",
                "sts:RoleSessionName",
                "sts:TransitiveTagKeys",
                "aws:TagKeys",
                "aws:RequestTag/team",
                "aws:RequestTag/broker:issuance",
                "aws:RequestTag/stage",
                "aws:PrincipalArn",
                "aws:PrincipalAccount",
                "aws:PrincipalType",
                "aws:MultiFactorAuthPresent",
                "aws:SourceIdentity",
                "aws:SecureTransport",
                "aws:PrincipalTag/team",
            ]
        ),
        st.lists(
            st.sampled_from([*_TEXTS, HUB, ACCOUNT]),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=2,
    ),
    max_size=2,
)
STATEMENTS = st.builds(
    statement,
    action=st.sampled_from([ALL, *ALL, ALL[1:], "sts:*", "*", "s3:*"]),
    principal=st.lists(PRINCIPALS, min_size=1, max_size=2),
    condition=CONDITIONS,
    effect=st.sampled_from(["Allow", "Allow", "Allow", "Deny"]),
)
EVERYTHING = parse(
    json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
        }
    )
)


def context_of(call: AssumeRole) -> dict[str, tuple[str, ...]]:
    context = {
        "aws:principalarn": (HUB,),
        "aws:principalaccount": (ACCOUNT,),
        "aws:principaltype": ("AssumedRole",),
        "aws:multifactorauthpresent": ("false",),
        "aws:securetransport": ("true",),
        "sts:externalid": (call.external_id or "",),
        "sts:sourceidentity": (call.source_identity or "",),
        "sts:rolesessionname": (call.role_session_name,),
        "sts:transitivetagkeys": call.transitive_tag_keys,
        "aws:tagkeys": tuple(key for key, _ in call.tags),
    }
    return context | {f"aws:requesttag/{key}": (value,) for key, value in call.tags}


@given(st.lists(STATEMENTS, min_size=1, max_size=3))
def test_where_the_judgement_is_sure_the_stand_in_agrees(statements: list[dict[str, Any]]) -> None:
    trust = document(*statements)
    call = rehearse(ROLE).call
    target = Resource(
        call.role_arn, ACCOUNT, parse(json.dumps(trust), Kind.TRUST), policy_decides=True
    )
    caller = Caller(SESSION.arn, ACCOUNT, HUB)
    allowed = all(
        evaluate(action, target, caller, CallerPolicies((EVERYTHING,)), context_of(call)).allowed
        for action in ALL
    )
    verdict = judged(trust)
    refused = [j for j in verdict.judgements if j.level == "fail" and "anybody" not in j.message]
    if refused:
        assert not allowed, refused
    elif verdict.open == ("the broker's own policies",):
        assert allowed
