"""Which facts an entry admits: typed, anchored, and never an outsider's event unasked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.presets import (
    BITBUCKET,
    BUILDKITE,
    CIRCLECI,
    GITHUB,
    GITLAB,
    KUBERNETES,
    PRESETS,
    Preset,
    preset_of,
)
from broker.identity.trust import (
    Exactly,
    Glob,
    Matcher,
    Mismatch,
    PatternRefused,
    Re2,
    Scalar,
    Workload,
    admits,
    closest,
    compiled,
    decisive,
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


@pytest.mark.parametrize(
    ("matcher", "words"),
    [
        (Exactly(("main",)), "'main'"),
        (Exactly(("main", 7, True)), "'main' or 7 or True"),
        (Glob("v*"), "the glob 'v*'"),
        (Re2("v[0-9]+"), "the pattern 'v[0-9]+'"),
    ],
)
def test_a_matcher_says_what_it_asks(matcher: Matcher, words: str) -> None:
    assert str(matcher) == words
    (mismatch,) = mismatches(workload({"ref": matcher}), {})
    assert mismatch == Mismatch("ref", words, None)


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?=a)", "\\1"])
def test_what_is_no_pattern_is_refused_quietly(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PatternRefused) as refused:
        compiled(pattern)
    assert str(refused.value) == f"{pattern!r} is no pattern of RE2"
    assert capfd.readouterr().err == "", "the library would write into the server's log"


@pytest.mark.parametrize(
    ("facts", "admitted"),
    [
        ({"repository_id": "42", "ref": "v1"}, True),
        ({"repository_id": "42"}, False),
        ({"repository_id": "43", "ref": "v1"}, False),
        ({"repository_id": "42", "ref": "x"}, False),
        ({"repository_id": "42", "ref": "v1", "event_name": "push"}, True),
        ({"repository_id": "42", "ref": "v1", "event_name": "fork"}, False),
    ],
)
def test_an_entry_admits_what_nothing_speaks_against(
    facts: dict[str, Scalar], admitted: bool
) -> None:
    entry = workload({"repository_id": Exactly(("42",)), "ref": Glob("v*")})
    assert admits(entry, facts) is admitted
    assert (mismatches(entry, facts) == ()) is admitted


def test_an_outsiders_event_is_named_with_what_was_expected() -> None:
    entry = workload({"event_name": Re2(".*")})
    assert mismatches(entry, {"event_name": "fork"}) == (
        Mismatch("event_name", "an event that outsiders can't cause", "fork"),
    )
    of_cluster = workload({"event_name": Re2(".*")}, KUBERNETES)
    assert mismatches(of_cluster, {"event_name": "fork"}) == (), "it knows no events"


def test_an_entry_is_somebody_else_under_another_issuer() -> None:
    assert workload({}).subject == "deploy@https://ci.test"
    assert replace(workload({}), issuer="https://ci2.test").subject == "deploy@https://ci2.test"


def test_a_token_may_live_as_long_as_its_platforms_do() -> None:
    lifetimes = [workload({}, preset).lifetime for preset in (GITHUB, GITLAB, None)]
    assert lifetimes == [3600, 86400, 3600]


def test_facts_of_an_issuer_without_a_preset_are_all_its_plain_claims() -> None:
    plain: dict[str, object] = {"team": "data", "count": 2**53 - 1, "less": 1 - 2**53, "on": True}
    odd: dict[str, object] = {
        "list": ["x"],
        "none": None,
        "float": 1.5,
        "large": 2**53,
        "small": -(2**53),
        "empty": "",
        "control": "a\nb",
        "long": "x" * 1025,
        "n" * 129: "x",
    }
    long: dict[str, object] = {"text": "x" * 1024, "n" * 128: "x"}
    assert facts_of({**plain, **odd, **long}, None) == {**plain, **long}
    assert len(facts_of({f"c{count}": "x" for count in range(100)}, None)) == 64


def test_the_record_names_the_claims_that_decided() -> None:
    facts: dict[str, Scalar] = {
        "repository_owner_id": "7",
        "repository_id": "42",
        "repository": "octo/repo",
        "run_id": "9",
        "ref": "main",
        "event_name": "push",
        "actor": "ada",
        "environment": "prod",
    }
    of_github = decisive(workload({"environment": Exactly(("prod",))}), facts)
    assert of_github == {name: facts[name] for name in facts if name != "actor"}
    assert list(of_github) == sorted(of_github)
    of_another = decisive(workload({"actor": Glob("*"), "team": Glob("*")}, None), facts)
    assert of_another == {"actor": "ada"}
    namespace: dict[str, Scalar] = {"kubernetes.io/namespace": "prod", "event_name": "push"}
    of_cluster = decisive(workload({}, KUBERNETES), namespace)
    assert of_cluster == {"kubernetes.io/namespace": "prod"}


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


def test_numbers_and_truth_values_are_taken_as_the_platform_sends_them() -> None:
    assert facts_of({"runner_id": 7, "job_id": 8, "sub": "s"}, GITLAB) == {
        "runner_id": 7,
        "sub": "s",
    }
    rerun = "oidc.circleci.com/ssh-rerun"
    assert facts_of({rerun: False}, CIRCLECI) == {rerun: False}
    assert facts_of({rerun: "false"}, CIRCLECI) == {}
    assert CIRCLECI.claims[rerun].placeholder == "ssh_rerun"


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
    names = ("d", "c", "b", "a")
    alike = [replace(far, name=name) for name in names]
    facts: dict[str, Scalar] = {"repository_id": "42"}
    assert [one.workload for one in closest(alike, facts)] == ["a", "b", "c"]
    assert [one.workload for one in closest(alike, facts, limit=1)] == ["a"]


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("aZ09_.:/+@-", "aZ09_.:/+@-"),
        ("a b=c", "a=20b=3Dc"),
        ("é", "=C3=A9"),
        (True, "true"),
        (False, "false"),
        (-12, "-12"),
    ],
)
def test_a_fact_is_written_as_tags_can_hold_it(value: Scalar, text: str) -> None:
    assert encoded(value) == text


@pytest.mark.parametrize(
    ("facts", "preset", "handle"),
    [
        ({}, GITHUB, "deploy"),
        ({"repository": "octo/repo"}, None, "deploy"),
        ({"repository": "octo/repo"}, GITHUB, "repo"),
        ({"repository": "octo/repo", "run_id": "9"}, GITHUB, "repo-9"),
        ({"repository": "octo/a-very-long-repository"}, GITHUB, "a-very-long-re"),
        ({"repository": "r", "run_id": "9", "ref": "refs/tags/v1"}, GITHUB, "r-9-v1"),
        ({"repository": "r", "ref": "refs/pull/1/merge"}, GITHUB, "r-refs/pull/1/merge"),
        ({"repositoryUuid": "{aa-bb}", "pipelineUuid": "{c}"}, BITBUCKET, "aa-bb-{c}"),
        ({"oidc.circleci.com/vcs-origin": "github.com/o/app/"}, CIRCLECI, "app"),
        ({"pipeline_slug": "app", "build_number": 12}, BUILDKITE, "app-12"),
    ],
)
def test_a_job_is_called_after_its_project_run_and_ref(
    facts: dict[str, Scalar], preset: Preset | None, handle: str
) -> None:
    assert job_handle("deploy", facts, preset) == handle


def test_placeholders_of_an_issuer_without_a_preset_are_made_plain() -> None:
    facts: dict[str, Scalar] = {"Team-name": "a b", "https://x/y": True, "Team_name": "second"}
    assert placeholders(facts, None) == {"Team_name": "a=20b", "https___x_y": "true"}
    assert placeholders({"not-known": 7}, GITHUB) == {"not_known": "7"}


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
    assert all(claim.name == name for name, claim in preset.claims.items())
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
        ("https://app.eu.terraform.io", "terraform-cloud"),
        ("", None),
        ("https://token.actions.githubusercontent.com.evil.example", None),
        ("https://gitlab.com\n", None),
    ],
)
def test_a_platform_is_known_by_its_own_address(issuer: str, name: str | None) -> None:
    found = preset_of(issuer)
    assert (found and found.name) == name
