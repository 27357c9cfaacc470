"""What the access policy makes of a CI token, told to who writes it; nothing is used up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.access.policy import EMPTY, AccessPolicy
from broker.issuance.tried import tried
from tests.unit.issuance.job_world import (
    AUDIENCE,
    FORGE,
    ISSUER,
    NOW,
    POLICY,
    STRANGERS_KEY,
    JobWorld,
    T,
    minted,
)

DECISIVE = {
    "event_name": "push",
    "ref": "refs/heads/main",
    "repository": "octo/repo",
    "repository_id": "42",
    "repository_owner_id": "7",
    "run_id": "1658",
}


def failed(workload: str, **expected: str) -> dict[str, object]:
    claims: dict[str, str] = {"ref": "refs/heads/main", "repository_id": "666"}
    return {
        "workload": workload,
        "failed": [
            {"claim": claim, "expected": text, "found": claims[claim]}
            for claim, text in expected.items()
        ],
    }


OTHERS = [
    failed("publish", ref="the glob 'refs/tags/*'"),
    failed("release", ref="the pattern 'refs/tags/.+'"),
    failed("trial", ref="'refs/heads/trial'"),
]
ADMITTED = {
    "issuer": ISSUER,
    "audience_admitted": True,
    "workloads": [
        {"workload": "deploy", "observes": False, "roles": ["reader"], "claims": DECISIVE}
    ],
    "closest": OTHERS,
}


async def of(token: str, policy: AccessPolicy = POLICY) -> dict[str, object]:
    world = JobWorld()
    said = await tried(token, world.gate, policy, NOW)
    assert world.jobs.exchanges == []
    assert world.counter.counted == []
    assert world.journal.order == []
    return said


@pytest.mark.parametrize("around", ["{}", " {}\n"])
async def test_a_good_token_names_the_entries_that_admit_it_and_the_nearest_others(around):
    assert await of(around.format(minted())) == {"verification": "good", **ADMITTED}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (minted(STRANGERS_KEY), "its signature is not the issuer's"),
        (minted(exp=T - 3600, iat=T - 7000), "it has expired"),
    ],
)
async def test_claims_that_did_not_verify_are_compared_too_and_that_is_said(token, reason):
    assert await of(token) == {"verification": reason, **ADMITTED}


async def test_what_is_no_token_is_compared_with_nothing():
    assert await of("x.y") == {"verification": "it does not have three parts", "closest": []}
    assert await of(minted(iss=7)) == {"verification": "it names no issuer", "closest": []}
    assert await of(minted(algorithm="HS256")) == {
        "verification": "its algorithm is not one configured for the provider",
        "closest": [],
    }


async def test_an_issuer_that_no_entry_names():
    assert await of(minted(), EMPTY) == {
        "verification": "its issuer is not configured here",
        "issuer": ISSUER,
        "closest": [],
    }


async def test_an_issuer_without_a_preset():
    entry = {"claim": "sub", "expected": "'project:1'", "found": "x"}
    assert await of(minted(iss=FORGE, aud="broker", sub="x")) == {
        "verification": "its algorithm is not one configured for its issuer",
        "issuer": FORGE,
        "audience_admitted": True,
        "workloads": [],
        "closest": [{"workload": "forge", "failed": [entry]}],
    }


@pytest.mark.parametrize(
    ("audience", "admitted"),
    [
        (AUDIENCE, True),
        ([AUDIENCE], True),
        (AUDIENCE + "/", False),
        ("broker", False),  # another issuer's
        ([AUDIENCE, "https://other.example.com"], False),
        ([], False),
        (None, False),
        (7, False),
    ],
)
async def test_whether_the_audience_is_an_entrys(audience, admitted):
    assert (await of(minted(aud=audience)))["audience_admitted"] is admitted


async def test_an_entry_that_observes_is_said_to_and_each_of_its_roles_is_named_once():
    again = replace(POLICY.entitlements[0], to=POLICY.entitlements[3].to)
    policy = replace(POLICY, entitlements=(*POLICY.entitlements, again))
    said = await of(minted(ref="refs/heads/trial", repository="octo/other"), policy)
    assert said["workloads"] == [
        {
            "workload": "trial",
            "observes": True,
            "roles": ["reader", "writer"],
            "claims": {**DECISIVE, "ref": "refs/heads/trial", "repository": "octo/other"},
        }
    ]


async def test_of_many_entries_the_ten_nearest_are_shown():
    entry = POLICY.workloads["publish"]
    many = {f"e{number:02}": replace(entry, name=f"e{number:02}") for number in range(12)}
    closest = (await of(minted(), replace(POLICY, workloads=many)))["closest"]
    assert isinstance(closest, list)
    assert [one["workload"] for one in closest] == [f"e{number:02}" for number in range(10)]
