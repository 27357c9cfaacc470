"""The rule of four eyes, as a table: each way to add rights to oneself, and its harmless twin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.access.four_eyes import KnownPerson, Verdict, judge
from broker.access.policy import AccessPolicy
from broker.identity.principal import Principal, PrincipalKind
from tests.unit.access.examples import FILE, NOW, person, policy

BASE = FILE.replace(
    "admins: [{group: corp/platform}]",
    "admins: [{group: corp/platform}, {group: corp/leads, accounts: [test]}]",
).replace(
    "{role: admin, to: {group: sre}, mode: standing}",
    "{role: admin, to: {group: sre}, mode: on_request, max_grant: 8h, "
    "approval: {from: {group: leads}, quorum: 2}}",
)
READER = "{role: data-reader, to: {group: corp/analysts}, mode: standing, max_duration: 2h"
REQUEST = (
    "{role: admin, to: {group: sre}, mode: on_request, max_grant: 8h, "
    "approval: {from: {group: leads}, quorum: 2}}"
)
ADMINS = "admins: [{group: corp/platform}, {group: corp/leads, accounts: [test]}]"
EVERYTHING = 'session_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*"'
POLICY_START = 'session_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action:'

# Ada applies; she is in these groups.
ADA = person(groups=frozenset({"corp/platform", "corp/analysts", "corp/sre", "corp/leads"}))
BOB = person(
    id="p-bbbbbbbbbbbbbbbb",
    subject="43",
    handle="bob@example.com",
    email="bob@example.com",
    groups=frozenset({"corp/platform"}),
)


def known(principal: Principal, *, pinned: bool = False, verified: bool = True) -> KnownPerson:
    return KnownPerson(principal, pinned, verified)


def verdict(
    after: str,
    *,
    before: str = BASE,
    people: tuple[KnownPerson, ...] = (known(ADA), known(BOB)),
    applier: Principal = ADA,
    granted: frozenset[str] = frozenset(),
) -> Verdict:
    return judge(policy(before), policy(after), applier, granted=granted, people=people)


# What is changed to what, and all the reasons; None where the applier gains nothing.
HUB = "arn:aws:iam::111122223333:role/Hub"
PARAMETERS = "role data-reader may allow more: parameters changes"
BOTH = (
    "role data-reader may allow more: may_chain changes; "
    "role data-reader may allow more: revocable changes"
)
CASES = [
    # Entitlements.
    (
        READER,
        "{role: admin, to: {group: analysts}, mode: standing}\n  - " + READER,
        "group corp/analysts gains role admin",
    ),
    (READER, "{role: admin, to: {group: others}, mode: standing}\n  - " + READER, None),
    (
        READER,
        "{role: admin, to: {user: ada@example.com}, mode: standing}\n  - " + READER,
        "user corp/ada@example.com gains role admin",
    ),
    (
        READER,
        "{role: admin, to: {user: p-aaaabbbbccccdddd}, mode: standing}\n  - " + READER,
        "user p-aaaabbbbccccdddd gains role admin",
    ),
    (READER, "{role: admin, to: {user: eve@example.com}, mode: standing}\n  - " + READER, None),
    (
        "max_duration: 2h",
        "max_duration: 3h",
        "group corp/analysts has role data-reader on wider terms",
    ),
    ("max_duration: 2h", "max_duration: 1h", None),
    (", max_duration: 2h", "", "group corp/analysts has role data-reader on wider terms"),
    # Conditions that bind.
    (", reason: true", "", "group corp/analysts has role data-reader on wider terms"),
    ("mfa_within: 8h", "mfa_within: 9h", "group corp/analysts has role data-reader on wider terms"),
    ("mfa_within: 8h", "mfa_within: 1h", None),
    ("mfa_within: 8h, ", "", "group corp/analysts has role data-reader on wider terms"),
    ('networks: [10.0.0.0/8, "2001:db8::/32"]', "networks: [10.1.0.0/16]", None),
    ('networks: [10.0.0.0/8, "2001:db8::/32"]', 'networks: ["2001:db8:1::/48"]', None),
    (
        'networks: [10.0.0.0/8, "2001:db8::/32"]',
        "networks: [8.0.0.0/6]",
        "group corp/analysts has role data-reader on wider terms",
    ),
    (
        'networks: [10.0.0.0/8, "2001:db8::/32"], ',
        "",
        "group corp/analysts has role data-reader on wider terms",
    ),
    (
        "Mon-Fri 08:00-20:00",
        "Mon-Sun 08:00-20:00",
        "group corp/analysts has role data-reader on wider terms",
    ),
    (
        'hours: "Mon-Fri 08:00-20:00 Europe/Berlin", ',
        "",
        "group corp/analysts has role data-reader on wider terms",
    ),
    # Requests.
    ("quorum: 2", "quorum: 1", "group corp/sre has role admin on wider terms"),
    ("quorum: 2", "quorum: 3", None),
    (
        ", approval: {from: {group: leads}, quorum: 2}",
        "",
        "group corp/sre has role admin on wider terms",
    ),
    ("max_grant: 8h", "max_grant: 9h", "group corp/sre has role admin on wider terms"),
    ("max_grant: 8h", "max_grant: 1h", None),
    (
        "quorum: 2}}",
        "quorum: 2}, break_glass: true}",
        "group corp/sre has role admin on wider terms",
    ),
    (
        REQUEST,
        "{role: admin, to: {group: sre}, mode: standing}",
        "group corp/sre has role admin on wider terms",
    ),
    (
        "{group: leads}, quorum",
        "{group: analysts}, quorum",
        (
            "group corp/sre has role admin on wider terms; "
            "group corp/analysts approves requests for role admin"
        ),
    ),
    (
        "{group: leads}, quorum",
        "{group: sre-leads}, quorum",
        "group corp/sre has role admin on wider terms",
    ),
    # Administration.
    (
        ADMINS,
        ADMINS[:-1] + ", {user: ada@example.com}]",
        "user corp/ada@example.com becomes an admin",
    ),
    (ADMINS, ADMINS[:-1] + ", {group: analysts}]", "group corp/analysts becomes an admin"),
    (ADMINS, ADMINS[:-1] + ", {group: others}]", None),
    (
        "accounts: [test]",
        "accounts: [test, prod]",
        "group corp/leads becomes a delegated admin, or of more",
    ),
    (
        "accounts: [test]",
        "accounts: [test], roles: [data-reader]",
        "group corp/leads becomes a delegated admin, or of more",
    ),
    ("auditors: [", "auditors: [{group: sre}, ", "group corp/sre becomes an auditor"),
    ("auditors: [", "auditors: [{group: others}, ", None),
    (
        ADMINS,
        "admins: [{user: ada@example.com}]",
        (
            "user corp/ada@example.com becomes an admin; "
            "no other admin would be left who could approve what comes next"
        ),
    ),
    (ADMINS, "admins: [{user: bob@example.com}]", None),
    # What a role that she has comes to mean.
    (
        POLICY_START,
        EVERYTHING[: len(POLICY_START) - 7] + "NotAction:",
        "role data-reader may allow more: session_policy, managed_policies or unscoped changes",
    ),
    (
        '["s3:GetObject"]',
        '["s3:*"]',
        "role data-reader may allow more: session_policy, managed_policies or unscoped changes",
    ),
    (
        "managed_policies: []",
        "managed_policies: [arn:aws:iam::aws:policy/ReadOnlyAccess]",
        "role data-reader may allow more: session_policy, managed_policies or unscoped changes",
    ),
    ("role/service/DataReader", "role/Admin", "role data-reader may allow more: role_arn changes"),
    (
        "role_maximum: 4h",
        "role_maximum: 5h",
        "role data-reader may allow more: role_maximum changes",
    ),
    ("role_maximum: 4h", "role_maximum: 3h", None),
    ("default_duration: 45m", "default_duration: 50m", None),
    (
        "allowed: [reports, logs]",
        "allowed: [reports, logs, hr]",
        "role data-reader may allow more: parameters changes",
    ),
    ("allowed: [reports, logs]", "allowed: [logs]", None),
    (
        '"[a-z0-9-]{1,40}"',
        '"[a-z0-9/-]{1,40}"',
        "role data-reader may allow more: parameters changes",
    ),
    ("default: public", "default: other", None),
    ("tags: {team:", "tags: {unit: all, team:", "role data-reader may allow more: tags changes"),
    ("revocable: true", "revocable: false", "role data-reader may allow more: revocable changes"),
    (
        "unscoped: true}",
        "unscoped: true, may_chain: true}",
        "role admin may allow more: may_chain changes",
    ),
    ("description: Read one dataset", "description: Read", None),
    ("name: Production", "name: Prod", None),
    ('external_id: "e-4711"', 'external_id: "e-4712"', None),
    ("bucket: {allowed: [reports, logs]}", "bucket: {pattern: '[a-z]+'}", PARAMETERS),
    (
        "    external_id",
        f"    via: [{HUB}]\n    external_id",
        "role data-reader may allow more: via changes",
    ),
    (
        "transitive_tags: [team]",
        "transitive_tags: []",
        "role data-reader may allow more: transitive_tags changes",
    ),
    ("revocable: true", "revocable: false\n    may_chain: true", BOTH),
    # The organization's rules.
    (
        "{maximum_duration: 8h, ",
        "{maximum_duration: 9h, ",
        "organization.maximum_duration is raised",
    ),
    ("{maximum_duration: 8h, ", "{", "organization.maximum_duration is raised"),
    ("{maximum_duration: 8h, ", "{maximum_duration: 2h, ", None),
    ('"iam:*"', '"iam:Create*"', "a statement of organization.deny is dropped or changed"),
    ("deny: [", 'deny: [{Effect: Deny, Action: "sqs:*", Resource: "*"}, ', None),
]


@pytest.mark.parametrize(("old", "new", "reason"), CASES)
def test_each_rule_refused_and_allowed(old, new, reason):
    assert old in BASE
    after = BASE.replace(old, new, 1)
    judged = verdict(after)
    if reason is None:
        assert judged.gains == ()
        assert (judged.waits, judged.self_granted) == (False, False)
        return
    assert "; ".join(judged.gains) == reason
    assert (judged.waits, judged.self_granted) == (True, False)
    assert judged.approvers == (BOB,)
    # The same by the only admin there is: applied, and recorded as what it is.
    if "no other admin" not in reason:
        alone = verdict(after, people=(known(ADA),))
        assert alone.gains == judged.gains
        assert (alone.waits, alone.self_granted) == (False, True)


def test_what_concerns_others_alone_is_applied_at_once():
    others = replace(ADA, groups=frozenset({"corp/platform"}), email=None)
    for old, new, reason in CASES:
        if reason is None or "admin" in reason or "user" in new:
            continue
        after = BASE.replace(old, new, 1)
        assert verdict(after, applier=others).gains == (), (old, new)


@pytest.mark.parametrize(
    ("second", "counts"),
    [
        (known(BOB), True),
        (known(replace(BOB, groups=frozenset()), pinned=True), True),
        (known(replace(BOB, groups=frozenset())), False),
        (known(replace(BOB, groups=frozenset({"corp/leads"}))), False),  # delegated: no admin
        (known(replace(BOB, suspended_at=NOW)), False),
        (known(replace(BOB, suspended_at=NOW), pinned=True), False),
        (known(replace(BOB, kind=PrincipalKind.WORKLOAD)), False),
        # Not by an address: names are bound, and only then mean somebody.
        (known(replace(BOB, groups=frozenset(), email="grace@example.com")), False),
    ],
)
def test_who_counts_as_another_admin(second, counts):
    judged = verdict(BASE.replace(", reason: true", ""), people=(known(ADA), second))
    assert judged.gains
    assert judged.waits is counts
    assert judged.self_granted is not counts


def test_oneself_is_not_another_admin():
    judged = verdict(BASE.replace(", reason: true", ""), people=(known(ADA, pinned=True),))
    assert judged.self_granted


def test_a_role_that_a_grant_gives_counts_as_held():
    after = BASE.replace("unscoped: true}", "unscoped: true, may_chain: true}")
    outsider = replace(ADA, groups=frozenset({"corp/platform"}))
    assert verdict(after, applier=outsider).gains == ()
    assert verdict(after, applier=outsider, granted=frozenset({"admin"})).gains
    # A role that was dropped comes back to those who hold a grant of it.
    without = without_admin_role()
    assert verdict(BASE, before=without, applier=outsider, granted=frozenset({"admin"})).gains
    assert verdict(BASE, before=without, applier=outsider).gains == ()


def without_admin_role() -> str:
    lines = BASE.splitlines(keepends=True)
    return "".join(line for line in lines if "role/Admin" not in line and REQUEST not in line)


def test_removing_the_other_admins_takes_one_of_them():
    only_me = BASE.replace(ADMINS, "admins: [{user: p-aaaabbbbccccdddd}]")
    before = BASE.replace(ADMINS, "admins: [{group: platform}, {user: p-aaaabbbbccccdddd}]")
    judged = verdict(only_me, before=before)
    assert judged.gains == ("no other admin would be left who could approve what comes next",)
    assert judged.waits
    # A pinned one stays an admin whatever the file says.
    pinned = (known(ADA), known(BOB, pinned=True))
    assert verdict(only_me, before=before, people=pinned).gains == ()
    # Named by an address that the provider vouched for, Bob is one at once; else he may never be.
    named = BASE.replace(ADMINS, "admins: [{user: p-aaaabbbbccccdddd}, {user: bob@example.com}]")
    assert verdict(named, before=before).gains == ()
    unverified = (known(ADA), known(BOB, verified=False))
    assert verdict(named, before=before, people=unverified).waits


def test_the_first_policy_of_the_only_admin_is_self_granted():
    empty = "version: 1\n"
    judged = verdict(BASE, before=empty, people=(known(ADA, pinned=True),))
    assert judged.self_granted
    assert len(judged.gains) >= 4


def test_a_workload_that_applies_may_not_widen_which_jobs_it_is():
    workloads = """\
