"""A CI job that is not let in: what it is told, and what the record says of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from broker.access.policy import EMPTY
from broker.audit.record import Actor, Event, EventType, Outcome
from broker.errors import (
    AuditUnavailable,
    CiTokenRejected,
    CiTokenReplayed,
    RateLimited,
    Suspended,
)
from broker.identity.job_store import NotExchanged
from broker.identity.presets import GITLAB
from broker.identity.trust import Exactly
from broker.issuance.exchange import Rejection
from tests.unit.issuance.issue_world import no_audit
from tests.unit.issuance.job_world import (
    ANYBODY,
    FORGE,
    ISSUER,
    KEY,
    NEXT_KEY,
    POLICY,
    POLICY_TEXT,
    STRANGERS_KEY,
    WORKLOAD_IDS,
    JobWorld,
    T,
    minted,
    parsed,
    public,
    shown,
)

DEPLOY = Actor(WORKLOAD_IDS["deploy"], "workload", "repo-1658-main", "10.1.2.3", "runner/2")


@pytest.fixture
async def world() -> JobWorld:
    return JobWorld()


def named(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# Refused: the token.


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "it does not have three parts"),
        (minted(iss=7), "it names no issuer"),
        (minted(iss="https://other.example.com"), "its issuer is not configured here"),
        (minted(iss=FORGE), "its algorithm is not one configured for its issuer"),
        (minted(algorithm="none"), "its algorithm is not one configured for the provider"),
        (
            minted(algorithm="RS256", iss=FORGE),
            "no key of the issuer fits the token's header",
        ),
        (minted(STRANGERS_KEY), "its signature is not the issuer's"),
        (minted(exp=T - 30, iat=T - 300), "it has expired"),
        (minted(exp=T + 3631), "it lives longer than this platform's tokens do"),
        (
            minted(aud="https://other.example.com"),
            "its audience is not the one that the access policy names",
        ),
    ],
)
async def test_a_token_that_is_not_accepted_is_told_and_recorded(world, token, reason):
    with pytest.raises(CiTokenRejected) as caught:
        await world.admit(token)
    assert caught.value.detail == f"The CI job's token was not accepted: {reason}."
    assert caught.value.extra == {}
    assert world.jobs.exchanges == []
    assert world.journal.events == [
        Event(
            EventType.CI_REJECTED,
            ANYBODY,
            Outcome.DENIED,
            {"role": "reader"},
            {
                "code": "ci_token_rejected",
                "reason": reason,
                "token_sha256": named(token),
                "claims": {},
                "near": [],
            },
            "r-1",
        )
    ]


async def test_nothing_is_fetched_for_an_issuer_that_no_entry_names(world):
    for token in (minted(iss="https://other.example.com"), minted(iss=FORGE)):
        with pytest.raises(CiTokenRejected):
            await world.admit(token)
    with pytest.raises(CiTokenRejected):
        await world.admit(minted(), EMPTY)
    assert world.keys.asked == []


async def test_the_longest_life_of_an_issuers_tokens_is_its_platforms(world):
    assert (await world.admit(minted(exp=T + 3630))).actor == DEPLOY


async def test_keys_that_cannot_be_had_ask_for_another_try(world):
    world.keys.unavailable = "it answered 503"
    with pytest.raises(CiTokenRejected) as caught:
        await world.admit(minted())
    reason = "its issuer's keys can't be fetched: it answered 503"
    assert caught.value.detail == f"The CI job's token was not accepted: {reason}."
    assert caught.value.extra == {"retry_after": 60}
    assert world.journal.events[0].detail["reason"] == reason


async def test_a_key_that_was_changed_in_place_is_taken(world):
    world.keys.later = NEXT_KEY
    assert (await world.admit(minted(NEXT_KEY))).actor == DEPLOY
    assert world.keys.asked == [(ISSUER, "k", "ES256"), (ISSUER, public(KEY), "ES256")]
    for stranger in (STRANGERS_KEY, STRANGERS_KEY):
        with pytest.raises(CiTokenRejected, match="its signature is not the issuer's"):
            await world.admit(minted(stranger))


# Refused: the job.

UNTOLD = "The access policy admits no job with these claims; the broker's log says more."


async def test_a_job_that_no_entry_admits_is_told_little_and_recorded_in_full(world):
    """Anybody can have a token of a public platform: what the policy asks for is not theirs."""
    token = minted(
        ref="refs/heads/feature", repository_id="666", run_id="1" * 300, job_workflow_ref="x" * 300
    )
    with pytest.raises(CiTokenRejected) as caught:
        await world.admit(token)
    assert (caught.value.detail, caught.value.extra) == (UNTOLD, {})
    owned = {"claim": "repository_id", "expected": "'42'", "found": "666"}

    def refused(workload: str, expected: str) -> dict[str, object]:
        ref = {"claim": "ref", "expected": expected, "found": "refs/heads/feature"}
        return {"workload": workload, "failed": [owned, ref]}

    assert world.journal.events == [
        Event(
            EventType.CI_REJECTED,
            ANYBODY,
            Outcome.DENIED,
            {"role": "reader"},
            {
                "code": "ci_token_rejected",
                "reason": "no workload entry admits it; deploy fails by repository_id, ref",
                "token_sha256": named(token),
                # Enough to find the job; what else a stranger wrote is left out, and kept short.
                "claims": {
                    "event_name": "push",
                    "job_workflow_ref": "x" * 256,
                    "ref": "refs/heads/feature",
                    "repository": "octo/repo",
                    "repository_id": "666",
                    "repository_owner_id": "7",
                    "run_id": "1" * 256,
                    "sub": "repo:octo/repo:ref:refs/heads/main",
                },
                "near": [
                    refused("deploy", "'refs/heads/main'"),
                    refused("publish", "the glob 'refs/tags/*'"),
                    refused("release", "the pattern 'refs/tags/.+'"),
                ],
            },
            "r-1",
        )
    ]  # fmt: skip


async def test_a_claim_that_the_token_lacks_is_not_in_the_record_of_its_claims(world):
    with pytest.raises(CiTokenRejected):
        await world.admit(minted(ref=...))
    detail = world.journal.events[0].detail
    assert detail["reason"] == "no workload entry admits it; deploy fails by ref"
    assert "ref" not in detail["claims"]
    assert detail["near"][0]["failed"] == [
        {"claim": "ref", "expected": "'refs/heads/main'", "found": None}
    ]


async def test_the_claim_that_failed_is_in_the_record_whatever_it_is_called(world):
    text = POLICY_TEXT.replace("ref: refs/heads/main", "ref: refs/heads/main, actor: alice")
    policy = parsed(text, 8)
    with pytest.raises(CiTokenRejected):
        await world.admit(minted(), policy)
    assert world.journal.events[0].detail["claims"]["actor"] == "mallory"


async def test_the_nearest_entry_alone_says_which_claims_failed(world):
    text = POLICY_TEXT.replace(
        'ref: {glob: "refs/tags/*"}', 'ref: {glob: "refs/tags/*"}, actor: al'
    )
    policy = parsed(text, 8)
    two = {name: policy.workloads[name] for name in ("publish", "deploy")}
    with pytest.raises(CiTokenRejected):
        await world.admit(minted(ref="refs/heads/feature"), replace(policy, workloads=two))
    detail = world.journal.events[0].detail
    assert detail["reason"] == "no workload entry admits it; deploy fails by ref"
    assert "actor" not in detail["claims"]
    assert [near["workload"] for near in detail["near"]] == ["deploy", "publish"]


async def test_a_single_entry_of_another_platform(world):
    """Its tokens name the project in other words, and some by numbers."""
    claims = {"namespace_id": Exactly(("7",)), "project_id": Exactly(("42",))}
    entry = replace(POLICY.workloads["deploy"], preset=GITLAB, claims=claims)
    token = minted(project_path="octo/repo", project_id="666", namespace_id="7", runner_id=12)
    with pytest.raises(CiTokenRejected):
        await world.admit(token, replace(POLICY, workloads={"deploy": entry}))
    assert world.journal.events[0].detail["claims"] == {
        "namespace_id": "7",
        "project_id": "666",
        "project_path": "octo/repo",
        "ref": "refs/heads/main",
        "runner_id": 12,
        "sub": "repo:octo/repo:ref:refs/heads/main",
    }


@pytest.mark.parametrize("role", [None, "nothing"])
async def test_a_job_of_several_entries_must_say_which_role(world, role):
    token = minted(ref="refs/tags/v1")
    with pytest.raises(CiTokenRejected) as caught:
        await world.admit(shown(token, role=role))
    assert caught.value.detail == UNTOLD
    [event] = world.journal.events
    assert event.subject == ({} if role is None else {"role": role})
    assert event.detail["reason"] == "2 workload entries admit it"
    assert event.detail["claims"]["ref"] == "refs/tags/v1"
    assert event.detail["near"] == [
        {"workload": "publish", "failed": []},
        {"workload": "release", "failed": []},
    ]


async def test_of_very_many_entries_that_admit_a_job_five_are_named(world):
    entry = POLICY.workloads["deploy"]
    many = {f"e{number}": replace(entry, name=f"e{number}") for number in range(7)}
    with pytest.raises(CiTokenRejected):
        await world.admit(minted(), replace(POLICY, workloads=many))
    detail = world.journal.events[0].detail
    assert detail["reason"] == "7 workload entries admit it"
    assert [near["workload"] for near in detail["near"]] == ["e0", "e1", "e2", "e3", "e4"]


async def test_a_refusal_that_cannot_be_recorded_is_no_answer(world):
    world.journal.fails = {"deny": no_audit()}
    with pytest.raises(AuditUnavailable):
        await world.admit("")


def test_a_reason_may_be_told_unless_it_is_the_policys() -> None:
    rejection = Rejection("it has expired")
    assert str(rejection) == rejection.reason == "it has expired"
    assert rejection.may_tell
    assert (rejection.facts, rejection.near, rejection.retry_after) == ({}, (), None)


# Refused: after the entry is known.


def refused_by(
    error: type[RateLimited | Suspended | CiTokenReplayed], token: str, role: str | None
) -> Event:
    subject = {"principal": WORKLOAD_IDS["deploy"], "workload": "deploy"}
    return Event(
        EventType.CI_REJECTED,
        DEPLOY,
        Outcome.DENIED,
        subject if role is None else {**subject, "role": role},
        {"code": error.code, "reason": error.message, "token_sha256": named(token)},
        "r-1",
    )  # fmt: skip


@pytest.mark.parametrize("role", [None, "reader"])
@pytest.mark.parametrize(
    ("reason", "error"), [("suspended", Suspended), ("replayed", CiTokenReplayed)]
)
async def test_what_the_store_refuses_is_recorded_as_the_workloads(world, reason, error, role):
    world.jobs.refuses = NotExchanged(reason)
    token = minted()
    with pytest.raises(error):
        await world.admit(shown(token, role))
    assert world.journal.events == [refused_by(error, token, role)]


async def test_too_many_jobs_of_one_workload_use_no_token_up(world):
    world.counter.limited = True
    token = minted()
    with pytest.raises(RateLimited) as caught:
        await world.admit(token)
    assert caught.value.retry_after == 20
    assert world.jobs.exchanges == []
    assert world.journal.events == [refused_by(RateLimited, token, "reader")]
