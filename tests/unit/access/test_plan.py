"""What a plan tells of people: who is behind each change, and whom the new names mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from broker.access.diff import Change, diff_policies
from broker.access.four_eyes import KnownPerson
from broker.access.plan import (
    KnownPeople,
    Members,
    Named,
    generated_for,
    look_up,
    plan_json,
    plan_lines,
    user_names,
)
from broker.access.policy import EMPTY, Group, User, WorkloadRef
from tests.unit.access.examples import FILE, person, policy

ADA = Named("p-aaaabbbbccccdddd", "ada@example.com")
BOB = Named("p-bbbbbbbbbbbbbbbb", "bob@example.com")

# Everybody that a policy can name, each in one place.
NAMES = (
    FILE.replace(
        "admins: [{group: corp/platform}]",
        "admins: [{group: corp/platform}, {user: p-aaaabbbbccccdddd}, "
        "{group: corp/leads, accounts: [test]}]",
    )
    .replace(
        "{role: admin, to: {group: sre}, mode: standing}",
        "{role: admin, to: {user: Bob@example.com}, mode: on_request, "
        "approval: {from: {user: Eve@example.com}}}",
    )
    .replace(
        "  - {role: data-reader, to: {group: corp/analysts}",
        "  - {role: admin, to: {workload: deploy}, mode: standing}\n"
        "  - {role: data-reader, to: {group: corp/analysts}",
    )
    .replace(
        "entitlements:",
        "workloads:\n  deploy: {issuer: https://ci.example.com, audience: broker, "
        "claims: {sub: x}}\nentitlements:",
    )
)


def people(**members: Any) -> KnownPeople:
    return KnownPeople(
        **{"users": {}, "groups": {}, "admins": (), "granted": frozenset(), **members}
    )


@dataclass
class Reader:
    """Remembers what it was asked, and knows nobody."""

    asked: list[dict[str, object]] = field(default_factory=list)

    async def known_people(self, **asked: Any) -> KnownPeople:
        self.asked.append(asked)
        return people(admins=(KnownPerson(person(), True, True),))


async def test_everybody_of_both_policies_is_looked_up_at_once():
    reader = Reader()
    found = await look_up(reader, policy(FILE), policy(NAMES), "p-aaaabbbbccccdddd")
    assert found.admins == (KnownPerson(person(), True, True),)
    assert reader.asked == [
        {
            "users": {
                "p-aaaabbbbccccdddd",
                "corp/grace@example.com",
                "corp/bob@example.com",
                "corp/eve@example.com",
            },
            "groups": {
                "corp/platform",
                "corp/leads",
                "corp/audit",
                "corp/analysts",
                "corp/sre",  # the old policy's alone
            },
            "admins": {Group("corp/platform"), User("p-aaaabbbbccccdddd")},
            "applier": "p-aaaabbbbccccdddd",
        }
    ]


def test_names_that_are_to_be_bound():
    """Principal ids need no binding, and groups and workloads are no users."""
    assert user_names(policy(NAMES)) == {
        "corp/grace@example.com",
        "corp/bob@example.com",
        "corp/eve@example.com",
    }
    assert user_names(EMPTY) == frozenset()


def test_roles_whose_external_id_the_broker_makes():
    assert generated_for(policy(FILE)) == frozenset()
    assert generated_for(policy(FILE.replace('"e-4711"', "{generate: true}"))) == {
        "arn:aws:iam::111122223333:role/service/DataReader"
    }


def line(change: Change, **known: Any) -> str:
    (told,) = plan_lines((change,), people(**known))
    return told


RIGHT = Change("right", "admin", None, "standing", subject="user corp/ada@example.com")


@pytest.mark.parametrize(
    ("users", "told"),
    [
        ({}, "  [nobody yet: bound at their first login]"),
        ({"corp/ada@example.com": None}, "  [nobody yet: bound at their first login]"),
        ({"corp/ada@example.com": ADA}, "  [ada@example.com]"),
        # The handle is what stands there already.
        ({"corp/ada@example.com": Named("p-1", "corp/ada@example.com")}, ""),
    ],
)
def test_a_users_line_says_who_it_is(users, told):
    start = "+ user corp/ada@example.com gains role admin: standing"
    assert line(RIGHT, users=users) == start + told


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (None, "nobody known yet"),
        (Members(0, ()), "nobody known yet"),
        (Members(2, (ADA, BOB)), "2 known: ada@example.com, bob@example.com"),
        (Members(3, (ADA, BOB)), "3 known: ada@example.com, bob@example.com and 1 more"),
    ],
)
def test_a_groups_line_says_how_many_and_who(members, told):
    change = Change("right", "admin", "standing", None, subject="group corp/sre")
    known = {} if members is None else {"corp/sre": members}
    assert line(change, groups=known) == f"- group corp/sre loses role admin: standing  [{told}]"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            Change("admin", "group corp/sre", None, ""),
            "! + admin group corp/sre  [1 known: ada@example.com]",
        ),
        (
            Change("auditor", "group corp/sre", "", None),
            "! - auditor group corp/sre  [1 known: ada@example.com]",
        ),
        (
            Change("delegated_admin", "group corp/sre", "accounts a", "accounts b"),
            (
                "! ~ delegated admin group corp/sre: accounts a -> accounts b"
                "  [1 known: ada@example.com]"
            ),
        ),
        # What concerns no subject tells of nobody.
        (
            Change("role", "group corp/sre", "1 s", "2 s", field="max_grant"),
            "~ role group corp/sre max_grant: 1 s -> 2 s",
        ),
        (
            Change("right", "admin", None, "standing", subject="workload corp/sre"),
            "+ workload corp/sre gains role admin: standing",
        ),
    ],
)
def test_what_concerns_administration_is_marked(change, told):
    assert line(change, groups={"corp/sre": Members(1, (ADA,))}) == told


def test_a_whole_plan():
    known = people(groups={"corp/platform": Members(1, (BOB,))})
    after = policy("version: 1\nadmins: [{group: corp/platform}, {user: p-aaaabbbbccccdddd}]")
    assert plan_lines(diff_policies(EMPTY, after), known) == (
        "! + admin group corp/platform  [1 known: bob@example.com]",
        "! + admin user p-aaaabbbbccccdddd  [nobody yet: bound at their first login]",
    )


def test_its_json_says_whom_the_new_policys_names_mean():
    known = people(
        users={
            "corp/grace@example.com": None,
            "corp/bob@example.com": BOB,
            "corp/old@example.com": ADA,  # of the policy before
            "p-aaaabbbbccccdddd": ADA,  # an id needs no telling
        },
        groups={
            "corp/sre": Members(1, (ADA,)),  # of the policy before
            "corp/leads": Members(12, (ADA, BOB)),
            "corp/analysts": Members(0, ()),
        },
    )
    assert plan_json(known, policy(NAMES)) == {
        "users": [
            {"user": "corp/bob@example.com", "principal": "p-bbbbbbbbbbbbbbbb"},
            {"user": "corp/grace@example.com", "principal": "pending"},
        ],
        "groups": [
            {"group": "corp/analysts", "members": 0, "people": []},
            {
                "group": "corp/leads",
                "members": 12,
                "people": ["ada@example.com", "bob@example.com"],
            },
        ],
    }


def test_a_name_may_hold_spaces():
    change = Change("right", "admin", None, "standing", subject="group corp/site reliability")
    told = line(change, groups={"corp/site reliability": Members(1, (ADA,))})
    assert told.endswith("  [1 known: ada@example.com]")


def test_a_workload_is_nobody_to_look_up():
    parsed = policy(NAMES)
    assert WorkloadRef("deploy", "https://ci.example.com") in {
        entitlement.to for entitlement in parsed.entitlements
    }
    assert not any("deploy" in name for name in user_names(parsed))
