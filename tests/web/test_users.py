"""People over HTTP: lists, login sessions, codes for a group, suspending and reinstating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.web.conftest import Running
from tests.web.journeys import POLICY, LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, GRACE, Browser, Person
from tests.web.test_api import age_factor, apply, problem

BOB = Person("bob")


@dataclass
class Scene:
    broker: Running
    admin: LoggedIn
    admin_id: str
    ada: LoggedIn
    ada_id: str

    async def ask(self, who: LoggedIn, method: str, path: str, **body: Any) -> httpx.Response:
        options: dict[str, Any] = {"json": body} if method == "POST" else {}
        return await who.api.request(method, path, headers=bearer(who), **options)

    async def admins(self, method: str, path: str, **body: Any) -> httpx.Response:
        return await self.ask(self.admin, method, path, **body)


@pytest.fixture
async def scene(broker: Running) -> Scene:
    admin = await logged_in_admin(broker)
    ada = await logged_in_person(broker, ADA)
    assert (await apply(admin, POLICY)).status_code == 200
    ids = [(await who.api.get("/v1/me", headers=bearer(who))).json()["id"] for who in (admin, ada)]
    return Scene(broker, admin, ids[0], ada, ids[1])


async def test_the_list_and_one_of_it(scene: Scene) -> None:
    listed = (await scene.admins("GET", "/v1/users")).json()
    assert [one["handle"] for one in listed["users"]] == ["ada@example.com", "root@example.com"]
    ada, root = listed["users"]
    assert root["rights"] == ["admin"]
    assert ada["groups"] == ["corp/analysts"]
    assert (ada["second_factor"], ada["live_sessions"], ada["suspended_at"]) == (True, 2, None)
    assert (await scene.admins("GET", f"/v1/users/{scene.ada_id}")).json() == ada
    for query, found in (
        ("group=corp/analysts", [ada]),
        ("group=analysts", []),
        ("q=ROOT", [root]),
        ("limit=1", [ada]),
        (f"after={scene.ada_id}", [root]),
        ("kind=workload", []),
        ("second_factor=false", []),
    ):
        answer = (await scene.admins("GET", f"/v1/users?{query}")).json()
        assert answer["users"] == found, query
    missing = await scene.admins("GET", f"/v1/users/p-{'a' * 16}")
    assert problem(missing) == (404, "not_found")
    for query in ("limit=0", "limit=1001", "after=x", "q=", "kind=robot"):
        refused = await scene.admins("GET", f"/v1/users?{query}")
        assert problem(refused) == (422, "invalid_request"), query


async def test_auditors_read_admins_act_and_others_do_neither(scene: Scene) -> None:
    code = (
        await scene.admins("POST", "/v1/enrolment-codes", provider="corp", email=GRACE.email)
    ).json()["code"]
    grace = await logged_in_person(scene.broker, GRACE, code)
    user = f"/v1/users/{scene.admin_id}"
    for path in ("/v1/users", user, f"{user}/sessions", f"{user}/live"):
        assert (await scene.ask(grace, "GET", path)).status_code == 200
        assert problem(await scene.ask(scene.ada, "GET", path)) == (403, "forbidden")
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", f"{user}/sessions", {}),
        ("DELETE", f"{user}/sessions/ls-{'0' * 20}", {}),
        ("POST", f"{user}/suspend", {"reason": "x"}),
        ("POST", f"{user}/reinstate", {"reason": "x"}),
        ("POST", "/v1/enrolment-codes", {"group": "corp/analysts"}),
    ]
    for method, path, body in changes:
        for who in (grace, scene.ada):
            answer = await scene.ask(who, method, path, **body)
            assert problem(answer) == (403, "forbidden"), path
    await age_factor(scene.broker, scene.admin)
    for method, path, body in changes:
        assert problem(await scene.admins(method, path, **body)) == (403, "mfa_stale"), path


async def test_an_admin_ends_sessions_and_they_are_over(scene: Scene) -> None:
    path = f"/v1/users/{scene.ada_id}/sessions"
    listed = (await scene.admins("GET", path)).json()["sessions"]
    assert {one["client"] for one in listed} == {"cli", "browser"}
    assert not any(one["current"] for one in listed)
    [cli] = [one for one in listed if one["client"] == "cli"]
    ended = await scene.admins("DELETE", f"{path}/{cli['id']}")
    assert ended.json() == {"ended": [cli["id"]]}
    assert problem(await scene.ask(scene.ada, "GET", "/v1/me")) == (401, "unauthenticated")
    again = await scene.admins("DELETE", f"{path}/{cli['id']}")
    assert problem(again) == (404, "not_found")
    own = (await scene.admins("GET", "/v1/me/sessions")).json()["sessions"]
    # Of somebody else under this path: not found, and alive.
    strange = await scene.admins("DELETE", f"{path}/{own[0]['id']}")
    assert problem(strange) == (404, "not_found")
    assert len((await scene.admins("DELETE", path)).json()["ended"]) == 1
    assert (await scene.admins("GET", path)).json()["sessions"] == []
    unknown = await scene.admins("DELETE", f"/v1/users/p-{'a' * 16}/sessions")
    assert problem(unknown) == (404, "not_found")


async def test_everybody_lists_and_ends_their_own(scene: Scene) -> None:
    listed = (await scene.ask(scene.ada, "GET", "/v1/me/sessions")).json()["sessions"]
    assert [one["current"] for one in listed] == [True, False]
    foreign = (await scene.admins("GET", "/v1/me/sessions")).json()["sessions"][0]["id"]
    refused = await scene.ask(scene.ada, "DELETE", f"/v1/me/sessions/{foreign}")
    assert problem(refused) == (404, "not_found")
    ended = await scene.ask(scene.ada, "DELETE", "/v1/me/sessions")
    assert ended.json() == {"ended": [listed[1]["id"]]}
    page = await scene.ada.browser.get("/mfa")
    assert page.status_code == 303  # to sign in anew
    last = await scene.ask(scene.ada, "DELETE", f"/v1/me/sessions/{listed[0]['id']}")
    assert last.status_code == 200
    assert problem(await scene.ask(scene.ada, "GET", "/v1/me")) == (401, "unauthenticated")


async def test_codes_for_the_members_of_a_group_who_lack_a_factor(scene: Scene) -> None:
    browsers = {}
    for name in ("new1", "new2"):
        person = Person(name, ("analysts",))
        browsers[name] = Browser(scene.broker.client())
        await browsers[name].sign_in(scene.broker.provider.register(person))
    first = await scene.admins("POST", "/v1/enrolment-codes", group="corp/analysts", limit=1)
    assert first.status_code == 201, first.text
    [one] = first.json()["codes"]
    assert one["handle"] == "new1@example.com"
    rest = await scene.admins(
        "POST", "/v1/enrolment-codes", group="corp/analysts", after=first.json()["next"]
    )
    assert [code["handle"] for code in rest.json()["codes"]] == ["new2@example.com"]
    assert rest.json()["next"] is None
    page = await browsers["new1"].get("/mfa/enroll")
    shown = await browsers["new1"].enrol(page, one["code"])
    assert shown.status_code == 200, shown.text
    left = await scene.admins("POST", "/v1/enrolment-codes", group="corp/analysts")
    assert [code["handle"] for code in left.json()["codes"]] == ["new2@example.com"]
    nobody = await scene.admins("POST", "/v1/enrolment-codes", group="corp/nobody")
    assert nobody.json() == {"codes": [], "expires_at": None, "next": None}
    records = (await scene.admins("GET", "/v1/audit/records?type=enrolment_code.created")).json()
    assert [r["detail"].get("group") for r in records["records"]].count("corp/analysts") == 3
    assert one["code"] not in str(records)
    for body in (
        {"group": "corp/x", "principal": scene.ada_id},
        {"group": "corp/x", "limit": 101},
        {"principal": scene.ada_id, "limit": 5},
        {"group": ""},
        {},
    ):
        refused = await scene.admins("POST", "/v1/enrolment-codes", **body)
        assert problem(refused) == (422, "invalid_request"), body


async def test_suspended_at_once_and_told_what_aws_must_deny(scene: Scene) -> None:
    asked = {"role": "data-reader", "parameters": {"bucket": "reports"}}
    issued = (await scene.ask(scene.ada, "POST", "/v1/credentials", **asked)).json()
    path = f"/v1/users/{scene.ada_id}"
    answer = await scene.admins("POST", f"{path}/suspend", reason=" laptop stolen ")
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["already_suspended"], done["reason"]) == (False, "laptop stolen")
    assert done["login_sessions_ended"] == 2
    [live] = done["live_issuances"]
    assert live["session_name"] == issued["session_name"]
    assert live["expires_at"] == issued["credentials"]["expiration"]
    assert live["assumed_role_id"] == f"AROAEXAMPLE:{issued['session_name']}"
    [role] = done["roles"]
    assert role["role_arn"] == issued["role_arn"]
    assert role["last_expires_at"] == live["expires_at"]
    assert role["may_chain"] is False
    assert role["policy_name"] == f"broker-deny-{scene.ada_id}"
    [statement] = role["policy"]["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceIdentity": scene.ada_id}}
    assert issued["source_identity"] == scene.ada_id

    assert problem(await scene.ask(scene.ada, "POST", "/v1/credentials", **asked))[0] == 401
    refresh = await scene.ada.api.post(
        "/oauth/token",
        data={
            "grant_type": "refresh_token",
            "client_id": "broker-cli",
            "refresh_token": scene.ada.refresh_token,
        },
    )
    assert refresh.json()["error"] == "invalid_grant"
    page = await scene.ada.browser.sign_in(scene.broker.provider.register(ADA))
    assert page.status_code == 403
    again = await scene.admins("POST", f"{path}/suspend", reason="other")
    assert (again.json()["already_suspended"], again.json()["reason"]) == (True, "laptop stolen")
    listed = (await scene.admins("GET", "/v1/users?suspended=true")).json()["users"]
    assert [one["suspended_reason"] for one in listed] == ["laptop stolen"]
    assert (await scene.admins("GET", f"{path}/live")).json()["live_issuances_total"] == 1

    back = (await scene.admins("POST", f"{path}/reinstate", reason="found")).json()
    [statement] = back["roles"][0]["policy"]["Statement"]
    assert statement["Condition"]["DateLessThan"] == {"aws:TokenIssueTime": back["lifted_at"]}
    page = await scene.ada.browser.sign_in(scene.broker.provider.register(ADA))
    assert page.url.path == "/mfa"  # with the factor she has
    twice = await scene.admins("POST", f"{path}/reinstate", reason="found")
    assert problem(twice) == (409, "conflict")
    records = (await scene.admins("GET", f"/v1/audit/records?principal={scene.ada_id}")).json()
    types = [one["type"] for one in records["records"]]
    assert types[types.index("revocation.requested") :] == [
        "revocation.requested",
        "session.revoked",
        "login.failed",
        "revocation.lifted",
        "login.succeeded",
    ]


async def test_who_can_not_be_suspended(scene: Scene) -> None:
    own = await scene.admins("POST", f"/v1/users/{scene.admin_id}/suspend", reason="x")
    assert problem(own) == (403, "forbidden")
    unknown = await scene.admins("POST", f"/v1/users/w-{'a' * 16}/suspend", reason="x")
    assert problem(unknown) == (404, "not_found")
    not_suspended = await scene.admins("POST", f"/v1/users/{scene.ada_id}/reinstate", reason="x")
    assert problem(not_suspended) == (409, "conflict")
    reasons = ("", "\t", "x" * 501, 1, "a\nb", "a\x00b")
    for body in ({}, *({"reason": reason} for reason in reasons)):
        refused = await scene.admins("POST", f"/v1/users/{scene.ada_id}/suspend", **body)
        assert problem(refused) == (422, "invalid_request"), body
    assert (await scene.ask(scene.ada, "GET", "/v1/me")).status_code == 200
