from __future__ import annotations

import pytest

from broker.access.finding import Finding, Level
from broker.access.lint import PACKED_LENGTH, lint_policy
from tests.unit.access.examples import FILE, PROVIDERS


def warnings(text: str) -> list[Finding]:
    findings = lint_policy(text, PROVIDERS)
    assert all(finding.level is Level.WARNING for finding in findings), findings
    return list(findings)


def test_a_sound_file_has_one_warning_for_its_unscoped_role():
    (finding,) = warnings(FILE)
    assert finding.as_json() == {
        "level": "warning",
        "line": 22,
        "column": 76,
        "path": "roles.admin.unscoped",
        "message": "role admin gives all that its AWS role may do",
        "instead": "narrow it with a session_policy where you can",
    }


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "45m",
            "20m",
            [
                (
                    "line 14, column 5 (roles.data-reader.default_duration): with 1200 s SDKs "
                    "renew credentials nearly all the time; write default_duration: 30m or more"
                )
            ],
        ),
        ("45m", "30m", []),
        (
            '["s3:GetObject"]',
            '"*"',
            [
                (
                    "line 17, column 73 (roles.data-reader.session_policy.Statement[0].Action): "
                    "Action * narrows next to nothing; name the actions that are needed"
                )
            ],
        ),
        (
            '["s3:GetObject"]',
            '["s3:GetObject", "IAM:*"]',
            [
                (
                    "line 17, column 73 (roles.data-reader.session_policy.Statement[0].Action): "
                    "Action IAM:* narrows next to nothing; name the actions that are needed"
                )
            ],
        ),
        (
            "Action: [",
            "NotAction: [",
            [
                (
                    "line 17, column 73 (roles.data-reader.session_policy.Statement[0].NotAction)"
                    ": Allow with NotAction allows whatever AWS adds later; name what is allowed, "
                    "or use NotAction in a Deny statement"
                )
            ],
        ),
        (
            "Resource:",
            "NotResource:",
            [
                (
                    "line 17, column 99 (roles.data-reader.session_policy.Statement[0].NotResource)"
                    ": Allow with NotResource allows whatever AWS adds later; name what is "
                    "allowed, or use NotResource in a Deny statement"
                )
            ],
        ),
        (
            "arn:aws:s3",
            "arn:aws-cn:s3",
            [
                (
                    "line 17, column 99 (roles.data-reader.session_policy.Statement[0].Resource): "
                    "a resource in partition aws-cn: the role is in aws; write arn:aws:..."
                )
            ],
        ),
        (
            "admins: [{group: corp/platform}]",
            "",
            [
                (
                    "line 1, column 1 (admins): the file names no admin: only a bootstrapped "
                    "one administers; write admins: [{group: corp/platform}]"
                )
            ],
        ),
        (
            "  - {role: admin, to: {group: sre}, mode: standing}\n",
            "",
            [
                (
                    "line 22, column 3 (roles.admin): nobody can have role admin: it has no "
                    "entitlement, and no grants; add an entitlement, or drop the role"
                )
            ],
        ),
        ("{1,40}", "+", []),
        (
            '["s3:GetObject"]',
            '["sts:*", "organizations:*", "iam:Get*", "s3:*"]',
            [
                (
                    "line 17, column 73 (roles.data-reader.session_policy.Statement[0].Action): "
                    "Action organizations:* narrows next to nothing; name the actions that are "
                    "needed"
                ),
                (
                    "line 17, column 73 (roles.data-reader.session_policy.Statement[0].Action): "
                    "Action sts:* narrows next to nothing; name the actions that are needed"
                ),
            ],
        ),
        (
            'Effect: Allow, Action: ["s3:GetObject"], Resource',
            'Effect: Deny, NotAction: "*", Resource',
            [],
        ),
        (
            'Effect: Allow, Action: ["s3:GetObject"], Resource',
            'Effect: Deny, Action: "*", Resource',
            [],
        ),
        (
            '"arn:aws:s3:::{{bucket}}/{{prefix}}/*"',
            (
                '["arn:aws:s3:::{{bucket}}/{{prefix}}/*", "arn:*:s3:::x", "*", '
                '"arn:aws-us-gov:s3:::x"]'
            ),
            [
                (
                    "line 17, column 99 (roles.data-reader.session_policy.Statement[0].Resource): "
                    "a resource in partition aws-us-gov: the role is in aws; write arn:aws:..."
                )
            ],
        ),
        (
            (
                'Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: '
                '"arn:aws:s3:::{{bucket}}/{{prefix}}/*"}]'
            ),
            (
                'Statement: {Effect: Allow, Action: "*", Resource: '
                '"arn:aws:s3:::{{bucket}}/{{prefix}}/*"}'
            ),
            [
                (
                    "line 17, column 72 (roles.data-reader.session_policy.Statement.Action): "
                    "Action * narrows next to nothing; name the actions that are needed"
                )
            ],
        ),
        (
            (
                'Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: '
                '"arn:aws:s3:::{{bucket}}/{{prefix}}/*"}]'
            ),
            (
                'Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: '
                '"arn:aws:s3:::{{bucket}}/{{prefix}}/*"}, {Effect: Allow, NotAction: "s3:*", '
                'NotResource: "arn:aws:s3:::x"}]'
            ),
            [
                (
                    "line 17, column 166 (roles.data-reader.session_policy.Statement[1].NotAction)"
                    ": Allow with NotAction allows whatever AWS adds later; name what is allowed, "
                    "or use NotAction in a Deny statement"
                ),
                (
                    "line 17, column 185 (roles.data-reader.session_policy."
                    "Statement[1].NotResource): Allow with NotResource allows whatever AWS adds "
                    "later; name what is allowed, or use NotResource in a Deny statement"
                ),
            ],
        ),
        (
            "  - {role: admin, to: {group: sre}, mode: standing}\n",
            "  - {role: data-reader, to: {group: sre}, mode: standing}\n",
            [
                (
                    "line 22, column 3 (roles.admin): nobody can have role admin: it has no "
                    "entitlement, and no grants; add an entitlement, or drop the role"
                )
            ],
        ),
        (
            (
                "  - {role: data-reader, to: {group: corp/analysts}, mode: standing, "
                "max_duration: 2h, require: {mfa_within: 8h, networks: [10.0.0.0/8, "
                '"2001:db8::/32"], hours: "Mon-Fri 08:00-20:00 Europe/Berlin", reason: true}}\n'
            ),
            "",
            [],
        ),
        (
            "unscoped: true",
            "default_duration: 1799, unscoped: true",
            [
                (
                    "line 22, column 76 (roles.admin.default_duration): with 1799 s SDKs renew "
                    "credentials nearly all the time; write default_duration: 30m or more"
                )
            ],
        ),
    ],
)
def test_advice(old, new, found):
    assert old in FILE
    said = [str(one) for one in warnings(FILE.replace(old, new))]
    assert [one for one in said if "gives all that its AWS role" not in one] == found
    assert len(said) == len(found) + 1