workloads:
  deploy:
    issuer: https://token.actions.githubusercontent.com
    audience: https://broker.example.com
    claims: {repository_id: "42", repository_owner_id: "7", ref: refs/heads/main}
"""
    before = BASE.replace(ADMINS, ADMINS[:-1] + ", {workload: deploy}]") + workloads
    parsed: AccessPolicy = policy(before)
    job = person(
        id="w-aaaabbbbccccdddd",
        kind=PrincipalKind.WORKLOAD,
        subject=parsed.workloads["deploy"].subject,
        email=None,
        groups=frozenset(),
    )
    people = (known(BOB),)
    wider = before.replace("refs/heads/main", "refs/heads/other")
    judged = verdict(wider, before=before, applier=job, people=people)
    assert judged.gains == ("workload deploy changes",)
    assert judged.waits
    moved = before.replace("organization:", "# a comment\norganization:")
    assert verdict(moved, before=before, applier=job, people=people).gains == ()
    entitled = before.replace(
        READER, "{role: admin, to: {workload: deploy}, mode: standing}\n  - " + READER
    )
    assert verdict(entitled, before=before, applier=job, people=people).waits


def test_a_workload_that_applies_may_not_let_its_own_jobs_in_by_another_entry():
    """A job is let in by any entry that admits it, so a second one's rights are its own."""
    workloads = """\
workloads:
  deploy:
    issuer: https://token.actions.githubusercontent.com
    audience: https://broker.example.com
    claims: {repository_id: "42", repository_owner_id: "7", ref: refs/heads/main}
"""
    second = """\
  second:
    issuer: https://token.actions.githubusercontent.com
    audience: https://broker.example.com
    claims: {repository_id: "42", repository_owner_id: "7", environment: prod}
"""
    before = BASE.replace(ADMINS, ADMINS[:-1] + ", {workload: deploy}]") + workloads
    job = person(
        id="w-aaaabbbbccccdddd",
        kind=PrincipalKind.WORKLOAD,
        subject=policy(before).workloads["deploy"].subject,
        email=None,
        groups=frozenset(),
    )
    people = (known(BOB),)

    def entitled(text: str) -> str:
        return text.replace(
            READER, "{role: admin, to: {workload: second}, mode: standing}\n  - " + READER
        )

    judged = verdict(entitled(before + second), before=before, applier=job, people=people)
    assert judged.waits
    assert judged.gains == ("workload second gains role admin", "workload second changes")
    # It stood there already: its new right is still the job's own.
    there = before + second
    judged = verdict(entitled(there), before=there, applier=job, people=people)
    assert judged.gains == ("workload second gains role admin",)
    # Rights of another repository, and of another branch alone, are others'.
    for change in (
        ('repository_id: "42"', 'repository_id: "43"'),
        ("environment: prod", "ref: v1"),
    ):
        others = before + second.replace(*change)
        judged = verdict(entitled(others), before=before, applier=job, people=people)
        assert judged.gains == ()
    # But an entry that comes to admit the job brings all that it has.
    others = entitled(before + second.replace('repository_id: "42"', 'repository_id: "43"'))
    back = entitled(before + second)
    judged = verdict(back, before=others, applier=job, people=people)
    assert judged.gains == ("workload second changes",)
    # A person is no job.
    assert verdict(entitled(before + second), before=before, people=people).gains == ()
