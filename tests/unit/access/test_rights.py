from dataclasses import replace

import pytest

from broker.access.policy import EMPTY, Group, User, WorkloadRef
from broker.access.rights import (
    administered_roles,
    is_admin,
    is_auditor,
    is_delegated_admin,
    may_administer,
    written,
)
from tests.unit.access.examples import FILE, NOW, person, policy


@pytest.mark.parametrize(
    ("changes", "pinned", "admin", "auditor"),
    [
        ({}, False, False, False),
        ({}, True, True, False),
        ({"groups": frozenset({"corp/platform"})}, False, True, False),
        ({"groups": frozenset({"platform", "lab/platform"})}, False, False, False),
        ({"groups": frozenset({"corp/audit"})}, False, False, True),
        ({"user_names": frozenset({"corp/grace@example.com"})}, False, False, True),
        ({"email": "grace@example.com", "handle": "grace@example.com"}, False, False, False),
    ],
)
def test_who_administers_and_who_audits(changes, pinned, admin, auditor):
    assert is_admin(policy(), person(**changes), pinned) is admin
    assert is_auditor(policy(), person(**changes)) is auditor


def test_a_suspended_person_is_neither():
    groups = frozenset({"corp/platform", "corp/audit"})
    suspended = person(groups=groups, suspended_at=NOW)
    assert not is_admin(policy(), suspended, True)
    assert not is_auditor(policy(), suspended)


def test_without_a_policy_only_the_pinned_one_administers():
    assert is_admin(EMPTY, person(), True)
    assert not is_admin(EMPTY, person(), False)


DELEGATED = policy(
    FILE.replace(
        "[{group: corp/platform}]",
        "[{group: corp/platform}, {group: corp/analysts, accounts: [test]}, "
        "{user: p-aaaabbbbccccdddd, roles: [data-reader]}]",
    )
)


@pytest.mark.parametrize(
    ("changes", "pinned", "roles"),
    [
        ({"id": "p-eeeeffffgggghhhh"}, False, {"admin"}),
        ({"groups": frozenset()}, False, {"data-reader"}),
        ({}, False, {"admin", "data-reader"}),
        ({"groups": frozenset({"corp/platform"})}, False, {"admin", "data-reader"}),
        ({"id": "p-eeeeffffgggghhhh", "groups": frozenset()}, True, {"admin", "data-reader"}),
        ({"id": "p-eeeeffffgggghhhh", "groups": frozenset({"analysts"})}, False, set()),
        ({"suspended_at": NOW}, False, set()),
        ({"suspended_at": NOW}, True, set()),
    ],
)
def test_a_delegated_admin_administers_the_roles_of_its_entry(changes, pinned, roles):
    someone = person(**changes)
    assert administered_roles(DELEGATED, someone, pinned=pinned) == roles
    assert not may_administer(DELEGATED, someone, "no-such-role", pinned=False) or is_admin(
        DELEGATED, someone, False
    )


def test_nobody_is_pinned_unless_it_is_said():
    someone = person(id="p-eeeeffffgggghhhh", groups=frozenset())
    assert not may_administer(DELEGATED, someone, "admin")
    assert administered_roles(DELEGATED, someone) == frozenset()


def test_a_delegated_admin_is_no_admin():
    assert is_delegated_admin(DELEGATED, person())
    assert not is_delegated_admin(DELEGATED, person(suspended_at=NOW))
    assert not is_admin(DELEGATED, person(), False)
    assert not is_auditor(DELEGATED, person())


def test_a_workload_entry_means_nobody_yet():
    named = replace(EMPTY, admins=(WorkloadRef("p-aaaabbbbccccdddd", "https://ci.test"),))
    assert not is_admin(named, person(), False)


def test_subjects_as_people_read_them():
    subjects = (User("p-1"), Group("corp/sre"), WorkloadRef("deploy", "https://ci.test"))
    assert [written(one) for one in subjects] == ["user p-1", "group corp/sre", "workload deploy"]