def test_a_file_that_is_refused_has_errors_alone():
    findings = lint_policy(FILE.replace("version: 1", "version: 2"), PROVIDERS)
    assert [(one.level, one.line) for one in findings] == [(Level.ERROR, 1)]


def with_resource(length: int, pattern: str = "[a-z0-9-]{1,40}") -> str:
    filler = "x" * length
    return FILE.replace("arn:aws:s3:::{{bucket}}", f"arn:aws:s3:::{filler}{{{{bucket}}}}").replace(
        "[a-z0-9-]{1,40}", pattern
    )


def _about_size(text: str) -> list[Finding]:
    return [one for one in lint_policy(text, PROVIDERS) if "characters" in one.message]


def test_the_longest_values_and_a_reserve_must_fit():
    # With the longest values (bucket 7, prefix 40) the policy is 288 characters long.
    assert _about_size(with_resource(0)) == []
    base = 2048 - 256 - 288
    assert _about_size(with_resource(base)) == []
    (finding,) = _about_size(with_resource(base + 1))
    assert finding.level is Level.WARNING
    assert str(finding) == (
        "line 17, column 5 (roles.data-reader.session_policy): with the longest values the "
        "session policy has 1793 characters, and callers may add 256 with --restrict; AWS "
        "takes 2048; shorten it with wildcards, or move statements to a managed policy"
    )
    # An unbounded pattern is reckoned with the longest value there is.
    (finding,) = _about_size(with_resource(base, "[a-z0-9-]+"))
    assert "has 2008 characters" in finding.message
    # So is what a login brings, and the issuance's own id.
    for name, length in (
        ("principal.handle", 64),
        ("principal.claims.team", 64),
        ("issuance.id", 40),
    ):
        text = with_resource(base + 1).replace("{{bucket}}", f"{{{{bucket}}}}{{{{{name}}}}}")
        (finding,) = _about_size(text)
        assert f"has {1793 + length} characters" in finding.message


