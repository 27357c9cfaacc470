"""The trust policy that is written for a role: whole, for each call on the way to it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from broker.errors import Conflict
from broker.issuance.rehearsal import rehearse
from broker.issuance.sts import CallerIdentity
from broker.issuance.trust_policy import (
    TrustPolicy,
    length_note,
    principal_behind,
    trust_policies,
    trust_policies_for,
    united,
)
from tests.unit.issuance.trust_examples import (
    ACCOUNT,
    HUB,
    ROLE,
    SESSION,
    USER,
    document,
    without_external_id,
)

HOP = f"arn:aws:iam::{ACCOUNT}:role/Hop"
OWN_POLICY = (
    "{} also needs a policy of its own that allows sts:AssumeRole, sts:TagSession, "
    "sts:SetSourceIdentity on {}."
)
PATH = (
    "If the broker's role has a path, write it: {arn} stands for what "
    "`aws iam get-role --role-name {name} --query Role.Arn` prints. AWS does not show the path "
    "to the role's own sessions."
)


def allowed(sid: str, principal: str, action: str, condition: object) -> dict[str, object]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": action,
        "Condition": condition,
    }


def direct(principal: str = HUB, **external_id: object) -> dict[str, object]:
    """For calls with the broker's own credentials."""
    who, issuance = (
        {"sts:SourceIdentity": ["p-*", "w-*"]},
        {"aws:RequestTag/broker:issuance": "iss-*"},
    )
    tags = {
        "StringLike": issuance,
        "ForAllValues:StringEquals": {
            "aws:TagKeys": ["team", "broker:issuance"],
            "sts:TransitiveTagKeys": ["team", "broker:issuance"],
        },
    }
    form = {"StringLike": {**who, "sts:RoleSessionName": "*-iss-*", **issuance}, **external_id}
    return document(
        allowed("BrokerAssumeRole", principal, "sts:AssumeRole", form),
        allowed("BrokerTagSession", principal, "sts:TagSession", tags),
        allowed("BrokerSetSourceIdentity", principal, "sts:SetSourceIdentity", {"StringLike": who}),
    )


def after_hop() -> dict[str, object]:
    """For calls with a hop's: what its session carries on is the principal's, not the request's."""
    who = {"aws:SourceIdentity": ["p-*", "w-*"]}
    issuance = {"aws:PrincipalTag/broker:issuance": "iss-*"}
    form = {
        "StringLike": {**who, "sts:RoleSessionName": "*-iss-*", **issuance},
        "StringEquals": {"sts:ExternalId": "e-4711"},
    }
    return document(
        allowed("BrokerAssumeRole", HOP, "sts:AssumeRole", form),
        allowed("BrokerTagSession", HOP, "sts:TagSession", {"StringLike": issuance}),
        allowed("BrokerSetSourceIdentity", HOP, "sts:SetSourceIdentity", {"StringLike": who}),
    )


def test_for_a_direct_call() -> None:
    path = PATH.format(arn=HUB, name="BrokerHub")
    made = trust_policies(rehearse(ROLE), SESSION)
    own = OWN_POLICY.format(HUB, ROLE.role_arn)
    external_id = {"sts:ExternalId": "e-4711"}
    whole = direct(StringEquals=external_id)
    assert made == (TrustPolicy(ROLE.role_arn, HUB, whole, (path, own)),)
    assert made[0].as_json() == {
        "role_arn": ROLE.role_arn,
        "principal": HUB,
        "policy": whole,
        "notes": [path, own],
    }
    [without] = trust_policies_for(rehearse(without_external_id()), HUB)
    assert without == TrustPolicy(ROLE.role_arn, HUB, direct(), (own,))


def test_for_every_role_on_the_way() -> None:
    first, last = trust_policies(rehearse(replace(ROLE, via=(HOP,))), SESSION)
    path = PATH.format(arn=HUB, name="BrokerHub")
    assert first == TrustPolicy(HOP, HUB, direct(), (path, OWN_POLICY.format(HUB, HOP)))
    # The path of the hop is known: its ARN is the access policy's.
    own = OWN_POLICY.format(HOP, ROLE.role_arn)
    assert last == TrustPolicy(ROLE.role_arn, HOP, after_hop(), (own,))


@pytest.mark.parametrize(
    ("arn", "principal", "notes"),
    [
        (SESSION.arn, HUB, (PATH.format(arn=HUB, name="BrokerHub"),)),
        (USER.arn, USER.arn, ()),
        (
            "arn:aws-us-gov:sts::999988887777:assumed-role/Hub/a/b",
            "arn:aws-us-gov:iam::999988887777:role/Hub",
            (PATH.format(arn="arn:aws-us-gov:iam::999988887777:role/Hub", name="Hub"),),
        ),
    ],
)
def test_who_is_behind_the_brokers_credentials(
    arn: str, principal: str, notes: tuple[str, ...]
) -> None:
    assert principal_behind(CallerIdentity(ACCOUNT, arn)) == (principal, notes)


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::{ACCOUNT}:root",
        f"arn:aws:sts::{ACCOUNT}:federated-user/x",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/Hub",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/Hub/",
    ],
)
def test_an_identity_that_can_assume_no_role(arn: str) -> None:
    with pytest.raises(Conflict) as caught:
        principal_behind(CallerIdentity(ACCOUNT, arn))
    assert caught.value.detail == (
        f"The broker is {arn} at AWS, which can assume no role: run it as an IAM role."
    )


def test_a_role_on_several_ways_has_every_statement_once_and_no_name_twice() -> None:
    one, two, three = ({"Sid": "Broker", "Effect": "Allow", "Action": str(n)} for n in range(3))
    other = {"Sid": "Other", "Effect": "Allow", "Action": "3"}
    again = {**one, "Sid": "Again"}
    assert united([document(one, other), document(two, again), document(three)]) == {
        "Version": "2012-10-17",
        "Statement": [one, other, {**two, "Sid": "Broker2"}, {**three, "Sid": "Broker3"}],
    }
    assert united([]) == {"Version": "2012-10-17", "Statement": []}
    with pytest.raises(TypeError, match=r"^the broker writes statements as a list$"):
        united([{"Statement": one}])


def test_beside_the_other_entries_that_mean_the_same_role() -> None:
    mine = TrustPolicy(HUB, "me", document({"Sid": "A", "Action": "1"}), ("note",))
    same = TrustPolicy(HUB, "you", document({"Sid": "A", "Action": "2"}))
    elsewhere = TrustPolicy(HOP, "you", document({"Sid": "A", "Action": "3"}))
    both = document({"Sid": "A", "Action": "1"}, {"Sid": "A2", "Action": "2"})
    assert mine.beside([mine, elsewhere, same]) == replace(mine, document=both)
    assert mine.beside([]) == mine


def test_a_document_longer_than_aws_takes_is_noted_with_its_size() -> None:
    def padded(size: int) -> dict[str, object]:
        bare = len(json.dumps(document({"Sid": ""}), separators=(",", ":")))
        return document({"Sid": "x" * (size - bare)})

    assert length_note(padded(2048)) == ()
    note = (
        "It has 2049 characters, over the 2048 that AWS takes unless the account's quota is "
        "raised: leave tags out of the role in the access policy."
    )
    assert length_note(padded(2049)) == (note,)
    assert TrustPolicy(HUB, "me", padded(2049), ("first",)).as_json()["notes"] == ["first", note]
