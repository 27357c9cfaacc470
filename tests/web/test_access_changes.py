"""Two admins and one policy: what waits, who approves it, and what the record says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.web.conftest import Running
from tests.web.journeys import POLICY, LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, GRACE, Person
from tests.web.test_api import age_factor, apply, problem

BOB = Person("bob", ("platform", "analysts"))
WIDER = POLICY.replace("max_duration: 2h", "max_duration: 3h")
URL = "/v1/access/changes"


@pytest.fixture
def broker_url(database_url: str) -> str:
    """Once on SQLite and once on PostgreSQL."""
    return database_url


async def two_admins(broker: Running) -> tuple[LoggedIn, LoggedIn]:
    """The bootstrapped one, who has no role, and Bob, who is one by group and an analyst."""
    root = await logged_in_admin(broker)
    bob = await logged_in_person(broker, BOB)  # before he is an admin: those never enrol openly
    assert (await apply(root, POLICY)).status_code == 200
    return root, bob


async def post(who: LoggedIn, change: str, verb: str) -> httpx.Response:
    return await who.api.post(f"{URL}/{change}/{verb}", headers=bearer(who))


async def records(who: LoggedIn, kind: str) -> list[dict[str, Any]]:
    answer = await who.api.get("/v1/audit/records", params={"type": kind}, headers=bearer(who))
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


async def version(who: LoggedIn) -> int:
    number: int = (await who.api.get("/v1/access", headers=bearer(who))).json()["version"]
    return number


async def test_what_adds_rights_to_its_applier_waits_for_another_admin(broker: Running) -> None:
    root, bob = await two_admins(broker)
    plan = await bob.api.put(
        "/v1/access?dry_run=true", content=WIDER, headers=bearer(bob) | {"if-match": '"1"'}
    )
    assert plan.json()["waits"] is True
    assert plan.json()["self_granted"] is False
    assert plan.json()["gains"] == ["group corp/analysts has role data-reader on wider terms"]
    assert any("[1 known: bob@example.com]" in line for line in plan.json()["rights"])

    waiting = await apply(bob, WIDER, version=1)
    assert waiting.status_code == 202
    change = waiting.json()["change_id"]
    assert waiting.headers["location"] == f"{URL}/{change}"
    assert waiting.json()["approvers"] == ["root@example.com"]
    assert await version(root) == 1

    own = await post(bob, change, "approve")
    assert problem(own) == (403, "self_approval")
    shown = await root.api.get(f"{URL}/{change}", headers=bearer(root))
    assert shown.json()["text"] == WIDER
    assert (shown.json()["state"], shown.json()["author_handle"]) == ("pending", "bob@example.com")
    assert shown.json()["outdated"] is False

    await age_factor(broker, root)
    assert problem(await post(root, change, "approve")) == (403, "mfa_stale")
    code = {"code": root.browser.code()}
    assert (await root.api.post("/v1/mfa/verify", json=code, headers=bearer(root))).is_success
    done = await post(root, change, "approve")
    assert done.status_code == 200, done.text
    assert done.json()["version"] == 2
    bob_id = (await bob.api.get("/v1/me", headers=bearer(bob))).json()["id"]
    assert done.json()["applied_by"] == bob_id
    assert await version(root) == 2
    assert problem(await post(root, change, "approve")) == (409, "conflict")

    (proposed,) = await records(root, "access.proposed")
    (approved,) = await records(root, "access.approved")
    applied = (await records(root, "access.applied"))[-1]
    assert proposed["actor"]["id"] == bob_id
    assert approved["actor"]["handle"] == "root@example.com"
    assert applied["detail"]["self_granted"] is False
    assert applied["detail"]["author"] == bob_id
    assert applied["detail"]["version"] == 2


async def test_what_adds_nothing_to_its_applier_is_applied_at_once(broker: Running) -> None:
    root, bob = await two_admins(broker)
    # Root is no analyst; Bob narrows what he has.
    assert (await apply(root, WIDER, version=1)).status_code == 200
    assert (await apply(bob, POLICY, version=2)).status_code == 200
    for record in (await records(root, "access.applied"))[1:]:
        assert record["detail"]["self_granted"] is False
    assert await records(root, "access.proposed") == []


async def test_the_only_admin_applies_it_and_the_record_says_so(broker: Running) -> None:
    root = await logged_in_admin(broker)
    mine = POLICY.replace("{group: analysts}", '{user: "root@example.com"}')
    plan = await root.api.put("/v1/access?dry_run=true", content=mine, headers=bearer(root))
    assert (plan.json()["waits"], plan.json()["self_granted"]) == (False, True)
    answer = await apply(root, mine)
    assert answer.status_code == 200
    assert answer.json()["self_granted"] is True
    (applied,) = await records(root, "access.applied")
    assert applied["detail"]["self_granted"] is True
    assert applied["detail"]["gains"] == ["user corp/root@example.com gains role data-reader"]


async def test_an_admin_cannot_first_remove_the_other_and_then_widen(broker: Running) -> None:
    root, bob = await two_admins(broker)
    alone = POLICY.replace("{group: corp/platform}", '{user: "bob@example.com"}')
    assert (await apply(bob, alone, version=1)).status_code == 202  # he is named anew
    await apply(root, alone, version=1)
    # Root stays one: bootstrapped admins are no matter of the file.
    assert (await apply(bob, WIDER, version=2)).status_code == 202


async def test_a_change_on_an_older_version_is_refused_and_kept(broker: Running) -> None:
    root, bob = await two_admins(broker)
    change = (await apply(bob, WIDER, version=1)).json()["change_id"]
    assert (await apply(root, POLICY + "# moved\n", version=1)).status_code == 200
    refused = await post(root, change, "approve")
    assert problem(refused) == (412, "precondition_failed")
    assert await version(root) == 2
    kept = (await bob.api.get(f"{URL}/{change}", headers=bearer(bob))).json()
    assert (kept["state"], kept["outdated"], kept["text"]) == ("pending", True, WIDER)


async def test_a_change_is_withdrawn_by_its_author_or_an_admin_and_nobody_else(
    broker: Running,
) -> None:
    root, bob = await two_admins(broker)
    ada = await logged_in_person(broker, ADA)
    first, second = [(await apply(bob, WIDER, version=1)).json()["change_id"] for _ in range(2)]
    assert problem(await post(ada, first, "withdraw")) == (404, "not_found")
    assert (await post(bob, first, "withdraw")).json()["state"] == "withdrawn"
    assert (await post(root, second, "withdraw")).json()["state"] == "withdrawn"
    assert problem(await post(root, second, "withdraw")) == (409, "conflict")
    assert problem(await post(root, first, "approve")) == (409, "conflict")
    assert len(await records(root, "access.withdrawn")) == 2


async def test_who_may_look_and_who_may_not(broker: Running) -> None:
    grace = await logged_in_person(broker, GRACE)
    root, bob = await two_admins(broker)
    ada = await logged_in_person(broker, ADA)
    ids = [(await apply(bob, WIDER, version=1)).json()["change_id"] for _ in range(3)]
    page = (await grace.api.get(f"{URL}?limit=2", headers=bearer(grace))).json()
    assert [one["id"] for one in page["changes"]] == [ids[2], ids[1]]
    assert "text" not in page["changes"][0]
    rest = await grace.api.get(URL, params={"after": page["next"]}, headers=bearer(grace))
    assert [one["id"] for one in rest.json()["changes"]] == [ids[0]]
    assert rest.json()["next"] is None
    for path in (URL, f"{URL}/{ids[0]}"):
        assert problem(await ada.api.get(path, headers=bearer(ada))) == (403, "forbidden")
    assert problem(await post(grace, ids[0], "approve")) == (403, "forbidden")
    unknown = "chg-" + "a" * 26
    assert problem(await post(root, unknown, "approve")) == (404, "not_found")
    for malformed in ("chg-1", "x", "chg-" + "A" * 26):
        assert problem(await post(root, malformed, "approve")) == (422, "invalid_request")


@pytest.mark.parametrize("limits", ["accounts: [prod]", "roles: [data-reader]"])
async def test_a_delegated_admin_applies_and_approves_nothing(broker: Running, limits: str) -> None:
    root = await logged_in_admin(broker)
    bob = await logged_in_person(broker, BOB)
    policy = POLICY.replace("{group: corp/platform}", f"{{group: corp/platform, {limits}}}")
    assert (await apply(root, policy)).status_code == 200
    rights = (await bob.api.get("/v1/me", headers=bearer(bob))).json()["rights"]
    assert rights == ["delegated_admin"]
    assert problem(await apply(bob, WIDER, version=1)) == (403, "forbidden")
    assert problem(await post(bob, "chg-" + "a" * 26, "approve")) == (403, "forbidden")
    # Nor is there a second admin by that.
    mine = WIDER.replace("{group: analysts}", '{user: "root@example.com"}')
    assert (await apply(root, mine, version=1)).json()["self_granted"] is True


async def test_a_generated_external_id_is_sent_and_stands_in_no_text(broker: Running) -> None:
    root = await logged_in_admin(broker)
    ada = await logged_in_person(broker, ADA)
    text = POLICY.replace("    role_maximum", "    external_id: {generate: true}\n    role_maximum")
    assert (await apply(root, text)).status_code == 200
    for _ in range(2):
        answer = await ada.api.post(
            "/v1/credentials",
            json={"role": "data-reader", "parameters": {"bucket": "logs"}},
            headers=bearer(ada),
        )
        assert answer.status_code == 200, answer.text
    first, second = (call.external_id for call in broker.sts.calls)
    assert first is not None
    assert first.startswith("broker-")
    assert first == second
    stored = (await root.api.get("/v1/access", headers=bearer(root))).text
    log = (await root.api.get("/v1/audit/export", headers=bearer(root))).text
    assert first not in stored + log
    # The text in force is no change against itself.
    headers = bearer(root) | {"if-match": '"1"'}
    plan = await root.api.put("/v1/access?dry_run=true", content=text, headers=headers)
    assert plan.json()["diff"] == []
