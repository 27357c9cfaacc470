"""Which roles AWS needs for an access policy, whom each trusts and what it may do."""

from __future__ import annotations

import pytest

from broker.errors import Conflict
from broker.issuance.aws_setup import Choices, aws_setup
from broker.issuance.rehearsal import rehearse, varying_tags
from broker.issuance.sts import CallerIdentity
from broker.issuance.trust_judgement import judge
from tests.unit.issuance.setup_examples import FAR, HUB, HUB_ARN, NEAR, arn, by_arn, entry, of

SESSION = CallerIdentity(NEAR, f"arn:aws:sts::{NEAR}:assumed-role/BrokerHub/i-0123456789")


def test_a_role_of_several_entries_lets_in_each_and_is_made_once() -> None:
    shared, gate = arn("Shared", FAR), arn("Gate")
    entries = of(
        entry("one", shared, external_id="x-1", tags={"team": "a"}, role_maximum="2h"),
        entry("two", shared, external_id="x-2", role_maximum="5h"),
        entry("three", shared, via=[gate], tags={"team": "a"}, transitive_tags=["team"]),
        entry(
            "four", arn("Other", FAR), via=[gate], tags={"stage": "b"}, transitive_tags=["stage"]
        ),
        entry("five", gate),
    )
    roles = by_arn(aws_setup(entries, HUB, Choices()))
    assert list(roles) == [HUB_ARN, gate, arn("Other", FAR), shared]
    assert roles[shared].max_session_duration == 5 * 3600
    assert roles[shared].serves == ("one", "two", "three")
    # What each entry's calls need is judged as doctor does.
    for name, role in entries.roles.items():
        for call in rehearse(role).calls:
            verdict = judge(
                roles[call.role_arn].trust,
                call,
                SESSION,
                principal=HUB_ARN if call.after is None else call.after.role_arn,
                varying=varying_tags(role),
                role_name=name,
            )
            assert verdict.judgements == (), (name, call.role_arn)
    trust = roles[shared].trust
    assert trust is not None
    statements = trust["Statement"]
    assert isinstance(statements, list)
    sids = [one["Sid"] for one in statements]
    assert len(set(sids)) == len(sids)
    # The two ids are not mixed: one entry's opens no other statement.
    ids = [one["Condition"].get("StringEquals") for one in statements]
    assert {"sts:ExternalId": "x-1"} in ids
    assert {"sts:ExternalId": "x-2"} in ids
    # Said once, though both entries need it.
    assert sum(one["Action"] == "sts:SetSourceIdentity" for one in statements) == 2


def test_what_is_named_is_made_before_in_whichever_account() -> None:
    first, second = arn("First", FAR), arn("Second")
    target = arn("Target", FAR)
    setup = aws_setup(of(entry("deep", target, via=[second, first])), HUB, Choices())
    assert [account.id for account in setup.accounts] == [NEAR, FAR]
    assert [role.name for role in setup.accounts[0].roles] == ["BrokerHub", "Second"]
    assert [role.name for role in setup.accounts[1].roles] == ["First", "Target"]
    assert setup.notes == ()
    # There and back: no order of whole accounts is enough, and that is said.
    back = aws_setup(of(entry("back", arn("Target"), via=[first])), HUB, Choices())
    (note,) = back.notes
    assert note.startswith(f"{arn('Target')} names {first}, which is made after its account")
    known = Choices(existing=frozenset({first}))
    assert aws_setup(of(entry("back", arn("Target"), via=[first])), HUB, known).notes == ()


def test_hops_in_a_ring_are_refused() -> None:
    a, b = arn("A"), arn("B")
    with pytest.raises(Conflict, match="lead to each other"):
        aws_setup(of(entry("ab", b, via=[a]), entry("ba", a, via=[b])), HUB, Choices())


def test_the_brokers_own_role_is_no_role_of_the_policy() -> None:
    for entries in (
        of(entry("self", HUB_ARN)),
        of(entry("through", arn("X"), via=[HUB_ARN])),
    ):
        with pytest.raises(Conflict, match="names the broker's own role"):
            aws_setup(entries, HUB, Choices())
    for other in (arn("brokerhub"), arn("x/BrokerHub")):
        with pytest.raises(Conflict, match="can't both exist"):
            aws_setup(of(entry("twin", other)), HUB, Choices())


def test_a_trust_policy_longer_than_aws_takes_is_said() -> None:
    tags = {f"a-rather-long-key-of-a-session-tag-{number:02}": "x" for number in range(49)}
    role = by_arn(aws_setup(of(entry("wide", arn("Wide"), tags=tags)), HUB, Choices()))[arn("Wide")]
    assert any("over the 2048 that AWS takes" in note for note in role.notes)


def test_a_policy_without_roles_needs_the_hub_alone() -> None:
    setup = aws_setup(of(), HUB, Choices(doctor=True, revocation=True))
    (account,) = setup.accounts
    (hub,) = account.roles
    assert list(hub.policies) == ["BrokerHub-never"]
    assert setup.notes == ("No role says revocable: true: the permission to revoke is left out.",)


def test_more_managed_policies_than_a_role_takes() -> None:
    entries = of(
        *(
            entry(
                f"r{number}",
                arn("Shared"),
                unscoped=False,
                managed_policies=[f"arn:aws:iam::aws:policy/P{number}-{part}" for part in range(6)],
            )
            for number in range(2)
        )
    )
    with pytest.raises(Conflict, match="attaches 10 to a role"):
        aws_setup(entries, HUB, Choices())
    kept = Choices(existing=frozenset({arn("Shared")}))
    assert by_arn(aws_setup(entries, HUB, kept))[arn("Shared")].attached == ()
