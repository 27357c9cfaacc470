"""A job token is good for as long as the access policy of now still means the job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.access.policy import AccessPolicy
from broker.errors import Unauthenticated
from broker.identity.job import Job, job_context
from broker.identity.principal import AuthContext
from broker.identity.sessions import Authenticated, TokenKind
from broker.identity.trust import Exactly
from broker.issuance.exchange import still_admitted
from tests.unit.issuance.job_world import AUDIENCE, ISSUER, NOW, POLICY, WORKLOAD_IDS

DEPLOY = POLICY.workloads["deploy"]
FACTS = {
    "repository": "octo/repo",
    "repository_id": "42",
    "repository_owner_id": "7",
    "ref": "refs/heads/main",
    "run_id": "1658",
}
JOB = Job("deploy", ISSUER, AUDIENCE, FACTS)


def context(job: Job = JOB) -> AuthContext:
    return job_context(
        job.principal(WORKLOAD_IDS["deploy"], DEPLOY),
        login_session_id="ls-1",
        began_at=NOW,
        ends_at=NOW + timedelta(hours=1),
    )


def shown(job: Job | None) -> Authenticated:
    return Authenticated(
        context=context(),
        token_kind=TokenKind.JOB,
        token_hash=b"",
        role=None,
        has_confirmed_factor=False,
        pinned_admin=False,
        may_enrol_until=None,
        access_version=7,
        now=NOW,
        client="ci",
        job=job,
    )


def with_entry(**changes: object) -> AccessPolicy:
    entry = replace(DEPLOY, **changes)  # type: ignore[arg-type]
    return replace(POLICY, workloads={**POLICY.workloads, "deploy": entry})


@pytest.mark.parametrize(
    "policy", [POLICY, with_entry(max_job=900), with_entry(reuse=True), with_entry(line=1)]
)
def test_a_job_that_its_entry_still_means_stays_who_it_was(policy):
    """Its time ends when it was said to."""
    assert still_admitted(shown(JOB), policy) == context()


@pytest.mark.parametrize(
    ("job", "policy"),
    [
        (None, POLICY),  # no job token
        (JOB, replace(POLICY, workloads={})),
        (JOB, with_entry(observe=True)),
        (JOB, with_entry(issuer="https://other.example.com")),
        (JOB, with_entry(audience="https://other.example.com")),
        (JOB, with_entry(claims={**DEPLOY.claims, "ref": Exactly(("refs/heads/next",))})),
        (JOB, with_entry(claims={**DEPLOY.claims, "environment": Exactly(("production",))})),
        (replace(JOB, facts={**FACTS, "event_name": "pull_request"}), POLICY),
    ],
)
def test_a_job_that_the_policy_no_longer_admits_is_signed_out(job, policy):
    with pytest.raises(Unauthenticated) as caught:
        still_admitted(shown(job), policy)
    assert caught.value.detail == "The access policy no longer admits this job."
