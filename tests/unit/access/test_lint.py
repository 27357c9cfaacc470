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
    ("old", "new", "line", "message", "instead"),
    [
        ("45m", "20m", 14, "with 1200 s SDKs renew", "write default_duration: 30m or more"),
        ("45m", "30m", None, "", ""),
        ('["s3:GetObject"]', '"*"', 17, "Action * narrows next to nothing", "name the actions"),
        (
            '["s3:GetObject"]',
            '["s3:GetObject", "IAM:*"]',
            17,
            "Action IAM:* narrows",
            "name the act",
        ),
        ("Action: [", "NotAction: [", 17, "Allow with NotAction allows whatever", "Deny statement"),
        ("Resource:", "NotResource:", 17, "Allow with NotResource allows", "name what is allowed"),
        (
            "arn:aws:s3",
            "arn:aws-cn:s3",
            17,
            "partition aws-cn: the role is in aws",
            "write arn:aws:",
        ),
        ("admins: [{group: corp/platform}]", "", 1, "names no admin", "write admins: [{group"),
        (
            "  - {role: admin, to: {group: sre}, mode: standing}\n",
            "",
            22,
            "nobody can have role admin",
            "add an entitlement",
        ),
        ("{1,40}", "+", 17, None, None),
    ],
)
def test_advice(old, new, line, message, instead):
    assert old in FILE
    found = [
        finding for finding in warnings(FILE.replace(old, new)) if finding.line != 22 or line == 22
    ]
    if not message:
        assert found == []
        return
    (finding,) = [one for one in found if message in one.message]
    assert finding.line == line
    assert instead in finding.instead


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
    assert finding.line == 17
    assert "has 1793 characters, and callers may add 256" in finding.message
    # An unbounded pattern is reckoned with the longest value there is.
    (finding,) = _about_size(with_resource(base, "[a-z0-9-]+"))
    assert "has 2008 characters" in finding.message


def test_what_may_not_pack_is_warned_of():
    """AWS's packed limit is tighter than its 2048 characters, and not documented."""

    def packed(text: str) -> list[Finding]:
        return [one for one in lint_policy(text, PROVIDERS) if "packs it" in one.message]

    at_most = PACKED_LENGTH - 288
    assert packed(with_resource(at_most)) == []
    (finding,) = packed(with_resource(at_most + 1))
    assert (finding.level, finding.line) == (Level.WARNING, 17)
    assert f"may be {PACKED_LENGTH + 1} long" in finding.message
    assert "packed_policy_percent" in finding.instead
    # An unscoped role with long denials of the organization is reckoned like any other.
    denied = ", ".join(f'"svc:Action{number:03}"' for number in range(80))
    wide = FILE.replace('Action: "iam:*"', f"Action: [{denied}]")
    assert {one.path for one in packed(wide) if "roles.admin" in one.path}


def test_a_session_policy_that_never_fits_is_an_error():
    findings = lint_policy(with_resource(2000), PROVIDERS)
    (finding,) = findings
    assert finding.level is Level.ERROR
    assert "characters at least; AWS takes 2048" in finding.message


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
    assert "workloads.deploy: jobs of deploy are let in and can have nothing" in found
    assert "to: {workload: deploy}" in found
    assert not [one for one in with_workload(", ref: refs/heads/main") if "workloads" in one]


@pytest.mark.parametrize("claims", ["", ', run_attempt: "1"', ", workflow: deploy"])
def test_a_github_entry_for_every_branch_is_pointed_out(claims: str):
    (found,) = [one for one in with_workload(claims) if "workloads" in one]
    assert "workloads.deploy.claims: every branch and every workflow" in found
    assert "add ref, environment or job_workflow_ref" in found


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
