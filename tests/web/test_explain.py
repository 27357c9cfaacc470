"""`GET /v1/roles/{name}/explain`: who may ask about whom, and that asking changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from broker.adapters.store.schema import login_sessions, principals
from tests.web.conftest import ADDRESS, Running
from tests.web.journeys import POLICY, LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, GRACE, Person
from tests.web.test_api import apply, problem

BOB = Person("bob")
OFFICE = POLICY.replace(
    "max_duration: 2h}",
    "max_duration: 2h, require: {networks: [203.0.113.0/24], mfa_within: 8h}}",
)


async def why(who: LoggedIn, role: str = "data-reader", **query: Any) -> httpx.Response:
    return await who.api.get(f"/v1/roles/{role}/explain", params=query, headers=bearer(who))


async def change(broker: Running, table: Any, condition: Any, **values: Any) -> None:
    async with broker.app.state.parts.people._database.begin() as conn:
        await conn.execute(update(table).where(condition).values(**values))


async def my_id(who: LoggedIn) -> str:
    me = (await who.api.get("/v1/me", headers=bearer(who))).json()
    return str(me["id"])


@pytest.fixture
async def admin(broker: Running) -> LoggedIn:
    found = await logged_in_admin(broker)
    assert (await apply(found, OFFICE)).status_code == 200
    return found


async def test_one_sees_what_one_would_get(broker: Running, admin: LoggedIn) -> None:
    ada = await logged_in_person(broker, ADA)
    before = await records(admin)
    answer = await why(ada, set="bucket=reports", duration="7200", reason="look")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["allowed"] is True
    assert body["code"] is None
    assert body["principal"]["id"] == await my_id(ada)
    assert body["principal"]["groups"] == ["corp/analysts"]
    assert (body["address"], body["assumed"], body["policy_version"]) == (ADDRESS, [], 1)
    assert body["matched"] == {"entitlement": "group corp/analysts", "line": 18}
    assert body["session_policy"]["Statement"][0]["Resource"] == "arn:aws:s3:::reports/*"
    assert body["source_identity"] == body["principal"]["id"]
    assert list(body["tags"]) == ["broker:issuance"]
    assert body["duration"]["bound_by"] == "requested"
    # Nothing was asked of AWS, nothing recorded, nothing issued.
    assert broker.sts.calls == []
    assert await records(admin) == before
    issued = (await ada.api.get("/v1/issuances", headers=bearer(ada))).json()
    assert issued["issuances"] == []


async def records(admin: LoggedIn) -> list[str]:
    found = await admin.api.get("/v1/audit/records", headers=bearer(admin), params={"limit": 1000})
    return [record["type"] for record in found.json()["records"]]


async def test_a_refusal_names_the_condition(broker: Running, admin: LoggedIn) -> None:
    ada = await logged_in_person(broker, ADA)
    body = (await why(ada, set="bucket=logs", address="198.51.100.7")).json()
    assert (body["allowed"], body["code"]) == (False, "outside_network")
    [miss] = body["near_misses"]
    assert miss["condition"] == "networks"
    assert miss["failed"][0]["satisfied_by"] == "a client address in 203.0.113.0/24"
    # The same request, really made from there, is refused with the same code.
    far = broker.client(address="198.51.100.7")
    refused = await far.post(
        "/v1/credentials",
        json={"role": "data-reader", "parameters": {"bucket": "logs"}},
        headers=bearer(ada),
    )
    assert problem(refused) == (403, body["code"])
    needs = (await why(ada)).json()
    assert needs["code"] == "invalid_request"
    assert "--set bucket=" in needs["detail"]


async def test_others_are_for_auditors_and_admins(broker: Running, admin: LoggedIn) -> None:
    # Grace signs in before she is an auditor of a policy that counts: see test_api.
    ada, bob = await logged_in_person(broker, ADA), await logged_in_person(broker, BOB)
    ada_id = await my_id(ada)
    for reference in (ada_id, "corp/ada@example.com", "p-" + "a" * 16, "corp/nobody@example.com"):
        assert problem(await why(bob, principal=reference)) == (403, "forbidden")
    # What is not offered looks like what is not there, whoever it is said to be for.
    assert problem(await why(bob)) == problem(await why(bob, "no-such-role")) == (404, "not_found")
    assert problem(await why(bob, principal="corp/bob@example.com")) == (404, "not_found")
    same = await why(ada, set="bucket=logs", principal="corp/ADA@example.com")
    assert same.json()["allowed"] is True
    assert same.json()["assumed"] == []

    seen = (await why(admin, set="bucket=logs", principal=ada_id)).json()
    assert seen["allowed"] is True
    assert seen["principal"]["handle"] == "ada@example.com"
    assert seen["address"] == ADDRESS  # of her newest login
    assert "newest login" in seen["assumed"][0]
    refused = (await why(admin, principal="corp/bob@example.com")).json()
    assert (refused["allowed"], refused["code"]) == (False, "not_found")
    assert refused["near_misses"][0]["condition"] == "subject"
    assert problem(await why(admin, principal="p-" + "a" * 16)) == (404, "not_found")
    assert problem(await why(admin, "no-such-role", principal=ada_id)) == (404, "not_found")


async def test_an_auditor_may_ask_too(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    grace = await logged_in_person(broker, GRACE)
    await logged_in_person(broker, ADA)
    assert (await apply(admin, OFFICE)).status_code == 200
    seen = await why(grace, set="bucket=logs", principal="corp/ada@example.com")
    assert seen.json()["allowed"] is True
    assert (await why(grace)).json()["code"] == "not_found"


async def test_it_goes_by_how_they_are_logged_in(broker: Running, admin: LoggedIn) -> None:
    ada = await logged_in_person(broker, ADA)
    ada_id = await my_id(ada)
    of_ada = login_sessions.c.principal_id == ada_id
    old = datetime.now(UTC) - timedelta(hours=9)
    await change(broker, login_sessions, of_ada, mfa_time=old)
    stale = (await why(admin, set="bucket=logs", principal=ada_id)).json()
    assert (stale["code"], stale["near_misses"][0]["condition"]) == ("mfa_stale", "mfa_within")
    await change(broker, login_sessions, of_ada, mfa_time=None)
    assert (await why(admin, principal=ada_id)).json()["code"] == "mfa_required"
    await change(broker, login_sessions, of_ada, revoked_at=datetime.now(UTC))
    gone = (await why(admin, set="bucket=logs", principal=ada_id)).json()
    # Without a live login: as if just logged in, from nowhere that is known.
    assert gone["code"] == "outside_network"
    assert gone["address"] is None
    assert len(gone["assumed"]) == 2
    there = await why(admin, set="bucket=logs", principal=ada_id, address="203.0.113.1")
    assert there.json()["allowed"] is True
    await change(broker, principals, principals.c.id == ada_id, suspended_at=datetime.now(UTC))
    suspended = (await why(admin, principal=ada_id)).json()
    assert suspended["code"] == "suspended"
    assert suspended["principal"]["suspended"] is True


@pytest.mark.parametrize(
    "query",
    [
        {"set": "bucket"},
        {"set": ["bucket=logs", "bucket=reports"]},
        {"set": "../x=1"},
        {"set": "bucket=" + "x" * 2000},
        {"duration": "soon"},
        {"reason": "a\nb"},
        {"reason": "x" * 501},
        {"principal": "ada"},
        {"principal": "corp/a b@example.com"},
        {"principal": "p-" + "A" * 16},
        {"address": "localhost"},
        {"address": "10.0.0.0/8"},
    ],
)
async def test_odd_questions_are_refused(
    broker: Running, admin: LoggedIn, query: dict[str, Any]
) -> None:
    assert problem(await why(admin, **query)) == (422, "invalid_request")


async def test_odd_names_of_roles_are_refused(broker: Running, admin: LoggedIn) -> None:
    for name in ("DATA", "a" * 65, ".x", "a%00", "..%2f..%2faccess"):
        answer = await why(admin, name)
        assert answer.status_code in (404, 422), name
        assert answer.headers["content-type"] == "application/problem+json"
