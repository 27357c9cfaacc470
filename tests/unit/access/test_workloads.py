"""CI workloads in the access policy: what an entry means, and every unsafe one refused."""

from __future__ import annotations

import pytest

from broker.access.diff import diff_lines, diff_policies
from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from broker.access.policy import EMPTY, AccessPolicy, WorkloadRef
from broker.access.rights import is_admin, means
from broker.identity.job import Job
from broker.identity.presets import GITHUB, GITLAB, KUBERNETES
from broker.identity.principal import PrincipalKind

GITHUB_CLAIMS = 'repository_id: "42", repository_owner_id: "7", ref: refs/heads/main'
FILE = """\
version: 1
accounts: {{prod: {{id: "111122223333"}}}}
admins: [{{group: corp/platform}}{admin}]
roles:
  reader: {{account: prod, role_arn: "arn:aws:iam::111122223333:role/R", unscoped: true}}
workloads:
  deploy: {entry}
entitlements:
  - {{role: reader, to: {{workload: deploy}}, mode: standing, max_duration: 1h{more}}}
"""


def entry(
    claims: str = GITHUB_CLAIMS,
    *,
    issuer: str = "https://token.actions.githubusercontent.com",
    audience: str = "https://broker.example.com",
    more: str = "",
) -> str:
    return f'{{issuer: "{issuer}", audience: "{audience}", claims: {{{claims}}}{more}}}'


def parsed(text: str, *, admin: str = "", more: str = "") -> AccessPolicy:
    file = FILE.format(entry=text, admin=admin, more=more)
    return parse_policy(file, providers=frozenset({"corp"}))


def refusal(text: str, **parts: str) -> str:
    with pytest.raises(PolicyRefused) as refused:
        parsed(text, **parts)
    return str(refused.value)


def test_an_entry_as_the_documentation_writes_it() -> None:
    workload = parsed(entry()).workloads["deploy"]
    assert workload.preset is GITHUB
    assert workload.max_job == 3600
    assert workload.algorithms == {"RS256", "ES256", "PS256"}
    assert not workload.reuse
    assert not workload.observe


def test_all_that_an_entry_may_say() -> None:
    more = ", max_job: 6h, reuse: true, mode: observe, algorithms: [RS256], preset: gitlab"
    claims = (
        'project_id: "1", namespace_id: "2", ref: {glob: "release/*"}, runner_id: 12,'
        " environment: {any_of: [production, staging]}, pipeline_source: {any_of: [push, web]},"
        ' job_id: {re2: "[0-9]+"}'
    )
    text = entry(claims, issuer="https://gitlab.example.com", more=more)
    workload = parsed(text).workloads["deploy"]
    assert workload.preset is GITLAB
    assert workload.lifetime == 86400
    assert (workload.max_job, workload.reuse, workload.observe) == (21600, True, True)
    assert workload.algorithms == {"RS256"}


@pytest.mark.parametrize(
    "claims",
    [
        'kubernetes.io: {namespace: prod, serviceaccount: {name: deploy, uid: "u-1"}}',
        (
            "kubernetes.io/namespace: prod, kubernetes.io/serviceaccount/name: deploy,"
            ' kubernetes.io/serviceaccount/uid: "u-1"'
        ),
    ],
)
def test_kubernetes_claims_stand_as_in_the_token_or_by_their_path(claims: str) -> None:
    text = entry(claims, issuer="https://k8s.example.com", more=", preset: kubernetes")
    workload = parsed(text).workloads["deploy"]
    assert workload.preset is KUBERNETES
    assert set(workload.claims) == {
        "kubernetes.io/namespace",
        "kubernetes.io/serviceaccount/name",
        "kubernetes.io/serviceaccount/uid",
    }


IDS = 'repository_id: "42", repository_owner_id: "7"'


