"""Grants over HTTP: who gives what to whom, and that it holds and ends when it should."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.web.conftest import Running
from tests.web.journeys import POLICY, LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, GRACE, Person
from tests.web.test_api import age_factor, apply, problem

BOB = Person("bob")
LEAD = Person("lead", ("leads",))
GRANTABLE = POLICY.replace("role_maximum: 4h", "role_maximum: 4h\n    max_grant: 24h")
DELEGATED = GRANTABLE.replace(
    "admins: [{group: corp/platform}]",
    "admins: [{group: corp/platform}, {group: corp/leads, roles: [data-reader]}]",
)


@dataclass
class Scene:
    broker: Running
    admin: LoggedIn
    bob: LoggedIn
    bob_id: str

    async def give(self, who: LoggedIn | None = None, **changes: Any) -> httpx.Response:
        who = who or self.admin
        headers = changes.pop("headers", {})
        body = {
            "principal": self.bob_id,
            "role": "data-reader",
            "duration": 3600,
            "reason": "on call",
        } | changes
        body = {name: value for name, value in body.items() if value is not None}
        return await who.api.post("/v1/grants", json=body, headers={**bearer(who), **headers})

    async def credentials(self, who: LoggedIn | None = None) -> httpx.Response:
        who = who or self.bob
        asked = {"role": "data-reader", "parameters": {"bucket": "reports"}}
        return await who.api.post("/v1/credentials", json=asked, headers=bearer(who))

    async def revoke(self, grant_id: str, who: LoggedIn | None = None) -> httpx.Response:
        who = who or self.admin
        return await who.api.post(
            f"/v1/grants/{grant_id}/revoke", json={"reason": "over"}, headers=bearer(who)
        )


async def id_of(who: LoggedIn) -> str:
    me = (await who.api.get("/v1/me", headers=bearer(who))).json()
    return str(me["id"])


@pytest.fixture
async def scene(broker: Running) -> Scene:
    admin = await logged_in_admin(broker)
    assert (await apply(admin, GRANTABLE)).status_code == 200
    bob = await logged_in_person(broker, BOB)
    return Scene(broker, admin, bob, await id_of(bob))


async def test_granted_used_and_taken_back(scene: Scene) -> None:
    assert problem(await scene.credentials()) == (404, "not_found")
    given = await scene.give()
    assert given.status_code == 201, given.text
    grant = given.json()
    assert (grant["state"], grant["handle"]) == ("active", "bob@example.com")
    roles = (await scene.bob.api.get("/v1/roles", headers=bearer(scene.bob))).json()["roles"]
    assert [(one["name"], one["availability"]) for one in roles] == [("data-reader", "granted")]
    assert roles[0]["grant_expires_at"] == grant["expires_at"]

    issued = (await scene.credentials()).json()
    assert issued["duration"]["bound_by"] == "grant_remaining"
    expires = datetime.fromisoformat(issued["credentials"]["expiration"])
    assert expires <= datetime.fromisoformat(grant["expires_at"])
    stored = await scene.bob.api.get(
        f"/v1/issuances/{issued['issuance_id']}", headers=bearer(scene.bob)
    )
    assert stored.json()["grant_id"] == grant["id"]
    why = await scene.bob.api.get(
        "/v1/roles/data-reader/explain?set=bucket=reports", headers=bearer(scene.bob)
    )
    assert why.json()["matched"]["grant_id"] == grant["id"]

    revoked = await scene.revoke(grant["id"])
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    assert problem(await scene.credentials()) == (404, "not_found")
    assert problem(await scene.revoke(grant["id"])) == (409, "conflict")
    records = await scene.admin.api.get("/v1/audit/records?limit=1000", headers=bearer(scene.admin))
    types = [one["type"] for one in records.json()["records"]]
    assert types.index("grant.created") < types.index("grant.revoked")


async def test_too_little_left_of_a_grant_is_said(scene: Scene) -> None:
    grant = (await scene.give(duration=900)).json()
    assert grant["usable_until"] < grant["not_before"]
    refused = await scene.credentials()
    assert problem(refused) == (403, "duration_too_short")
    assert refused.json()["bound_by"] == "grant_remaining"
    # Another one beside it is long enough, and is the one that counts.
    longer = (await scene.give(duration=7200)).json()
    assert (await scene.credentials()).status_code == 200
    await scene.revoke(longer["id"])
    assert problem(await scene.credentials()) == (403, "duration_too_short")


async def test_a_grant_to_come_gives_nothing_yet_and_says_when(scene: Scene) -> None:
    begins = datetime.now(UTC) + timedelta(hours=2)
    given = await scene.give(not_before=begins.isoformat())
    assert given.json()["state"] == "upcoming"
    assert problem(await scene.credentials()) == (403, "not_entitled")
    assert "not begun" in (await scene.credentials()).json()["detail"]


async def test_nobody_gives_to_themselves_or_without_the_right(scene: Scene) -> None:
    admin_id = await id_of(scene.admin)
    assert problem(await scene.give(principal=admin_id)) == (403, "self_approval")
    assert problem(
        await scene.give(principal=None, user="corp/root@example.com")
    ) == (403, "self_approval")  # fmt: skip
    assert problem(await scene.give(scene.bob, principal=admin_id)) == (403, "forbidden")
    assert problem(await scene.give(scene.bob)) == (403, "forbidden")
    # To those who may not give it, a role is as good as not there.
    assert problem(await scene.give(scene.bob, role="nothing")) == (403, "forbidden")
    assert problem(await scene.give(role="nothing")) == (404, "not_found")
    await age_factor(scene.broker, scene.admin)
    assert problem(await scene.give()) == (403, "mfa_stale")


async def test_the_role_says_how_long_a_grant_may_be(scene: Scene) -> None:
    assert (await scene.give(duration=86400)).status_code == 201
    longer = await scene.give(duration=86401)
    assert (problem(longer), longer.json()["max_grant"]) == ((422, "invalid_request"), 86400)
    forbidden = GRANTABLE.replace("max_grant: 24h", "max_grant: 0")
    assert (await apply(scene.admin, forbidden, version=1)).status_code == 200
    assert problem(await scene.give()) == (403, "forbidden")


NO_GRANTS: list[dict[str, Any]] = [
    {"reason": " "},
    {"reason": "x" * 501},
    {"reason": "on\ncall"},
    {"reason": "on\x00call"},
    {"expires_at": "0001-01-01T00:00:00+14:00"},
    {"reason": None},
    {"duration": None},
    {"duration": "3600"},
    {"duration": 0},
    {"duration": True},
    {"duration": 10**30},
    {"expires_at": "2099-01-01T00:00:00Z"},
    {"duration": None, "expires_at": "2026-12-01T00:00:00"},
    {"duration": None, "expires_at": 4102444800},
    {"duration": None, "expires_at": "4102444800"},
    {"not_before": "2020-01-01T00:00:00Z"},
    {"not_before": "9999-12-31T23:59:59Z"},
    {"principal": None},
    {"user": "corp/bob@example.com"},
    {"principal": None, "user": "corp/b\x00b@example.com"},
    {"principal": "w-" + "a" * 16},
    {"principal": "p-../../etc"},
    {"role": "Data Reader"},
    {"unknown": 1},
    {"headers": {"idempotency-key": "a b"}},
    {"headers": {"idempotency-key": "x" * 256}},
]


async def test_what_is_not_a_grant_is_refused(scene: Scene) -> None:
    for changes in NO_GRANTS:
        refused = await scene.give(**changes)
        assert problem(refused) == (422, "invalid_request"), changes
    listed = await scene.admin.api.get("/v1/grants", headers=bearer(scene.admin))
    assert listed.json() == {"grants": [], "next": None}


async def test_people_are_named_by_address_once_they_were_seen(scene: Scene) -> None:
    given = await scene.give(principal=None, user="corp/BOB@example.com")
    assert given.json()["principal_id"] == scene.bob_id
    unseen = await scene.give(principal=None, user="corp/unseen@example.com")
    assert problem(unseen) == (404, "not_found")
    assert problem(await scene.give(principal="p-" + "a" * 16)) == (404, "not_found")


async def test_a_repeated_request_makes_one_grant(scene: Scene) -> None:
    key = {"idempotency-key": "once"}
    first, again = [(await scene.give(headers=key)).json() for _ in range(2)]
    assert first == again
    other = await scene.give(headers=key, duration=7200)
    assert problem(other) == (409, "conflict")
    listed = await scene.admin.api.get("/v1/grants", headers=bearer(scene.admin))
    assert len(listed.json()["grants"]) == 1


async def test_each_sees_their_own_and_auditors_all(scene: Scene) -> None:
    mine = (await scene.give()).json()["id"]
    ada = await logged_in_person(scene.broker, ADA)
    grace = await logged_in_person(scene.broker, GRACE, await invitation(scene, GRACE))
    theirs = (await scene.give(principal=await id_of(ada))).json()["id"]

    async def listed(who: LoggedIn, query: str = "") -> list[str]:
        answer = await who.api.get(f"/v1/grants{query}", headers=bearer(who))
        return [one["id"] for one in answer.json()["grants"]]

    assert await listed(scene.bob) == [mine]
    assert await listed(ada) == [theirs]
    assert await listed(ada, f"?principal={scene.bob_id}") == []
    for everything in (scene.admin, grace):
        assert await listed(everything) == [theirs, mine]
        assert await listed(everything, "?limit=1") == [theirs]
        assert await listed(everything, f"?limit=1&after={theirs}") == [mine]
        assert await listed(everything, "?active=false") == []
    hidden = await ada.api.get(f"/v1/grants/{mine}", headers=bearer(ada))
    assert problem(hidden) == (404, "not_found")
    assert problem(await scene.revoke(mine, ada)) == (404, "not_found")
    assert problem(await scene.revoke(mine, grace)) == (403, "forbidden")
    # Who has a right may always give it up.
    assert (await scene.revoke(mine, scene.bob)).status_code == 200


async def invitation(scene: Scene, person: Person) -> str:
    asked = {"provider": "corp", "email": person.email}
    answer = await scene.admin.api.post(
        "/v1/enrolment-codes", json=asked, headers=bearer(scene.admin)
    )
    return str(answer.json()["code"])


async def test_delegated_admins_give_their_roles_to_others(scene: Scene) -> None:
    assert (await apply(scene.admin, DELEGATED, version=1)).status_code == 200
    lead = await logged_in_person(scene.broker, LEAD, await invitation(scene, LEAD))
    given = await scene.give(lead)
    assert given.status_code == 201, given.text
    assert problem(await scene.give(lead, principal=await id_of(lead))) == (403, "self_approval")
    assert problem(await scene.give(lead, role="other")) == (403, "forbidden")
    other = (await scene.give(scene.admin)).json()["id"]
    listed = (await lead.api.get("/v1/grants", headers=bearer(lead))).json()["grants"]
    assert {one["id"] for one in listed} == {given.json()["id"], other}
    assert (await scene.revoke(other, lead)).status_code == 200
