"""Each role that is set up at AWS, whole: what it trusts and may do, and what is said of it."""

from __future__ import annotations

import pytest

from broker.access.policy import AccessPolicy
from broker.errors import Conflict
from broker.issuance import hub_trust, permissions
from broker.issuance.aws_setup import AccountSetup, AwsSetup, Choices, Hub, IamRole, aws_setup
from broker.issuance.rehearsal import rehearse
from broker.issuance.trust_policy import trust_policies_for
from tests.unit.issuance.setup_examples import FAR, HUB, HUB_ARN, NEAR, arn, by_arn, entry, of

GATE, READER, WRITER = arn("Gate"), arn("data/Reader"), arn("Writer", FAR)
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
PANDA = "arn:aws-cn:iam::777788889999:role/Panda"
CHINA = {"id": "777788889999", "partition": "aws-cn"}
POLICY = of(
    entry(
        "reader",
        READER,
        description="Read  one dataset",
        role_maximum="2h",
        revocable=True,
        unscoped=False,
        managed_policies=[READ_ONLY],
    ),
    entry("writer", WRITER, via=[GATE], revocable=True),
    {"panda": {"account": "cn", "role_arn": PANDA, "unscoped": True}},
    cn=CHINA,
)
SEALING = f"arn:aws:kms:eu-west-1:{NEAR}:key/1-2"
SIGNING = f"arn:aws:kms:eu-west-1:{FAR}:key/3-4"
DO_NOTHING = (
    "It may do nothing until you attach permissions: a session gets what these and its session "
    "policy both allow."
)
MANAGED = (
    "It may do what the access policy's managed_policies allow; what a session_policy allows "
    "beside them, attach yourself: a session gets what both allow."
)
MAY_NOT_WRITE = (
    "IAM lets nobody write to another account's roles: the sessions of {} are denied from within "
    "theirs, by what `broker suspend` prints."
)
MAY_WRITE = (
    "Whoever has the broker's role can write any inline policy on its account's revocable roles: "
    "IAM has no condition on what a policy says. A permissions boundary on those roles bounds it."
)


def trust(name: str, place: int, policy: AccessPolicy = POLICY) -> object:
    return trust_policies_for(rehearse(policy.roles[name]), HUB_ARN)[place].document


def test_a_whole_set_up() -> None:
    everything = Choices(revocation=True, doctor=True, sealing_key=SEALING, signing_key=SIGNING)
    hub = IamRole(
        arn=HUB_ARN,
        trust=hub_trust.ec2("aws").document,
        existing=False,
        description="The credential broker itself",
        max_session_duration=3600,
        policies={
            "BrokerHub-assume-roles": permissions.document(
                permissions.assume_statements([GATE, READER], after_hop=False)
            ),
            "BrokerHub-read-roles": permissions.document(
                permissions.reading_statements([GATE, READER])
            ),
            "BrokerHub-deny-sessions": permissions.document(
                permissions.denying_statements([READER])
            ),
            "BrokerHub-use-keys": permissions.document(
                permissions.key_statements(SEALING, SIGNING)
            ),
            "BrokerHub-never": permissions.document(permissions.never_statements([READER])),
        },
        policies_are_managed=False,
        instance_profile=True,
        notes=hub_trust.ec2("aws").notes,
    )
    gate = IamRole(
        arn=GATE,
        trust=trust("writer", 0),  # type: ignore[arg-type]
        existing=False,
        description="Passed through by the credential broker",
        max_session_duration=3600,
        policies={
            "Gate-assume-roles": permissions.document(
                permissions.assume_statements([WRITER], after_hop=True)
            )
        },
        after=(HUB_ARN,),
    )
    reader = IamRole(
        arn=READER,
        trust=trust("reader", 0),  # type: ignore[arg-type]
        existing=False,
        description="Through the credential broker as reader: Read one dataset",
        max_session_duration=7200,
        policies={},
        attached=(READ_ONLY,),
        after=(HUB_ARN,),
        serves=("reader",),
        notes=(MANAGED,),
    )
    writer = IamRole(
        arn=WRITER,
        trust=trust("writer", 1),  # type: ignore[arg-type]
        existing=False,
        description="Through the credential broker as writer",
        max_session_duration=3600,
        policies={},
        after=(GATE,),
        serves=("writer",),
        notes=(DO_NOTHING,),
    )
    assert aws_setup(POLICY, HUB, everything) == AwsSetup(
        partition="aws",
        hub_arn=HUB_ARN,
        accounts=(
            AccountSetup(NEAR, "near", (hub, gate, reader)),
            AccountSetup(FAR, "far", (writer,)),
        ),
        left_out=("panda",),
        notes=(
            MAY_NOT_WRITE.format("writer"),
            MAY_WRITE,
            "The signing key is in another account: its key policy must name the hub.",
        ),
    )


def test_what_is_not_chosen_is_not_permitted() -> None:
    setup = aws_setup(POLICY, HUB, Choices())
    assert list(by_arn(setup)[HUB_ARN].policies) == ["BrokerHub-assume-roles", "BrokerHub-never"]
    never = permissions.document(permissions.never_statements([]))
    assert by_arn(setup)[HUB_ARN].policies["BrokerHub-never"] == never
    assert setup.notes == ()
    (note,) = aws_setup(POLICY, HUB, Choices(sealing_key=SIGNING)).notes
    assert note == "The sealing key is in another account: its key policy must name the hub."


