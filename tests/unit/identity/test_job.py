"""What is kept of a CI job that was let in, and who it is to the rest of the broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.identity.job import Job, job_context
from broker.identity.presets import GITHUB, KUBERNETES
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.identity.trust import Exactly, Workload

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
JOB = Job(
    "deploy",
    "https://ci.test",
    "https://broker.test",
    {"repository": "octo/repo", "run_id": "9", "ref": "refs/heads/a b"},
)
WORKLOAD = Workload(
    name="deploy",
    issuer="https://ci.test",
    audience="https://broker.test",
    preset=GITHUB,
    claims={"repository": Exactly(("octo/repo",))},
    algorithms=frozenset({"RS256"}),
    max_job=3600,
    reuse=False,
    observe=False,
    line=1,
)


def test_a_job_is_stored_as_one_text_and_read_back():
    text = JOB.as_text()
    assert text == (
        '{"audience":"https://broker.test","facts":{"ref":"refs/heads/a b",'
        '"repository":"octo/repo","run_id":"9"},"issuer":"https://ci.test","workload":"deploy"}'
    )
    assert Job.from_text(text) == JOB


def test_a_job_is_its_entry_s_principal_under_a_readable_name():
    assert JOB.principal("w-aaaaaaaaaaaaaaaa", WORKLOAD) == Principal(
        id="w-aaaaaaaaaaaaaaaa",
        kind=PrincipalKind.WORKLOAD,
        issuer="urn:broker:workload",
        subject="deploy@https://ci.test",
        provider="ci",
        handle="repo-9-a b",
        claims={"repository": "octo/repo", "run_id": "9", "ref": "refs/heads/a=20b"},
    )


def test_a_job_without_facts_to_tell_is_called_after_its_entry():
    job = Job("watch", "https://ci.test", "https://broker.test", {"kubernetes.io/pod/uid": "u"})
    principal = job.principal("w-aaaaaaaaaaaaaaaa", replace(WORKLOAD, preset=KUBERNETES))
    assert principal.handle == "watch"
    assert principal.claims == {"pod_uid": "u"}


def test_a_job_lives_as_long_as_it_was_given_and_shows_no_second_factor():
    principal = JOB.principal("w-aaaaaaaaaaaaaaaa", WORKLOAD)
    ends = NOON + timedelta(hours=1)
    context = job_context(principal, login_session_id="ls-1", began_at=NOON, ends_at=ends)
    assert context == AuthContext(principal, "ls-1", NOON, None, ends, frozenset({"ci"}))
    context.require_second_factor()
    context.require_fresh_factor(ends)