@pytest.mark.parametrize(
    ("text", "message", "instead"),
    [
        (entry('repository_owner_id: "7"'), "the project is not pinned", "repository_id"),
        (entry('repository_id: "42"'), "the owner is not pinned", "repository_owner_id"),
        (entry("repository: octo/repo, ref: main"), "not pinned", "repository_owner_id"),
        (entry('sub: "repo:octo/repo:ref:refs/heads/main"'), "sub alone", "repository_id"),
        (entry(""), "no claim is asked for", "repository_id"),
        (
            entry('repository_id: "42", repository_owner_id: {re2: "[0-9]+"}'),
            "the owner is not pinned",
            "repository_owner_id",
        ),
        (entry(f'{IDS}, repository: {{glob: "*/infra"}}'), "another organization's", "leave it"),
        (entry(f'{IDS}, repository: {{re2: ".*/infra"}}'), "another organization's", "leave it"),
        (entry(f'{IDS}, repository_owner: {{glob: "oct*"}}'), "another organization's", "leave it"),
        (entry(f'{IDS}, sub: {{glob: "repo:octo/*"}}'), "another organization's", "leave it out"),
        (entry(f'{IDS}, event_name: {{glob: "pull*"}}'), "outsiders cause", "any_of: [push"),
        (entry(f'{IDS}, event_name: {{re2: ".*"}}'), "outsiders cause", "any_of: [push"),
        (entry(f"{IDS}, branch: main"), "GitHub Actions sends no claim 'branch'", "write one of"),
        (entry(f"{IDS}, project_id: x"), "GitHub Actions sends no claim 'project_id'", "did you"),
        (entry("repository_id: 42, repository_owner_id: 7"), "is text", 'write "42" in quotes'),
        (entry(f"{IDS}, ref_protected: true"), "ref_protected is text", 'write "true" in quotes'),
        (entry(f"{IDS}, aud: x"), "aud is not asked for under claims", "audience:"),
        (entry(f'{IDS}, environment: ""'), "environment is empty", "leave the claim out"),
        (entry(f'{IDS}, ref: {{glob: "refs/heads/main"}}'), "no *", "write the value itself"),
        (entry(f'{IDS}, ref: {{glob: "refs/**"}}'), "** is no wildcard", "one * for each"),
        (entry(f'{IDS}, ref: {{glob: "refs/?*"}}'), "only wildcard", "re2"),
        (entry(f'{IDS}, ref: {{re2: "("}}'), "no pattern of RE2", "re2/wiki"),
        (entry(f'{IDS}, ref: {{re2: "(a)\\\\1"}}'), "no pattern of RE2", "re2/wiki"),
        (entry(f"{IDS}, ref: {{any_of: []}}"), "allows nothing", "name a value"),
        (entry(f"{IDS}, ref: {{regex: x}}"), "'regex' is unknown", "re2"),
        (entry(f"{IDS}, ref: [a]"), "ref is one value", "any_of"),
        (entry(audience="https://github.com/octo"), "default audience", "of the broker's own"),
        (entry(issuer="http://ci.example.com"), "is no issuer's address", "https"),
        (entry(issuer="https://ci.example.com?x=1"), "is no issuer's address", "https"),
        (entry(issuer="https://u@ci.example.com"), "is no issuer's address", "https"),
        (entry(more=", preset: gitlab"), "GitHub Actions's issuer", "write preset: github"),
        (entry(more=", preset: gitlap"), "is no preset", "did you mean gitlab"),
        (entry(more=", max_job: 7h"), "outside of 900 to 21600", "1h"),
        (entry(more=", algorithms: [HS256]"), "not among the algorithms", "did you mean"),
        (entry(more=", algorithms: [none]"), "not among the algorithms", "write one of"),
        (entry(more=", mode: dry"), "no mode of a workload", "mode: observe"),
        (entry(more=", jwks_uri: x"), "'jwks_uri' is unknown", "write one of"),
        (
            entry('sub: {glob: "a/*"}', issuer="https://ci.example.com"),
            "no claim is pinned",
            "exact value",
        ),
        (
            entry('project_id: "1"', issuer="https://gitlab.com"),
            "the owner is not pinned",
            "namespace_id",
        ),
        (
            entry(
                "kubernetes.io: {namespace: prod, serviceaccount: {name: deploy}}",
                issuer="https://k8s.example.com",
                more=", preset: kubernetes",
            ),
            "the project is not pinned",
            "kubernetes.io/serviceaccount/uid",
        ),
    ],
)
def test_an_unsafe_or_unclear_entry_is_refused_with_what_to_write(
    text: str, message: str, instead: str
) -> None:
    found = refusal(text)
    lines = [line for line in found.splitlines() if message in line]
    assert lines, found
    assert any(instead in line for line in lines), found
    assert all(line.startswith("line 7,") for line in lines)


def test_pull_requests_are_allowed_by_name_alone() -> None:
    parsed(entry(f"{IDS}, event_name: pull_request"))
    parsed(entry(f"{IDS}, event_name: {{any_of: [push, pull_request_target]}}"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (", require: {mfa_within: 8h}", "a job shows no second factor"),
        (", approval: {from: {group: corp/a}}", "a standing entitlement has no approval"),
    ],
)
def test_what_only_a_person_can_do_is_not_asked_of_a_job(more: str, message: str) -> None:
    assert message in refusal(entry(), more=more)


def test_a_job_waits_for_no_approval() -> None:
    file = FILE.format(entry=entry(), admin="", more="").replace("standing", "on_request")
    with pytest.raises(PolicyRefused, match="can't wait for an approval"):
        parse_policy(file, providers=frozenset({"corp"}))


def test_two_entries_for_the_same_jobs_are_refused() -> None:
    file = FILE.format(entry=f"{entry()}\n  other: {entry()}", admin="", more="")
    with pytest.raises(PolicyRefused, match="the same jobs are deploy already"):
        parse_policy(file, providers=frozenset({"corp"}))


def test_two_entries_agree_on_what_their_issuer_is() -> None:
    other = entry('repository_id: "43", repository_owner_id: "7"', more=", algorithms: [ES256]")
    file = FILE.format(entry=f"{entry()}\n  other: {other}", admin="", more="")
    with pytest.raises(PolicyRefused, match="different things of the same issuer"):
        parse_policy(file, providers=frozenset({"corp"}))


def test_an_admin_may_be_a_workload_and_is_it_under_its_issuer_alone() -> None:
    policy = parsed(entry(), admin=", {workload: deploy}")
    workload = policy.workloads["deploy"]
    ref = WorkloadRef("deploy", workload.issuer)
    assert policy.admins[1] == ref
    principal = Job("deploy", workload.issuer, workload.audience, {}).principal("w-1", workload)
    assert principal.kind is PrincipalKind.WORKLOAD
    assert is_admin(policy, principal, False)
    assert not means(WorkloadRef("deploy", "https://gitlab.com"), principal)
    assert not means(WorkloadRef("other", workload.issuer), principal)


def test_an_unknown_workload_is_no_subject() -> None:
    found = refusal(entry(), admin=", {workload: deplot}")
    assert "there is no workload 'deplot'" in found
    assert "did you mean deploy?" in found


def test_a_change_of_an_entry_is_in_the_diff() -> None:
    before, after = parsed(entry()), parsed(entry(f"{IDS}, ref: refs/heads/next", more=""))
    lines = diff_lines(diff_policies(before, after))
    assert len(lines) == 1
    assert lines[0].startswith("~ workload deploy claims: ")
    assert "refs/heads/next" in lines[0]
    assert any(
        line.startswith("+ workload deploy") for line in diff_lines(diff_policies(EMPTY, after))
    )
