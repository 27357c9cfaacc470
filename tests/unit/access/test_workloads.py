"""CI workloads in the access policy: what an entry means, and every unsafe one refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.access.diff import diff_lines, diff_policies
from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from broker.access.policy import EMPTY, AccessPolicy, WorkloadRef
from broker.access.rights import is_admin, means
from broker.identity.job import Job
from broker.identity.presets import GITHUB, GITLAB, KUBERNETES
from broker.identity.principal import PrincipalKind
from broker.identity.trust import Exactly, Glob, Re2, Workload

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
# Entries, and all that is said of them.
REFUSED: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("workload_refusals.yaml").read_text("utf-8")
)


@pytest.mark.parametrize("case", REFUSED, ids=[one["says"][0] for one in REFUSED])
def test_an_unsafe_or_unclear_entry_is_refused_with_what_to_write(case: dict[str, Any]) -> None:
    assert refusal(case["entry"]).splitlines() == case["says"]


OTHER = "https://ci.example.com"


def claims(count: int) -> str:
    return entry(", ".join(f"c{number}: x" for number in range(count)), issuer=OTHER)


def values(count: int) -> str:
    listed = ", ".join(f"v{number}" for number in range(count))
    return entry(f"{IDS}, ref: {{any_of: [{listed}]}}")


@pytest.mark.parametrize(
    ("text", "most", "said"),
    [
        (claims, 32, "more than 32 claims; ask for fewer"),
        (values, 100, "more than 100 values; write two entries"),
        (
            lambda n: entry("sub: x", issuer=f"{OTHER}/{'x' * (n - 23)}"),
            512,
            "is no issuer's address; write the iss of its tokens",
        ),
        (lambda n: entry(audience="x" * n), 512, "the audience is empty or over-long"),
        (
            lambda n: entry(f"{IDS}, ref: {{glob: '{'x' * (n - 1)}*'}}"),
            512,
            "longer than 512 characters; write a shorter one",
        ),
        (
            lambda n: entry(f"{IDS}, ref: {{re2: '{'x' * n}'}}"),
            512,
            "empty, or longer than 512 characters; write another",
        ),
        (lambda n: entry(f'"{"c" * n}": x, sub: x', issuer=OTHER), 128, "this is no name of a"),
    ],
)
def test_a_limit_is_at_most_and_not_below(text: Any, most: int, said: str) -> None:
    assert parsed(text(most)).workloads
    assert said in refusal(text(most + 1))


@pytest.mark.parametrize(
    "issuer", ["http://localhost:8080", "http://127.0.0.1/x", "http://[::1]:80", "https://ci:1/a"]
)
def test_an_issuer_on_this_machine_may_be_plain_http(issuer: str) -> None:
    assert parsed(entry("sub: x", issuer=issuer)).workloads["deploy"].issuer == issuer


def test_an_entry_becomes_a_workload_whole() -> None:
    text = entry(
        'sub: {glob: "aX/*"}, "x.y": {any_of: [a, 1, true, "1"]}, org: {re2: "a+"}, n: 7',
        issuer=OTHER,
    )
    assert parsed(text).workloads == {
        "deploy": Workload(
            name="deploy",
            issuer=OTHER,
            audience="https://broker.example.com",
            preset=None,
            claims={
                "sub": Glob("aX/*"),
                "x.y": Exactly(("a", 1, True, "1")),
                "org": Re2("a+"),
                "n": Exactly((7,)),
            },
            algorithms=frozenset({"RS256", "ES256", "PS256"}),
            max_job=3600,
            reuse=False,
            observe=False,
            line=7,
        )
    }


def test_a_preset_is_known_by_its_issuer_or_its_name() -> None:
    gitlab = 'project_id: "1", namespace_id: "2"'
    own = entry(gitlab, issuer=OTHER, more=", preset: gitlab, max_job: 900, algorithms: [ES256]")
    workload = parsed(own).workloads["deploy"]
    assert (workload.preset, workload.max_job, workload.algorithms) == (
        GITLAB,
        900,
        frozenset({"ES256"}),
    )
    assert parsed(entry(gitlab, issuer="https://gitlab.com")).workloads["deploy"].preset is GITLAB
    named = parsed(entry(more=", preset: github, max_job: 21600")).workloads["deploy"]
    assert (named.preset, named.max_job) == (GITHUB, 21600)


LONG = "x" * 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (entry("sub: x", issuer=LONG), [80]),
        (entry(more=f", preset: {LONG}"), [80]),
        (entry(more=f", algorithms: [{LONG}]"), [80]),
        (entry(more=f", mode: {LONG}"), [80]),
        (entry(f"{IDS}, {LONG}: x"), [80]),
        (entry(f"{LONG[:128]}: [], sub: x", issuer=OTHER), [80, 80, 80]),
        (entry(f"{LONG[:128]}: '', sub: x", issuer=OTHER), [80]),
        (entry(f'{LONG[:128]}: "\\u2028", sub: x', issuer=OTHER), [80]),
        (entry(f"{IDS}, ref: {{{LONG}: x}}"), [80]),
        (entry(f"{IDS}, ref: {{any_of: [{LONG}, {LONG}]}}"), [80]),
    ],
)
def test_a_long_word_is_repeated_in_part(text: str, shown: list[int]) -> None:
    told = " ".join(line.partition("): ")[2] for line in refusal(text).splitlines())
    assert [len(word) for word in re.findall("x{20,}", told)] == shown


def test_a_workloads_name_is_one_that_fits_a_path() -> None:
    file = FILE.format(entry=f"{entry()}\n  {LONG}: {entry()}\n  De: x", admin="", more="")
    with pytest.raises(PolicyRefused) as refused:
        parse_policy(file, providers=frozenset({"corp"}))
    cure = "use small letters, digits, . _ -, at most 64"
    assert [f"{one.message}; {one.instead}" for one in refused.value.findings] == [
        f"{LONG[:80]!r} is no name of a workload; {cure}",
        f"'De' is no name of a workload; {cure}",
    ]


def test_pull_requests_are_allowed_by_name_alone() -> None:
    parsed(entry(f"{IDS}, event_name: pull_request"))
    parsed(entry(f"{IDS}, event_name: {{any_of: [push, pull_request_target]}}"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ", require: {mfa_within: 8h}",
            (
                "line 9, column 87 (entitlements[0].require): a job shows no second factor; "
                "leave mfa_within out"
            ),
        ),
        (
            ", approval: {from: {group: corp/a}}",
            (
                "line 9, column 88 (entitlements[0].approval): a standing entitlement has no "
                "approval: nobody is asked; write mode: on_request, or leave it out"
            ),
        ),
    ],
)
def test_what_only_a_person_can_do_is_not_asked_of_a_job(more: str, says: str) -> None:
    assert refusal(entry(), more=more) == says


def file_refusal(file: str) -> list[str]:
    with pytest.raises(PolicyRefused) as refused:
        parse_policy(file, providers=frozenset({"corp"}))
    return str(refused.value).splitlines()


def test_a_job_waits_for_no_approval() -> None:
    file = FILE.format(entry=entry(), admin="", more="")
    assert file_refusal(file.replace("mode: standing", "mode: on_request")) == [
        (
            "line 9, column 50 (entitlements[0].mode): a job can't wait for an approval; "
            "write mode: standing"
        )
    ]


def test_a_job_reviews_no_request_and_audits_nothing() -> None:
    file = FILE.format(entry=entry(), admin="", more="").replace(
        "{role: reader, to: {workload: deploy}, mode: standing",
        "{role: reader, to: {group: a}, mode: on_request, approval: {from: {workload: deploy}}",
    )
    file += "auditors: [{workload: deploy}]\n"
    assert file_refusal(file) == [
        (
            "line 9, column 71 (entitlements[0].approval.from): a workload can't review a request; "
            "name a group or a user"
        ),
        "line 10, column 12 (auditors[0]): a workload can't be among auditors; name a person",
    ]


def beside(other: str) -> str:
    return FILE.format(entry=f"{entry()}\n  other: {other}", admin="", more="")


def test_each_entry_is_read_whatever_the_one_before_it_is() -> None:
    file = FILE.format(entry="{}\n  other: {issuer: 7}", admin="", more="")
    assert [finding.partition(":")[0] for finding in file_refusal(file)] == [
        *["line 7, column 11 (workloads.deploy)"] * 3,
        *["line 8, column 10 (workloads.other)"] * 2,
        "line 8, column 19 (workloads.other.issuer)",
    ]


def test_two_entries_for_the_same_jobs_are_refused() -> None:
    assert file_refusal(beside(entry())) == [
        (
            "line 8, column 10 (workloads.other): the same jobs are deploy already; "
            "keep one of the two, and let entitlements name it"
        )
    ]


@pytest.mark.parametrize("more", [", algorithms: [ES256]", ", preset: gitlab"])
def test_two_entries_agree_on_what_their_issuer_is(more: str) -> None:
    gitlab = 'project_id: "1", namespace_id: "2"'
    first, second = entry("sub: x", issuer=OTHER), entry(gitlab, issuer=OTHER, more=more)
    file = FILE.format(entry=f"{first}\n  other: {second}", admin="", more="")
    assert file_refusal(file) == [
        (
            "line 8, column 10 (workloads.other): other and deploy say different things of the "
            "same issuer; give both the same preset and algorithms"
        )
    ]


def test_entries_that_differ_stand_side_by_side() -> None:
    for other in (
        entry(audience="https://other.example.com"),
        entry(f"{IDS}, ref: refs/heads/next"),
        entry("sub: x", issuer=OTHER, more=", algorithms: [ES256]"),
    ):
        file = beside(other)
        assert len(parse_policy(file, providers=frozenset({"corp"})).workloads) == 2


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