def test_a_hub_that_exists_stays_as_it_is() -> None:
    setup = aws_setup(POLICY, Hub(HUB_ARN, None), Choices())
    assert by_arn(setup)[HUB_ARN] == IamRole(
        arn=HUB_ARN,
        trust=None,
        existing=True,
        policies={
            "BrokerHub-assume-roles": permissions.document(
                permissions.assume_statements([GATE, READER], after_hop=False)
            )
        },
    )


def test_a_role_that_exists_keeps_its_permissions() -> None:
    role = by_arn(aws_setup(POLICY, HUB, Choices(existing=frozenset({READER}))))[READER]
    assert (role.existing, role.attached, role.notes) == (True, (), ())
    assert role.trust == trust("reader", 0)


def test_an_account_that_only_a_hop_is_in_has_no_name() -> None:
    hop = "arn:aws:iam::999988887777:role/Hop"
    setup = aws_setup(of(entry("one", READER, via=[hop])), HUB, Choices())
    assert [(one.id, one.name) for one in setup.accounts] == [
        (NEAR, "near"),
        ("999988887777", None),
    ]


@pytest.mark.parametrize(
    ("revocable_near", "revocable_far", "notes"),
    [
        (False, False, ["No role says revocable: true: the permission to revoke is left out."]),
        (True, False, [MAY_WRITE]),
        (
            False,
            True,
            [MAY_NOT_WRITE.format("b, c")],
        ),
    ],
)
def test_which_sessions_the_broker_can_deny_is_said(
    revocable_near: bool, revocable_far: bool, notes: list[str]
) -> None:
    entries = of(
        entry("a", READER, revocable=revocable_near),
        entry("b", WRITER, revocable=revocable_far),
        entry("c", arn("Third", FAR), revocable=revocable_far),
    )
    setup = aws_setup(entries, HUB, Choices(revocation=True))
    assert list(setup.notes) == notes
    assert ("BrokerHub-deny-sessions" in by_arn(setup)[HUB_ARN].policies) is revocable_near


@pytest.mark.parametrize(
    ("entries", "description"),
    [
        ([entry("a", READER), entry("b", READER)], "Through the credential broker as a, b"),
        (
            [
                entry("a", READER, description="One"),
                entry("b", READER),
                entry("c", READER, description="Two"),
            ],
            "Through the credential broker as a, b, c: One; Two",
        ),
        # What IAM does not take, and what CloudFormation would put a secret for.
        (
            [entry("a", READER, description="é € {{resolve:x}} {{{y")],
            "Through the credential broker as a: é ? { {resolve:x}} { { {y",
        ),
        (
            [entry("a", READER, description="x" * 480)],
            ("Through the credential broker as a: " + "x" * 480)[:500],
        ),
    ],
)
def test_a_roles_description_names_what_it_serves(
    entries: list[dict[str, object]], description: str
) -> None:
    assert by_arn(aws_setup(of(*entries), HUB, Choices()))[READER].description == description


# More than fits.


def many(count: int, account: str = NEAR, **more: object) -> AccessPolicy:
    names = [f"Role{number:03}" + "x" * 40 for number in range(count)]
    return of(*(entry(name.lower(), arn(name, account), **more) for name in names))


def test_policies_that_are_too_long_to_be_inline_are_managed_and_numbered() -> None:
    few = by_arn(aws_setup(many(20), HUB, Choices()))[HUB_ARN]
    assert (list(few.policies), few.policies_are_managed) == (
        ["BrokerHub-assume-roles", "BrokerHub-never"],
        False,
    )
    hub = by_arn(aws_setup(many(60), HUB, Choices(doctor=True)))[HUB_ARN]
    assert hub.policies_are_managed
    assert list(hub.policies) == [
        "BrokerHub-assume-roles",
        "BrokerHub-assume-roles-2",
        "BrokerHub-assume-roles-3",
        "BrokerHub-read-roles",
        "BrokerHub-never",
    ]
    for one in hub.policies.values():
        assert permissions.characters(one) <= permissions.MAX_MANAGED_CHARACTERS
    most = by_arn(aws_setup(many(198), HUB, Choices()))[HUB_ARN]
    assert len(most.policies) == 10
    with pytest.raises(Conflict) as caught:
        aws_setup(many(199), HUB, Choices())
    assert caught.value.detail == (
        f"{HUB_ARN} would need 11 policies, and AWS attaches 10 to a role: "
        "give other roles to a second broker, or behind a hop (via)"
    )


def test_a_hop_that_leads_to_very_many_has_managed_policies_too() -> None:
    gate = by_arn(aws_setup(many(60, via=[GATE]), HUB, Choices()))[GATE]
    assert gate.policies_are_managed
    assert list(gate.policies)[:2] == ["Gate-assume-roles", "Gate-assume-roles-2"]


def test_too_many_deniable_roles_to_be_excepted_by_name_are_not() -> None:
    choices = Choices(revocation=True)
    hub = by_arn(aws_setup(many(100, revocable=True), HUB, choices))[HUB_ARN]
    statements = hub.policies["BrokerHub-never"]["Statement"]
    assert statements == permissions.never_statements([READER])[:1]
    hub = by_arn(aws_setup(many(40, revocable=True), HUB, choices))[HUB_ARN]
    assert hub.policies["BrokerHub-never"]["Statement"][1]["NotResource"] == [  # type: ignore[index]
        role.role_arn for role in many(40).roles.values()
    ]
