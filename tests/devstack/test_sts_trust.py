"""Who may assume a role: trust policies, the caller's own policies, durations and chains."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from broker.devstack.aws import AwsStandIn, DemoAccount
from tests.devstack.asking import (
    ACCOUNT,
    HUB,
    HUB_SESSION,
    READ,
    STS_ACTIONS,
    TAG,
    allow,
    not_authorized,
    policy,
    refusal,
    trust,
)

Client = Callable[..., Any]


def test_a_role_that_is_not_there_looks_like_one_that_is_forbidden(
    standin: AwsStandIn, demo: DemoAccount, call: Callable[..., Any]
) -> None:
    missing = f"arn:aws:iam::{ACCOUNT}:role/Missing"
    forbidden = f"arn:aws:iam::{ACCOUNT}:role/Forbidden"
    elsewhere = "arn:aws:iam::999988887777:role/Missing"
    standin.put_role(forbidden, trust({"AWS": f"arn:aws:iam::{ACCOUNT}:role/Other"}))
    for role in (missing, forbidden, elsewhere):
        assert refusal(call, RoleArn=role) == not_authorized("sts:AssumeRole", role)


def test_the_external_id_must_be_right(demo: DemoAccount, call: Callable[..., Any]) -> None:
    for wrong in (None, "guess", demo.external_id.upper()):
        assert refusal(call, ExternalId=wrong) == not_authorized(
            "sts:AssumeRole", demo.data_reader_arn
        )


ROLE = f"arn:aws:iam::{ACCOUNT}:role/Target"


@pytest.mark.parametrize(
    ("principal", "hub_policy_allows", "allowed"),
    [
        # Naming the exact principal is enough in the same account...
        ({"AWS": HUB}, False, True),
        ({"AWS": HUB_SESSION}, False, True),
        # ...naming the account leaves it to the caller's own policies.
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, False, False),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, True, True),
        ({"AWS": ACCOUNT}, True, True),
        ({"AWS": ["arn:aws:iam::444455556666:root", HUB]}, False, True),
        ({"AWS": "arn:aws:iam::444455556666:root"}, True, False),
        ({"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/BrokerHub/other"}, True, False),
        ({"Service": "ec2.amazonaws.com"}, True, False),
        ({"AWS": "*"}, False, True),
    ],
)
def test_trust_by_principal(
    standin: AwsStandIn, client: Client, principal: Any, hub_policy_allows: bool, allowed: bool
) -> None:
    action = "sts:AssumeRole" if hub_policy_allows else "s3:GetObject"
    hub = standin.hub_credentials(policy=allow(action))
    standin.put_role(ROLE, trust(principal))
    sts = client("sts", hub)
    if allowed:
        assert sts.assume_role(RoleArn=ROLE, RoleSessionName="ada")["Credentials"]
    else:
        assert refusal(sts.assume_role, RoleArn=ROLE, RoleSessionName="ada") == not_authorized(
            "sts:AssumeRole", ROLE
        )


def test_an_explicit_deny_of_the_hub_wins(standin: AwsStandIn, client: Client) -> None:
    hub = standin.hub_credentials(
        policy=policy({"Effect": "Deny", "Action": "sts:*", "Resource": ROLE})
    )
    standin.put_role(ROLE, trust({"AWS": HUB}))
    sts = client("sts", hub)
    assert refusal(sts.assume_role, RoleArn=ROLE, RoleSessionName="ada")[0] == "AccessDenied"


def test_across_accounts_both_sides_must_allow(standin: AwsStandIn, client: Client) -> None:
    far = "arn:aws:iam::444455556666:role/team/Far"
    standin.put_role(far, trust({"AWS": HUB}))
    arguments = {"RoleArn": far, "RoleSessionName": "ada", "SourceIdentity": "p-1"}
    sts = client("sts", standin.hub_credentials())
    assert sts.assume_role(**arguments)["AssumedRoleUser"]["Arn"] == (
        "arn:aws:sts::444455556666:assumed-role/Far/ada"
    )
    nothing = allow("s3:*")
    standin.put_role(HUB, trust({"Service": "ec2.amazonaws.com"}), policies={"hub": nothing})
    assert refusal(sts.assume_role, **arguments) == not_authorized("sts:AssumeRole", far)


@pytest.mark.parametrize(
    ("condition", "arguments", "allowed"),
    [
        ({"StringLike": {"sts:RoleSessionName": "ada-*"}}, {}, True),
        ({"StringLike": {"sts:RoleSessionName": "eve-*"}}, {}, False),
        ({"StringEquals": {"sts:SourceIdentity": "p-1"}}, {"SourceIdentity": "p-1"}, True),
        ({"StringEquals": {"sts:SourceIdentity": "p-1"}}, {"SourceIdentity": "p-2"}, False),
        ({"StringEquals": {"sts:SourceIdentity": "p-1"}}, {}, False),
        ({"StringEquals": {"aws:RequestTag/team": "red"}}, {"Tags": [TAG]}, True),
        ({"StringEquals": {"aws:RequestTag/team": "blue"}}, {"Tags": [TAG]}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}, {"Tags": [TAG]}, True),
        (
            {"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}},
            {"Tags": [TAG, {"Key": "more", "Value": ""}]},
            False,
        ),
        (
            {"ForAnyValue:StringEquals": {"sts:TransitiveTagKeys": ["team"]}},
            {"Tags": [TAG], "TransitiveTagKeys": ["team"]},
            True,
        ),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {}, True),
        ({"StringEquals": {"aws:PrincipalArn": HUB}}, {}, True),
    ],
)
def test_trust_by_condition(
    standin: AwsStandIn, client: Client, condition: Any, arguments: dict[str, Any], allowed: bool
) -> None:
    sts = client("sts", standin.hub_credentials())
    standin.put_role(ROLE, trust({"AWS": HUB}, Condition=condition))

    def attempt() -> Any:
        return sts.assume_role(RoleArn=ROLE, RoleSessionName="ada-1", **arguments)

    if allowed:
        assert attempt()["Credentials"]
    else:
        assert refusal(attempt)[0] == "AccessDenied"


@pytest.mark.parametrize(
    ("action", "arguments"),
    [("sts:TagSession", {"Tags": [TAG]}), ("sts:SetSourceIdentity", {"SourceIdentity": "p-1"})],
)
def test_tags_and_source_identity_need_their_own_permission(
    standin: AwsStandIn, client: Client, action: str, arguments: dict[str, Any]
) -> None:
    sts = client("sts", standin.hub_credentials())
    others = [name for name in STS_ACTIONS if name != action]
    standin.put_role(ROLE, trust({"AWS": HUB}, others))
    assert sts.assume_role(RoleArn=ROLE, RoleSessionName="ada")["Credentials"]
    attempt = partial(sts.assume_role, RoleArn=ROLE, RoleSessionName="ada", **arguments)
    assert refusal(attempt) == not_authorized(action, ROLE)
    standin.put_role(ROLE, trust({"AWS": HUB}, [*others, action]))
    assert attempt()["Credentials"]


def test_a_chained_caller_needs_set_source_identity_in_its_own_policy(
    standin: AwsStandIn, client: Client
) -> None:
    hub = standin.hub_credentials(policy=allow("sts:AssumeRole"))
    standin.put_role(ROLE, trust({"AWS": HUB}))
    sts = client("sts", hub)
    attempt = partial(sts.assume_role, RoleArn=ROLE, RoleSessionName="ada", SourceIdentity="p-1")
    assert refusal(attempt) == not_authorized("sts:SetSourceIdentity", ROLE)


def test_durations_of_a_user_and_of_a_role_session(standin: AwsStandIn, client: Client) -> None:
    standin.put_role(ROLE, trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), 7200)
    user = client("sts", standin.hub_credentials("user"))
    longest = user.assume_role(RoleArn=ROLE, RoleSessionName="ada", DurationSeconds=7200)
    left = longest["Credentials"]["Expiration"] - datetime.now(UTC)
    assert timedelta(seconds=7190) < left <= timedelta(seconds=7200)
    assert refusal(user.assume_role, RoleArn=ROLE, RoleSessionName="ada", DurationSeconds=7201) == (
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        400,
    )
    chained = client("sts", standin.hub_credentials("role"))
    assert chained.assume_role(RoleArn=ROLE, RoleSessionName="ada", DurationSeconds=3600)[
        "Credentials"
    ]
    _, message, _ = refusal(
        chained.assume_role, RoleArn=ROLE, RoleSessionName="ada", DurationSeconds=3601
    )
    assert message == (
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role"
        " chaining."
    )


def test_root_may_not_assume_roles(standin: AwsStandIn, client: Client) -> None:
    standin.put_role(ROLE, trust({"AWS": ACCOUNT}))
    root = client("sts", standin.hub_credentials("root"))
    assert root.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert refusal(root.assume_role, RoleArn=ROLE, RoleSessionName="ada") == (
        "AccessDenied",
        "Roles may not be assumed by root accounts.",
        403,
    )


def test_caller_identity(standin: AwsStandIn, client: Client) -> None:
    user = client("sts", standin.hub_credentials("user")).get_caller_identity()
    assert user["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/BrokerHub"
    role = client("sts", standin.hub_credentials("role")).get_caller_identity()
    assert (role["Arn"], role["Account"]) == (HUB_SESSION, ACCOUNT)
    assert role["UserId"].endswith(":i-0123456789abcdef0")


class TestChains:
    """A session that assumes on: what persists, what may not be passed again."""

    SECOND = f"arn:aws:iam::{ACCOUNT}:role/Second"

    @pytest.fixture
    def second(self, standin: AwsStandIn, client: Client) -> Callable[..., Any]:
        """AssumeRole of a second role by a session that set source identity and tags."""
        everything = allow("*")
        standin.put_role(ROLE, trust({"AWS": HUB}), policies={"all": everything})
        standin.put_role(self.SECOND, trust({"AWS": ROLE}), policies={"all": everything})
        first = client("sts", standin.hub_credentials()).assume_role(
            RoleArn=ROLE,
            RoleSessionName="ada",
            SourceIdentity="p-ada",
            Tags=[{"Key": "Team", "Value": "red"}, {"Key": "once", "Value": "x"}],
            TransitiveTagKeys=["team"],
        )
        sts = client("sts", first["Credentials"])
        return lambda **more: sts.assume_role(RoleArn=self.SECOND, RoleSessionName="on", **more)

    def test_source_identity_persists(self, second: Callable[..., Any]) -> None:
        assert second()["SourceIdentity"] == "p-ada"
        assert second(SourceIdentity="p-ada")["SourceIdentity"] == "p-ada"

    def test_source_identity_cannot_change(self, second: Callable[..., Any]) -> None:
        caller = f"arn:aws:sts::{ACCOUNT}:assumed-role/Target/ada"
        assert refusal(second, SourceIdentity="p-eve") == not_authorized(
            "sts:SetSourceIdentity", self.SECOND, caller
        )

    def test_an_inherited_tag_cannot_be_passed_again(self, second: Callable[..., Any]) -> None:
        assert refusal(second, Tags=[{"Key": "TEAM", "Value": "red"}]) == (
            "InvalidParameterValue",
            (
                "One of the specified transitive tag keys can't be set because it conflicts with a"
                " transitive tag key from the calling session."
            ),
            400,
        )
        assert second(Tags=[{"Key": "once", "Value": "y"}])["Credentials"]

    def test_inherited_tags_need_tag_session(
        self, standin: AwsStandIn, second: Callable[..., Any]
    ) -> None:
        standin.put_role(
            self.SECOND, trust({"AWS": ROLE}, ["sts:AssumeRole", "sts:SetSourceIdentity"])
        )
        assert "sts:TagSession" in refusal(second)[1]

    def test_an_inherited_source_identity_needs_its_permission(
        self, standin: AwsStandIn, second: Callable[..., Any]
    ) -> None:
        standin.put_role(self.SECOND, trust({"AWS": ROLE}, ["sts:AssumeRole", "sts:TagSession"]))
        assert "sts:SetSourceIdentity" in refusal(second)[1]

    def test_transitive_tags_are_the_next_session_tags(
        self, standin: AwsStandIn, client: Client, second: Callable[..., Any]
    ) -> None:
        standin.put_bucket("tagged")
        standin.put_object("tagged", "red/x", b"1")
        standin.put_object("tagged", "x/x", b"1")
        own = policy(
            {
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": [
                    "arn:aws:s3:::tagged/${aws:PrincipalTag/team}/*",
                    "arn:aws:s3:::tagged/${aws:PrincipalTag/once}/*",
                ],
            }
        )
        standin.put_role(self.SECOND, trust({"AWS": ROLE}), policies={"own": own})
        s3 = client("s3", second()["Credentials"])
        assert s3.get_object(Bucket="tagged", Key="red/x")["Body"].read() == b"1"
        assert refusal(s3.get_object, Bucket="tagged", Key="x/x")[0] == "AccessDenied"

    def test_a_session_policy_must_allow_the_next_hop(
        self, standin: AwsStandIn, client: Client, second: Callable[..., Any]
    ) -> None:
        narrowed = client("sts", standin.hub_credentials()).assume_role(
            RoleArn=ROLE, RoleSessionName="ada", Policy=json.dumps(READ)
        )
        sts = client("sts", narrowed["Credentials"])
        attempt = partial(sts.assume_role, RoleArn=self.SECOND, RoleSessionName="on")
        assert refusal(attempt)[0] == "AccessDenied"


def test_a_host_with_transitive_tags_and_source_identity(
    standin: AwsStandIn, client: Client
) -> None:
    """As EKS Pod Identity gives them: what the broker would set itself then clashes."""
    hub = standin.hub_credentials(
        tags={"broker:issuance": "pod"}, transitive=["broker:issuance"], source_identity="pod"
    )
    standin.put_role(ROLE, trust({"AWS": HUB}))
    sts = client("sts", hub)
    tags = [{"Key": "broker:issuance", "Value": "01J"}]
    code, _, _ = refusal(sts.assume_role, RoleArn=ROLE, RoleSessionName="ada", Tags=tags)
    assert code == "InvalidParameterValue"
    code, message, _ = refusal(
        sts.assume_role, RoleArn=ROLE, RoleSessionName="ada", SourceIdentity="p-1"
    )
    assert (code, "sts:SetSourceIdentity" in message) == ("AccessDenied", True)