def test_what_may_not_pack_is_warned_of():
    """AWS's packed limit is tighter than its 2048 characters, and not documented."""

    def packed(text: str) -> list[Finding]:
        return [one for one in lint_policy(text, PROVIDERS) if "packs it" in one.message]

    at_most = PACKED_LENGTH - 288
    assert packed(with_resource(at_most)) == []
    (finding,) = packed(with_resource(at_most + 1))
    assert (finding.level, finding.line) == (Level.WARNING, 17)
    assert str(finding) == (
        "line 17, column 5 (roles.data-reader.session_policy): the session policy may be "
        "898 long: AWS also packs it with the tags into a tighter limit of its own, of "
        "which a policy 736 long with 3 tags took 82 %; keep it under 897, or watch "
        "packed_policy_percent in the records"
    )
    # An unscoped role with long denials of the organization is reckoned like any other.
    denied = ", ".join(f'"svc:Action{number:03}"' for number in range(80))
    wide = FILE.replace('Action: "iam:*"', f"Action: [{denied}]")
    assert {one.path for one in packed(wide)} == {
        "roles.data-reader.session_policy",
        "roles.admin.managed_policies",
    }


def test_a_session_policy_that_never_fits_is_an_error():
    findings = lint_policy(with_resource(2000), PROVIDERS)
    (finding,) = findings
    assert finding.level is Level.ERROR
    assert str(finding) == (
        "line 17, column 5 (roles.data-reader.session_policy): the session policy has 2243 "
        "characters at least; AWS takes 2048; shorten it with wildcards, or move statements "
        "to a managed policy"
    )


def with_workload(claims: str, to: str = "deploy") -> list[str]:
    text = FILE.replace(
        "entitlements:\n",
        'workloads:\n  deploy: {issuer: "https://token.actions.githubusercontent.com",'
        ' audience: "https://broker.example.com", claims: {repository_id: "42",'
        f' repository_owner_id: "7"{claims}}}}}\nentitlements:\n'
        + (f"  - {{role: admin, to: {{workload: {to}}}, mode: standing}}\n" if to else ""),
        1,
    )
    return [f"{one.path}: {one.message}; {one.instead}" for one in warnings(text)]


def test_a_workload_that_can_have_nothing_is_pointed_out():
    (found,) = [one for one in with_workload(", ref: refs/heads/main", to="") if "deploy" in one]
    assert found == (
        "workloads.deploy: jobs of deploy are let in and can have nothing: no entitlement "
        "names it; add an entitlement to: {workload: deploy}, or drop the entry"
    )
    assert not [one for one in with_workload(", ref: refs/heads/main") if "workloads" in one]


@pytest.mark.parametrize("claims", ["", ', run_attempt: "1"', ", workflow: deploy"])
def test_a_github_entry_for_every_branch_is_pointed_out(claims: str):
    (found,) = [one for one in with_workload(claims) if "workloads" in one]
    assert found == (
        "workloads.deploy.claims: every branch and every workflow of the repository is let "
        "in: whoever may push a branch to it can write a job; add ref, environment or "
        "job_workflow_ref"
    )


@pytest.mark.parametrize(
    "claim",
    [
        "ref: refs/heads/main",
        "environment: production",
        'job_workflow_ref: "octo/repo/.github/workflows/deploy.yml@refs/heads/main"',
    ],
)
def test_a_github_entry_that_says_which_jobs_is_not(claim: str):
    assert not [one for one in with_workload(f", {claim}") if "workloads" in one]


def test_a_workload_that_administers_needs_no_role():
    (found,) = [one for one in with_workload(", ref: refs/heads/main", to="") if "deploy" in one]
    assert found
    text = FILE.replace("admins: [", "admins: [{workload: deploy}, ").replace(
        "entitlements:\n",
        "workloads:\n  deploy: {issuer: https://ci.example.com, audience: x, claims: {sub: y}}\n"
        "entitlements:\n",
    )
    assert not [one for one in warnings(text) if "workloads" in one.path]


def test_managed_policies_count_by_their_arns():
    """Beside nothing else, their place is where the size is told."""
    arn = "arn:aws:iam::aws:policy/" + "x" * 100
    arns = ", ".join(f"{arn}{number}" for number in range(8))
    text = FILE.replace("unscoped: true", f"managed_policies: [{arns}]")
    (finding,) = [one for one in warnings(text) if one.path != "roles.admin"]
    assert (finding.path, finding.line) == ("roles.admin.managed_policies", 22)
    assert "may be 1166 long" in finding.message
