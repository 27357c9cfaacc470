from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from broker.access.diff import Change, diff_json, diff_lines, diff_policies
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
            (
                (
                    f"~ group corp/analysts keeps role data-reader: {TERMS}"
                    f" -> {TERMS.removesuffix(', with a reason')}"
                ),
            ),
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
            (
                (
                    '~ organization allowed_accounts: ["111122223333","444455556666"]'
                    ' -> ["111122223333","444455556666","777788889999"]'
                ),
            ),
        ),
    ],
)
def test_each_change_is_told_in_one_line(old, new, expected):
    assert old in FILE
    assert lines(FILE.replace(old, new)) == expected


def test_a_changed_session_policy_shows_both():
    (line,) = lines(FILE.replace("s3:GetObject", "s3:*"))
    assert line == (
        f"~ role data-reader session_policy: {SESSION_POLICY} -> "
        f"{SESSION_POLICY.replace('s3:GetObject', 's3:*')}"
    )
    only_managed = [arn := "arn:aws:iam::aws:policy/ReadOnlyAccess"]
    managed = FILE.replace("unscoped: true", f"managed_policies: {only_managed}")
    assert lines(managed) == (
        f'~ role admin managed_policies: [] -> ["{arn}"]',
        "~ role admin unscoped: true -> false",
    )


SESSION_POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],'
    '"Resource":"arn:aws:s3:::{{bucket}}/{{prefix}}/*"}]}'
)
EVERYTHING = (
    f"right group corp/analysts gains role data-reader: {TERMS}",
    "right group corp/sre gains role admin: standing",
    "admin group corp/platform",
    "auditor group corp/audit",
    "auditor user corp/grace@example.com",
    (
        "role admin: account 444455556666, role_arn arn:aws:iam::444455556666:role/Admin, "
        "role_maximum 3600 s, default_duration 3600 s, max_grant 0 s, unscoped true"
    ),
    (
        "role data-reader: description Read one dataset, account 111122223333, "
        "role_arn arn:aws:iam::111122223333:role/service/DataReader, external_id (not shown), "
        "role_maximum 14400 s, default_duration 2700 s, max_grant 86400 s, "
        'parameters {"bucket":{"allowed":["reports","logs"]},'
        '"prefix":{"pattern":"[a-z0-9-]{1,40}","default":"public"}}, '
        f'session_policy {SESSION_POLICY}, tags {{"team":"{{{{principal.claims.team}}}}"}}, '
        'transitive_tags ["team"], revocable true'
    ),
    "account prod: id 111122223333, name Production, region eu-west-1, partition aws",
    "account test: id 444455556666, name test, region us-east-1, partition aws",
)


def test_the_first_policy_adds_everything_and_the_last_removes_it():
    added = tuple("+ " + line.removeprefix("right ") for line in EVERYTHING)
    assert diff_lines(diff_policies(EMPTY, policy())) == (
        *added,
        "~ organization maximum_duration: none -> 28800 s",
        '~ organization allowed_accounts: none -> ["111122223333","444455556666"]',
        '~ organization deny: [] -> [{"Effect":"Deny","Action":"iam:*","Resource":"*"}]',
    )
    removed = tuple(
        "- " + line.removeprefix("right ").replace(" gains ", " loses ") for line in EVERYTHING
    )
    assert diff_lines(diff_policies(policy(), EMPTY)) == (
        *removed,
        "~ organization maximum_duration: 28800 s -> none",
        '~ organization allowed_accounts: ["111122223333","444455556666"] -> none',
        '~ organization deny: [{"Effect":"Deny","Action":"iam:*","Resource":"*"}] -> []',
    )


def test_of_several_entries_for_one_role_all_terms_are_told():
    two = FILE.replace(
        "  - {role: admin, to: {group: sre}, mode: standing}\n",
        "  - {role: admin, to: {group: sre}, mode: standing}\n"
        "  - {role: admin, to: {group: sre}, mode: on_request}\n",
    )
    assert lines(two) == ("~ group corp/sre keeps role admin: standing -> on_request; or standing",)


DELEGATED = FILE.replace(
    "[{group: corp/platform}]", "[{group: corp/platform}, {group: leads, accounts: [test, prod]}]"
)


