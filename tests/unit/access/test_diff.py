from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from broker.access.diff import diff_json, diff_lines, diff_policies
from broker.access.policy import EMPTY
from tests.unit.access.examples import FILE, policy


def lines(after: str) -> tuple[str, ...]:
    return diff_lines(diff_policies(policy(), policy(after)))


def test_the_same_rights_written_otherwise_are_no_difference():
    assert lines(json.dumps(yaml.safe_load(FILE))) == ()
    assert lines(FILE.replace("{group: audit}", "{group: corp/audit}").replace("8h", "480m")) == ()


STANDING = (
    "standing, at most 7200 s, second factor within 28800 s, from 10.0.0.0/8 or 2001:db8::/32"
)
TERMS = f"{STANDING}, in Mon-Fri 08:00-20:00 Europe/Berlin, with a reason"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{role: admin, to: {group: sre}, mode",
            "{role: admin, to: {group: dev}, mode",
            (
                "+ group corp/dev gains role admin: standing",
                "- group corp/sre loses role admin: standing",
            ),
        ),
        (
            ", reason: true}",
            "}",
            (f"keeps role data-reader: {TERMS} -> {TERMS.removesuffix(', with a reason')}",),
        ),
        (
            "admins: [{group: corp/platform}]",
            "admins: [{group: corp/root}]",
            ("+ admin group corp/root", "- admin group corp/platform"),
        ),
        (
            "[{group: corp/platform}]",
            "[{group: corp/platform}, {group: leads, accounts: [test, prod], roles: [admin]}]",
            ("+ delegated admin group corp/leads: accounts prod, test; roles admin",),
        ),
        (
            "sre}, mode: standing}",
            (
                "sre}, mode: on_request, max_grant: 8h, "
                "approval: {from: {group: leads}, quorum: 2}, break_glass: true}"
            ),
            (
                (
                    "~ group corp/sre keeps role admin: standing -> on_request, grants of at most "
                    "28800 s, approved by 2 of group corp/leads, or by breaking glass"
                ),
            ),
        ),
        (
            '"e-4711"',
            "{generate: true}",
            ("~ role data-reader external_id: (not shown) -> {generate: true}",),
        ),
        (
            "    external_id",
            "    via: [arn:aws:iam::999988887777:role/Hub]\n    external_id",
            ('~ role data-reader via: [] -> ["arn:aws:iam::999988887777:role/Hub"]',),
        ),
        ('{user: "Grace@example.com"}', "", ("- auditor user corp/grace@example.com",)),
        ("45m", "1h", ("~ role data-reader default_duration: 2700 s -> 3600 s",)),
        (
            "e-4711",
            "e-4712",
            ("~ role data-reader external_id: (not shown) -> (not shown)",),
        ),
        (
            '    external_id: "e-4711"\n',
            "",
            ("~ role data-reader external_id: (not shown) -> none",),
        ),
        (
            "unscoped: true}",
            "unscoped: true, may_chain: true}",
            ("~ role admin may_chain: false -> true",),
        ),
        (
            "name: Production",
            "name: Prod",
            ("~ account prod name: Production -> Prod",),
        ),
        (
            "maximum_duration: 8h",
            "maximum_duration: 4h",
            ("~ organization maximum_duration: 28800 s -> 14400 s",),
        ),
        (
            ', "444455556666"]',
            ', "444455556666", "777788889999"]',
            ('"444455556666"] -> ["111122223333","444455556666","777788889999"]',),
        ),
    ],
)
def test_each_change_is_told_in_one_line(old, new, expected):
    assert old in FILE
    told = lines(FILE.replace(old, new))
    assert len(told) == len(expected)
    for line, part in zip(told, expected, strict=True):
        assert part in line


def test_a_changed_session_policy_shows_both():
    (line,) = lines(FILE.replace("s3:GetObject", "s3:*"))
    assert line.startswith("~ role data-reader session_policy: ")
    assert '["s3:GetObject"]' in line
    assert '["s3:*"]' in line


def test_the_first_policy_adds_everything_and_the_last_removes_it():
    added = diff_policies(EMPTY, policy())
    assert diff_lines(added)[:3] == (
        f"+ group corp/analysts gains role data-reader: {TERMS}",
        "+ group corp/sre gains role admin: standing",
        "+ admin group corp/platform",
    )
    removed = diff_policies(policy(), EMPTY)
    pairs = {(change.kind, change.name, change.subject, change.field) for change in added}
    assert pairs == {(change.kind, change.name, change.subject, change.field) for change in removed}
    assert "e-4711" not in str(diff_lines(added))
    assert "e-4711" not in json.dumps(diff_json(removed))


def test_its_json_is_what_a_record_admits():
    changes = diff_json(diff_policies(EMPTY, policy()))
    assert changes[0] == {
        "kind": "right",
        "change": "added",
        "name": "data-reader",
        "subject": "group corp/analysts",
        "after": TERMS,
    }
    assert {change["change"] for change in changes} == {"added", "changed"}
    for change in changes:
        assert all(key.isascii() and isinstance(value, str) for key, value in change.items())


def test_a_generated_external_id_is_no_difference_once_it_is_made():
    text = FILE.replace('"e-4711"', "{generate: true}")
    made = policy(text)
    role = replace(made.roles["data-reader"], external_id="canary-generated")
    in_force = replace(made, roles={**made.roles, "data-reader": role})
    assert diff_policies(in_force, policy(text)) == ()
    told = diff_lines(diff_policies(in_force, policy()))
    assert "canary" not in str(told)
