"""What a job would get where its entry only observes: judged as issuing judges, and never asked."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from broker.access.policy import AccessPolicy, Organization
from broker.identity.job import Job
from broker.issuance.observe import observed
from broker.issuance.request import CredentialRequest
from tests.unit.issuance.job_world import (
    AUDIENCE,
    ISSUER,
    NOW,
    POLICY,
    POLICY_TEXT,
    WORKLOAD_IDS,
    parsed,
)

TRIAL = POLICY.workloads["trial"]
FACTS = {"repository": "octo/repo", "repository_id": "42", "ref": "refs/heads/trial"}
LINE = POLICY.entitlements[3].line
READER = CredentialRequest("reader", reason="ticket 12")


def would_get(
    request: CredentialRequest | None,
    policy: AccessPolicy = POLICY,
    *,
    chained: bool = False,
    facts: dict[str, str] | None = None,
) -> dict[str, object]:
    asked: list[str] = []

    def is_chained(partition: str) -> bool:
        asked.append(partition)
        return chained

    job = Job("trial", ISSUER, AUDIENCE, FACTS if facts is None else facts)
    said = observed(
        request,
        workload=TRIAL,
        principal=job.principal(WORKLOAD_IDS["trial"], TRIAL),
        policy=policy,
        address=ip_address("10.1.2.3"),
        now=NOW,
        chained=is_chained,
    )
    assert set(asked) <= {"aws"}
    return said


def test_the_call_that_would_be_made_is_shown():
    said = would_get(replace(READER, duration=900))
    policy = said.pop("session_policy")
    assert isinstance(policy, str)
    assert json.loads(policy)["Statement"][0]["Resource"] == "arn:aws:s3:::b/42/*"
    tags = said.pop("tags")
    assert isinstance(tags, list)
    repository, issuance = tags
    assert repository == {"key": "repository", "value": "octo/repo"}
    assert issuance["key"] == "broker:issuance"
    assert issuance["value"].startswith("iss-")
    assert said == {
        "code": "observed",
        "would_be": "issued",
        "decided_by": {"entitlement": "workload trial", "line": LINE},
        "role_arn": "arn:aws:iam::111122223333:role/Reader",
        "duration": {
            "requested": 900,
            "granted": 900,
            "bound_by": "requested",
            "limits": [
                {"name": "requested", "seconds": 900},
                {"name": "role_maximum", "seconds": 14400},
                {"name": "job_remaining", "seconds": 1785},
            ],
            "chained": False,
        },
        "managed_policies": [],
        "source_identity": WORKLOAD_IDS["trial"],
    }


def test_tags_of_every_call_on_the_way_are_shown():
    said = would_get(CredentialRequest("writer"))
    assert said["role_arn"] == "arn:aws:iam::444455556666:role/Writer"
    assert said["managed_policies"] == ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
    assert isinstance(said["tags"], list)
    assert [tag["key"] for tag in said["tags"]] == ["broker:issuance"]


def test_chained_credentials_and_the_organization_bind_as_they_do_in_issuing():
    def limits(said: dict[str, object]) -> dict[str, int]:
        assert isinstance(said["duration"], dict)
        return {one["name"]: one["seconds"] for one in said["duration"]["limits"]}

    assert limits(would_get(READER, chained=True))["role_chaining"] == 3600
    organized = replace(POLICY, organization=Organization(maximum_duration=1200))
    assert limits(would_get(READER, organized))["organization"] == 1200


def test_without_a_request_the_roles_that_could_be_asked_for():
    assert would_get(None) == {"code": "observed", "roles": ["reader", "writer"]}
    nothing = replace(POLICY, entitlements=())
    assert would_get(None, nothing) == {"code": "observed", "roles": []}


@pytest.mark.parametrize(
    ("request_", "policy", "code"),
    [
        (CredentialRequest("other"), POLICY, "not_found"),
        (CredentialRequest("reader"), POLICY, "reason_required"),
        (
            READER,
            parsed(POLICY_TEXT.replace("reason: true", "networks: [192.0.2.0/24]"), 8),
            "outside_network",
        ),
        (READER, parsed(POLICY_TEXT.replace("reason: true", "networks: [10.0.0.0/8]"), 8), None),
        (
            READER,
            parsed(POLICY_TEXT.replace("reason: true", 'hours: "Mon-Fri 13:00-20:00 UTC"'), 8),
            "outside_hours",
        ),
        (replace(READER, duration=1), POLICY, "invalid_request"),
        (replace(READER, parameters={"x": "y"}), POLICY, "invalid_request"),
    ],
)
def test_a_refusal_is_named_by_its_code(request_, policy, code):
    said = would_get(request_, policy)
    if code is None:
        assert said["would_be"] == "issued"
    else:
        assert said == {"code": code, "would_be": "denied"}


def test_a_claim_that_the_token_lacks_denies():
    facts = {name: value for name, value in FACTS.items() if name != "repository"}
    assert would_get(READER, facts=facts) == {"code": "not_entitled", "would_be": "denied"}