def test_delegations_come_go_and_change():
    wider = DELEGATED.replace("[test, prod]", "[prod], roles: [data-reader, admin]")
    changes = diff_policies(policy(DELEGATED), policy(wider))
    assert diff_lines(changes) == (
        (
            "~ delegated admin group corp/leads: accounts prod, test -> "
            "accounts prod; roles admin, data-reader"
        ),
    )
    assert diff_policies(policy(wider), policy(wider)) == ()
    assert diff_json(diff_policies(policy(DELEGATED), policy())) == [
        {
            "kind": "delegated_admin",
            "change": "removed",
            "name": "group corp/leads",
            "before": "accounts prod, test",
        }
    ]
    only_roles = DELEGATED.replace("accounts: [test, prod]", "roles: [admin]")
    assert lines(only_roles) == ("+ delegated admin group corp/leads: roles admin",)


WORKLOAD = (
    "workloads:\n  deploy: {issuer: https://ci.example.com, audience: broker,\n"
    '    claims: {sub: x, ref: {glob: "v*"}}}\n'
)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("audience: broker", "audience: other", "audience: broker -> other"),
        ("ci.example.com", "ci.test", "issuer: https://ci.example.com -> https://ci.test"),
        (
            "sub: x",
            "sub: y",
            (
                'claims: {"ref":"the glob \'v*\'","sub":"\'x\'"}'
                ' -> {"ref":"the glob \'v*\'","sub":"\'y\'"}'
            ),
        ),
        ("    claims", "    max_job: 2h, claims", "max_job: 3600 s -> 7200 s"),
        ("    claims", "    reuse: true, claims", "reuse: false -> true"),
        ("    claims", "    mode: observe, claims", "observe: false -> true"),
        (
            "    claims",
            "    algorithms: [RS256], claims",
            'algorithms: ["ES256","PS256","RS256"] -> ["RS256"]',
        ),
    ],
)
def test_each_change_of_a_workload_is_told(old, new, told):
    before, after = FILE + WORKLOAD, FILE + WORKLOAD.replace(old, new)
    assert diff_lines(diff_policies(policy(before), policy(after))) == (
        f"~ workload deploy {told}",
    )


def test_a_preset_that_is_named_is_told():
    """It says nothing of the claims, and decides which of them there are."""
    ids = WORKLOAD.replace('sub: x, ref: {glob: "v*"}', 'project_id: "1", namespace_id: "2"')
    named = ids.replace("    claims", "    preset: gitlab, claims")
    assert diff_lines(diff_policies(policy(FILE + ids), policy(FILE + named))) == (
        "~ workload deploy preset: none -> gitlab",
    )


def test_a_workload_comes_and_goes():
    whole = (
        "workload deploy: issuer https://ci.example.com, audience broker, "
        'claims {"ref":"the glob \'v*\'","sub":"\'x\'"}, '
        'algorithms ["ES256","PS256","RS256"], max_job 3600 s'
    )
    assert lines(FILE + WORKLOAD) == (f"+ {whole}",)
    assert diff_lines(diff_policies(policy(FILE + WORKLOAD), policy())) == (f"- {whole}",)


@pytest.mark.parametrize(
    ("change", "sign", "line", "as_json"),
    [
        (
            Change("right", "admin", "standing", "on_request", subject="group corp/sre"),
            "~",
            "~ group corp/sre keeps role admin: standing -> on_request",
            {
                "kind": "right",
                "change": "changed",
                "name": "admin",
                "subject": "group corp/sre",
                "before": "standing",
                "after": "on_request",
            },
        ),
        (
            Change("role", "admin", "1 s", "2 s", field="max_grant"),
            "~",
            "~ role admin max_grant: 1 s -> 2 s",
            {
                "kind": "role",
                "change": "changed",
                "name": "admin",
                "field": "max_grant",
                "before": "1 s",
                "after": "2 s",
            },
        ),
        (
            Change("auditor", "group corp/sre", "", None),
            "-",
            "- auditor group corp/sre",
            {"kind": "auditor", "change": "removed", "name": "group corp/sre"},
        ),
        (
            Change("auditor", "group corp/sre", None, ""),
            "+",
            "+ auditor group corp/sre",
            {"kind": "auditor", "change": "added", "name": "group corp/sre"},
        ),
    ],
)
def test_a_change_as_a_line_and_as_json(change, sign, line, as_json):
    assert (change.sign, str(change), change.as_json()) == (sign, line, as_json)


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
