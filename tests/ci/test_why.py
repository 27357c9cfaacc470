"""`broker why ROLE --workload NAME`: what an entry's jobs would get, without a token of one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.ci.conftest import World
from tests.ci.issuer import policy_text
from tests.web.journeys import LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA

OPEN_ENTRY = """\
  branches:
    issuer: "{issuer}"
    preset: github
    audience: "https://broker.example.com"
    claims: {{repository_id: "42", repository_owner_id: "7", ref: {{glob: "refs/heads/*"}},
      environment: {{any_of: [production, staging]}}}}
    mode: observe
"""


@pytest.fixture
async def admin(world: World) -> LoggedIn:
    return await logged_in_admin(world.broker)


async def asked(who: LoggedIn, role: str, **query: str) -> httpx.Response:
    return await who.api.get(f"/v1/roles/{role}/explain", params=query, headers=bearer(who))


async def why(who: LoggedIn, role: str, **query: str) -> dict[str, Any]:
    answer = await asked(who, role, **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_supposed_job_gets_what_a_real_one_does(world: World, admin: LoggedIn) -> None:
    body = await why(admin, "tagged", workload="github")
    assert (body["allowed"], body["code"]) == (True, None)
    assert body["principal"]["kind"] == "workload"
    # The claims that the entry pins are its own; what it leaves open can't be taken for a value.
    statement = body["session_policy"]["Statement"][0]
    assert statement["Resource"] == "arn:aws:s3:::b/42/*"
    assert body["tags"]["repository"] == "any-repository"
    assert any("workload github" in text for text in body["assumed"])
    real = await world.credentials(world.issuer.mint(), "tagged")
    assert real.status_code == 200, real.text
    assert real.json()["source_identity"] == body["source_identity"]
    assert real.json()["duration"]["bound_by"] == body["duration"]["bound_by"]


async def test_its_principal_id_means_the_same_jobs(world: World, admin: LoggedIn) -> None:
    by_name = await why(admin, "tagged", workload="github")
    by_id = await why(admin, "tagged", principal=by_name["principal"]["id"])
    assert by_id["session_policy"] == by_name["session_policy"]


async def test_a_refusal_names_what_fails(world: World, admin: LoggedIn) -> None:
    body = await why(admin, "other", workload="github")
    assert (body["allowed"], body["code"]) == (False, "not_found")
    assert await world.records("ci.exchanged") == await world.records("issuance.denied") == []


async def test_an_entry_that_only_observes(world: World, admin: LoggedIn) -> None:
    entry = OPEN_ENTRY.format(issuer=world.issuer.issuer("github"))
    right = "  - {role: tagged, to: {workload: branches}, mode: standing}"
    await world.apply(policy_text(world.issuer, extra_entries=entry) + right + "\n")
    body = await why(admin, "tagged", workload="branches")
    assert (body["allowed"], body["code"]) == (False, "ci_token_rejected")
    assert "only observes" in body["detail"]
    # What it would have got is there all the same, with what was supposed.
    assert body["tags"]["ref"] == "refs/heads/any"
    assert any("'production'" in text and "'staging'" in text for text in body["assumed"])


async def test_a_suspended_workload(world: World, admin: LoggedIn) -> None:
    about = (await why(admin, "tagged", workload="github"))["principal"]["id"]
    real = await world.credentials(world.issuer.mint(), "tagged")
    assert real.status_code == 200, real.text
    ended = await admin.api.post(
        f"/v1/users/{about}/suspend", json={"reason": "leaked"}, headers=bearer(admin)
    )
    assert ended.status_code == 200, ended.text
    body = await why(admin, "tagged", workload="github")
    assert (body["allowed"], body["code"]) == (False, "suspended")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"workload": "nobody"}, 404),
        ({"workload": "github", "principal": "w-aaaaaaaaaaaaaaaa"}, 422),
        ({"workload": "../etc"}, 422),
        ({"principal": "w-aaaaaaaaaaaaaaaa"}, 404),
    ],
)
async def test_asking_wrongly(
    world: World, admin: LoggedIn, query: dict[str, str], status: int
) -> None:
    assert (await asked(admin, "tagged", **query)).status_code == status


async def test_others_may_not_ask(world: World) -> None:
    ada = await logged_in_person(world.broker, ADA)
    answer = await asked(ada, "tagged", workload="github")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    # Nor is an entry's existence told.
    hidden = await asked(ada, "tagged", workload="nobody")
    assert hidden.json()["detail"] == answer.json()["detail"]
