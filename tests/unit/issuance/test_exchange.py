"""A CI job is let in once, as its workload and on record, or only observed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.errors import (
    CiTokenRejected,
)
from broker.identity.job import Job
from broker.identity.sessions import TokenKind
from broker.identity.throttle import CI_PER_WORKLOAD
from broker.issuance.exchange import Presented
from broker.issuance.request import CredentialRequest
from tests.unit.issuance.job_world import (
    AUDIENCE,
    ISSUER,
    NOW,
    POLICY_TEXT,
    WORKLOAD_IDS,
    JobWorld,
    minted,
    parsed,
    shown,
)

FACTS = {
    "sub": "repo:octo/repo:ref:refs/heads/main",
    "repository": "octo/repo",
    "repository_id": "42",
    "repository_owner_id": "7",
    "ref": "refs/heads/main",
    "event_name": "push",
    "run_id": "1658",
    "actor": "mallory",
}
DEPLOY = Actor(WORKLOAD_IDS["deploy"], "workload", "repo-1658-main", "10.1.2.3", "runner/2")


@pytest.fixture
async def world() -> JobWorld:
    return JobWorld()


def named(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# Let in.


async def test_a_job_is_its_workloads_principal_for_its_time(world):
    admitted = await world.admit(minted())
    assert admitted.actor == DEPLOY
    assert admitted.policy_version == 7
    assert admitted.job_token is None
    context = admitted.context
    assert (context.principal.id, context.principal.kind) == (WORKLOAD_IDS["deploy"], "workload")
    assert context.principal.subject == f"deploy@{ISSUER}"
    assert context.principal.claims["repository"] == "octo/repo"
    # From the database's clock, and no factor is claimed.
    assert context.auth_time == NOW + timedelta(seconds=1)
    assert context.login_session_expires_at == NOW + timedelta(seconds=3601)
    assert context.mfa_time is None
    assert context.login_session_id == world.jobs.exchanges[0].login_session_id
    assert world.counter.counted == [(CI_PER_WORKLOAD, WORKLOAD_IDS["deploy"])]
    assert world.keys.asked == [(ISSUER, "k", "ES256")]
    assert world.journal.events == []


async def test_the_exchange_uses_the_token_up_and_records_what_decided(world):
    token = minted()
    await world.admit(token)
    [exchange] = world.jobs.exchanges
    assert len(exchange.token_key) == 32
    assert exchange.token_forgotten_at == NOW + timedelta(seconds=330)
    assert exchange.login_session_id.startswith("ls-")
    assert (exchange.principal_id, exchange.lifetime) == (WORKLOAD_IDS["deploy"], 3600)
    assert (exchange.reuse, exchange.job_token) == (False, None)
    assert (exchange.ip, exchange.user_agent) == ("10.1.2.3", "runner/2")
    assert Job.from_text(exchange.job) == Job("deploy", ISSUER, AUDIENCE, FACTS)
    assert exchange.event == Event(
        EventType.CI_EXCHANGED,
        DEPLOY,
        Outcome.SUCCESS,
        {"principal": WORKLOAD_IDS["deploy"], "workload": "deploy"},
        {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "claims": {
                "event_name": "push",
                "ref": "refs/heads/main",
                "repository": "octo/repo",
                "repository_id": "42",
                "repository_owner_id": "7",
                "run_id": "1658",
            },
            "token_sha256": named(token),
            "token_has_id": True,
            "reuse_allowed": False,
            "reused": False,
            "job_token": False,
            "max_job": 3600,
            "policy_version": 7,
        },
        "r-1",
    )


async def test_a_job_token_is_made_where_it_is_wanted(world):
    wanted = replace(shown(minted(jti=...)), wants_token=True)
    admitted = await world.admit(wanted)
    assert admitted.job_token is not None
    assert admitted.job_token.kind is TokenKind.JOB
    [exchange] = world.jobs.exchanges
    assert exchange.job_token == admitted.job_token
    detail = exchange.event.detail
    assert (detail["job_token"], detail["token_has_id"]) == (True, False)
    # It is a secret.
    assert admitted.job_token.text not in repr(admitted) + repr(exchange)
    assert wanted.unverified_token not in repr(wanted)


async def test_the_entrys_own_limits_go_with_the_job(world):
    token = minted(ref="refs/tags/v1")
    admitted = await world.admit(shown(token, role="reader"))
    [exchange] = world.jobs.exchanges
    assert (exchange.principal_id, exchange.reuse) == (WORKLOAD_IDS["publish"], True)
    assert exchange.lifetime == 7200
    assert exchange.event.detail["reuse_allowed"] is True
    assert exchange.event.detail["max_job"] == 7200
    assert admitted.actor.handle == "repo-1658-v1"


async def test_of_entries_that_admit_a_job_the_one_with_the_role_is_taken(world):
    token = minted(ref="refs/tags/v1")
    assert (await world.admit(shown(token, role="writer"))).actor.id == WORKLOAD_IDS["release"]
    assert (await world.admit(shown(token, role="reader"))).actor.id == WORKLOAD_IDS["publish"]


# Only observed.

TRIAL = Actor(WORKLOAD_IDS["trial"], "workload", "repo-1658-trial", "10.1.2.3", "runner/2")


def trial(role: str | None = None, request: CredentialRequest | None = None) -> Presented:
    return shown(minted(ref="refs/heads/trial"), role, request)


async def test_a_job_that_is_only_observed_gets_nothing_and_the_record_says_what_it_would_have(
    world,
):
    for role, request, said in (
        (None, None, {"code": "observed", "roles": ["reader", "writer"]}),
        ("reader", CredentialRequest("reader"), {"code": "reason_required", "would_be": "denied"}),
    ):
        world.journal.events.clear()
        presented = trial(role, request)
        with pytest.raises(CiTokenRejected) as caught:
            await world.admit(presented)
        assert caught.value.detail == "The access policy only observes this job: nothing is issued."
        subject = {"principal": WORKLOAD_IDS["trial"], "workload": "trial"}
        assert world.journal.events == [
            Event(
                EventType.CI_OBSERVED,
                TRIAL,
                Outcome.DENIED,
                subject if role is None else {**subject, "role": role},
                {
                    **said,
                    "claims": {
                        "event_name": "push",
                        "ref": "refs/heads/trial",
                        "repository": "octo/repo",
                        "repository_id": "42",
                        "repository_owner_id": "7",
                        "run_id": "1658",
                    },
                    "token_sha256": named(presented.unverified_token),
                    "policy_version": 7,
                },
                "r-1",
            )
        ]
    assert world.jobs.exchanges == []
    assert world.counter.counted == []


async def test_the_observed_job_is_judged_from_its_address_at_the_time_with_its_session(world):
    world.journal.chained_partitions = frozenset({"aws"})
    request = CredentialRequest("reader", reason="ticket 12")
    with pytest.raises(CiTokenRejected):
        await world.admit(trial("reader", request))
    detail = world.journal.events[0].detail
    assert (detail["would_be"], detail["duration"]["chained"]) == ("issued", True)
    assert detail["duration"]["granted"] == 1785  # of its 30 minutes
    for number, network, code in (
        (8, "192.0.2.0/24", "outside_network"),
        (9, "10.0.0.0/8", "observed"),
    ):
        networks = f"require: {{networks: [{network}]}}"
        with pytest.raises(CiTokenRejected):
            await world.admit(
                trial("reader", request),
                parsed(POLICY_TEXT.replace("require: {reason: true}", networks), number),
            )
        detail = world.journal.events[-1].detail
        assert (detail["code"], detail["policy_version"]) == (code, number)


async def test_an_entry_that_observes_beside_one_that_admits_changes_nothing(world):
    text = POLICY_TEXT.replace("ref: refs/heads/trial", 'ref: {glob: "refs/heads/*"}')
    policy = parsed(text, 8)
    admitted = await world.admit(minted(), policy)
    assert admitted.actor == DEPLOY
    assert [event.type for event in world.journal.events] == [EventType.CI_OBSERVED]
    assert len(world.jobs.exchanges) == 1
