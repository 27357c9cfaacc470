"""Which facts an entry admits: typed, anchored, and never an outsider's event unasked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.presets import GITHUB, GITLAB, KUBERNETES, PRESETS, Preset, preset_of
from broker.identity.trust import (
    Exactly,
    Glob,
    Matcher,
    Re2,
    Workload,
    closest,
    encoded,
    facts_of,
    job_handle,
    mismatches,
    placeholders,
)


def workload(claims: dict[str, Matcher], preset: Preset | None = GITHUB) -> Workload:
    return Workload(
        name="deploy",
        issuer="https://ci.test",
        audience="https://broker.test",
        preset=preset,
        claims=claims,
        algorithms=frozenset({"RS256"}),
        max_job=3600,
        reuse=False,
        observe=False,
        line=1,
    )


def failing(entry: Workload, claims: dict[str, object]) -> list[str]:
    return [one.claim for one in mismatches(entry, facts_of(claims, entry.preset))]


@pytest.mark.parametrize(
    ("matcher", "value", "admitted"),
    [
        (Exactly(("refs/heads/main",)), "refs/heads/main", True),
        (Exactly(("refs/heads/main",)), "refs/heads/main2", False),
        (Exactly(("refs/heads/main",)), "xrefs/heads/main", False),
        (Exactly(("refs/heads/main",)), "refs/heads/main\n", False),
        (Exactly(("refs/heads/main",)), "REFS/HEADS/MAIN", False),
        (Exactly(("true",)), True, False),
        (Exactly((True,)), 1, False),
        (Exactly((1,)), True, False),
        (Exactly((12,)), 12, True),
        (Exactly((12,)), "12", False),
        (Exactly(("a|b",)), "a", False),
        (Glob("refs/tags/v*"), "refs/tags/v1.2", True),
        (Glob("refs/tags/v*"), "refs/tags/v1/2", False),
        (Glob("refs/tags/v*"), "refs/tags/v1\n", False),
        (Glob("refs/tags/v*"), "xrefs/tags/v1", False),
        (Glob("refs/*/v*"), "refs/tags/v1", True),
        (Glob("*"), "refs/tags", False),
        (Glob("a.*"), "abc", False),
        (Glob("main|*"), "main", False),
        (Glob("*"), 12, False),
        (Re2("main|release"), "main", True),
        (Re2("main|release"), "mainx", False),
        (Re2("main|release"), "xrelease", False),
        (Re2("main|release"), "release\n", False),
        (Re2("main$"), "main\n", False),
        (Re2("[0-9]+"), 12, False),
    ],
)
def test_a_matcher_takes_whole_values_of_its_type(
    matcher: Matcher, value: str | int | bool, admitted: bool
) -> None:
    assert matcher.admits(value) is admitted


def test_every_failing_claim_is_named() -> None:
    entry = workload({"repository_id": Exactly(("42",)), "ref": Exactly(("refs/heads/main",))})
    found = failing(entry, {"repository_id": "43", "ref": "refs/heads/x"})
    assert found == ["repository_id", "ref"]
    assert failing(entry, {"repository_id": "42", "ref": "refs/heads/main"}) == []


@pytest.mark.parametrize(
    "value", ["production\n", "", None, 1, True, ["production"], {"a": "b"}, "x" * 1025, 1.0]
)
def test_what_is_no_plain_text_of_the_platform_matches_nothing(value: object) -> None:
    entry = workload({"environment": Re2("(?s).*")})
    assert failing(entry, {"environment": value}) == ["environment"]


@pytest.mark.parametrize(
    "event", ["pull_request", "pull_request_target", "fork", "issue_comment", "workflow_run"]
)
def test_an_event_that_outsiders_cause_is_let_in_by_its_name_alone(event: str) -> None:
    claims: dict[str, object] = {"repository_id": "42", "event_name": event}
    pinned: dict[str, Matcher] = {"repository_id": Exactly(("42",))}
    assert failing(workload(pinned), claims) == ["event_name"]
    assert failing(workload({**pinned, "event_name": Re2(".*")}), claims) == ["event_name"]
    assert failing(workload({**pinned, "event_name": Exactly(("push", event))}), claims) == []


def test_gitlab_says_protected_with_text() -> None:
    entry = workload({"ref_protected": Exactly(("true",))}, GITLAB)
    for value, admitted in (("true", True), ("false", False), (True, False)):
        assert (failing(entry, {"ref_protected": value}) == []) is admitted


def test_kubernetes_facts_stand_inside_an_object() -> None:
    entry = workload({"kubernetes.io/serviceaccount/uid": Exactly(("u-1",))}, KUBERNETES)
    token: dict[str, object] = {"kubernetes.io": {"serviceaccount": {"uid": "u-1"}}}
    assert failing(entry, token) == []
    for other in (
        {"kubernetes.io": {"serviceaccount": {"uid": "u-2"}}},
        {"kubernetes.io": "u-1"},
        {"kubernetes.io/serviceaccount/uid": "u-1"},
        {"kubernetes.io/serviceaccount/service-account.uid": "u-1"},
    ):
        assert failing(entry, dict(other)) == ["kubernetes.io/serviceaccount/uid"]


def test_the_closest_entries_come_first() -> None:
    near = workload({"repository_id": Exactly(("42",)), "ref": Exactly(("main",))})
    far = workload({"repository_id": Exactly(("1",)), "ref": Exactly(("x",))})
    found = closest([far, near], {"repository_id": "42", "ref": "dev"})
    assert [len(one.mismatches) for one in found] == [1, 2]
    assert found[0].as_json() == {
        "workload": "deploy",
        "failed": [{"claim": "ref", "expected": "'main'", "found": "dev"}],
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_encoding_is_legal_in_tags_and_tells_any_two_values_apart(one: str, two: str) -> None:
    def storable(text: str) -> bool:
        return not any("\ud800" <= character <= "\udfff" for character in text)

    if not (storable(one) and storable(two)):
        return
    assert set(encoded(one)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/=+-@"
    )
    assert (encoded(one) == encoded(two)) is (one == two)


def test_facts_become_placeholders_under_plain_names() -> None:
    facts = facts_of({"repository": "octo/repo", "ref": "refs/heads/a#1", "run_id": "9"}, GITHUB)
    assert placeholders(facts, GITHUB) == {
        "repository": "octo/repo",
        "ref": "refs/heads/a=231",
        "run_id": "9",
    }
    assert job_handle("deploy", facts, GITHUB) == "repo-9-a#1"
    cluster = facts_of({"kubernetes.io": {"namespace": "prod", "pod": {"name": "p"}}}, KUBERNETES)
    assert placeholders(cluster, KUBERNETES) == {"namespace": "prod", "pod_name": "p"}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_preset_agrees_with_itself(preset: Preset) -> None:
    named = {*preset.owners, *preset.projects, *preset.names, *preset.job}
    assert named <= preset.claims.keys()
    assert preset.event is None or preset.event in preset.claims
    holders = [claim.placeholder for claim in preset.claims.values()]
    assert len(set(holders)) == len(holders), "two claims would share one placeholder"


@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        ("https://token.actions.githubusercontent.com", "github"),
        ("https://token.actions.githubusercontent.com/octo-enterprise", "github"),
        ("https://gitlab.com", "gitlab"),
        ("https://agent.buildkite.com", "buildkite"),
        ("https://oidc.circleci.com/org/11111111-2222-3333-4444-555555555555", "circleci"),
        (
            "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
            "bitbucket",
        ),
        ("https://app.terraform.io", "terraform-cloud"),
        ("https://token.actions.githubusercontent.com.evil.example", None),
        ("https://gitlab.com\n", None),
    ],
)
def test_a_platform_is_known_by_its_own_address(issuer: str, name: str | None) -> None:
    found = preset_of(issuer)
    assert (found and found.name) == name
