"""The device flow over HTTP, and what guessers, phishers and thieves of codes get of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import update

from broker.adapters.store.schema import device_logins
from broker.identity.device import ALPHABET, DeviceFlow
from broker.identity.throttle import DEVICE_PER_ADDRESS, USER_CODE_PER_ACCOUNT
from broker.settings import Settings
from broker.web import gate
from tests.web.conftest import ADDRESS, ORIGIN, Running, running
from tests.web.journeys import (
    POLICY,
    LoggedIn,
    bearer,
    enrolled_browser,
    logged_in_admin,
)
from tests.web.people import ADA, GRACE, Browser, field_of, text_of

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
MACHINE_ADDRESS = "198.51.100.40"


@dataclass
class Machine:
    """A machine without a browser, at another address."""

    client: httpx.AsyncClient
    device_code: str
    user_code: str

    async def poll(self, device_code: str | None = None) -> httpx.Response:
        form = {
            "grant_type": GRANT_TYPE,
            "client_id": "broker-cli",
            "device_code": device_code or self.device_code,
        }
        return await self.client.post("/oauth/token", data=form)

    async def error(self) -> str:
        answer = await self.poll()
        assert answer.status_code == 400, answer.text
        error: str = answer.json()["error"]
        return error


async def machine(
    broker: Running, *, host_name: str = "build-7", address: str = MACHINE_ADDRESS
) -> Machine:
    client = broker.client(address=address)
    answer = await client.post(
        "/oauth/device_authorization", data={"client_id": "broker-cli", "host_name": host_name}
    )
    assert answer.status_code == 200, answer.text
    return Machine(client, answer.json()["device_code"], answer.json()["user_code"])


async def decision_page(browser: Browser, user_code: str) -> httpx.Response:
    """Type the code, and land on the page that asks."""
    page = await browser.get("/device")
    assert page.status_code == 200, page.text
    return await browser.submit(page, "/device", {"user_code": user_code})


async def decide(
    browser: Browser, user_code: str, decision: str = "allow", code: str | None = None
) -> httpx.Response:
    page = await decision_page(browser, user_code)
    assert page.status_code == 200, page.text
    values = {"user_code": user_code, "decision": decision, "code": code or browser.code()}
    return await browser.submit(page, "/device", values)


async def device_login(broker: Running, browser: Browser) -> dict[str, str]:
    """The headers of a session that `browser` allowed."""
    waiting = await machine(broker)
    done = await decide(browser, waiting.user_code)
    assert done.status_code == 200, done.text
    tokens = (await waiting.poll()).json()
    return {"authorization": f"Bearer {tokens['access_token']}"}


async def records(broker: Running, *types: str) -> list[dict[str, Any]]:
    """Those of these types, oldest first, as an auditor reads them over the API."""
    admin = await logged_in_admin(broker)
    answer = await admin.api.get("/v1/audit/records?limit=1000", headers=bearer(admin))
    assert answer.status_code == 200, answer.text
    return [record for record in answer.json()["records"] if record["type"] in types]


async def change(broker: Running, **values: Any) -> None:
    database = broker.app.state.parts.people._database
    async with database.begin() as conn:
        await conn.execute(update(device_logins).values(**values))


# --- the way it goes --------------------------------------------------------


async def test_a_machine_is_logged_in_by_a_code_a_click_and_a_fresh_second_factor(
    broker: Running,
) -> None:
    metadata = (await broker.client().get("/.well-known/oauth-authorization-server")).json()
    assert metadata["device_authorization_endpoint"] == f"{ORIGIN}/oauth/device_authorization"
    assert GRANT_TYPE in metadata["grant_types_supported"]

    client = broker.client(address=MACHINE_ADDRESS)
    started = await client.post("/oauth/device_authorization", data={"client_id": "broker-cli"})
    assert started.headers["cache-control"] == "no-store"
    body = started.json()
    assert re.fullmatch(rf"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", body["user_code"])
    assert len(body["device_code"]) == 43
    assert body["verification_uri"] == f"{ORIGIN}/device"
    assert body["verification_uri_complete"] == f"{ORIGIN}/device?user_code={body['user_code']}"
    assert (body["expires_in"], body["interval"]) == (600, 5)

    waiting = Machine(client, body["device_code"], body["user_code"])
    assert await waiting.error() == "authorization_pending"
    assert await waiting.error() == "slow_down"

    browser = await enrolled_browser(broker, ADA)
    done = await decide(browser, waiting.user_code)
    assert done.status_code == 200
    assert "is being logged in" in done.text
    answer = await waiting.poll()
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    token = {"authorization": f"Bearer {answer.json()['access_token']}"}
    me = (await client.get("/v1/me", headers=token)).json()
    assert me["handle"] == "ada@example.com"
    # The browser is still signed in, under the new cookie that a fresh factor brings.
    assert (await browser.get("/")).status_code == 200


async def test_the_page_shows_where_it_comes_from_and_warns_in_plain_words(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker, host_name="build-7.corp")
    page = await decision_page(browser, waiting.user_code)
    assert text_of(page, "user-code") == waiting.user_code
    assert "build-7.corp" in page.text
    assert "not verified" in page.text
    assert MACHINE_ADDRESS in page.text
    assert "not your network" in page.text
    assert text_of(page, "device-started").startswith("just now, ")
    assert "Did you start this yourself just now?" in page.text
    assert "temporary AWS credentials" in page.text
    assert "ada@example.com" in page.text
    # Enter presses the first button, which does nothing: it takes a click.
    form = page.text.partition('action="/device"')[2]
    assert form.index("disabled hidden") < form.index('value="allow"')
    near = await machine(broker, address=ADDRESS)
    assert '"pill good">your network' in (await decision_page(browser, near.user_code)).text
    await change(broker, created_at=datetime.now(UTC) - timedelta(minutes=5))
    late = await decision_page(browser, waiting.user_code)
    assert text_of(late, "device-started").startswith("5 minutes ago")


async def test_codes_are_read_as_people_type_them(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    letters = waiting.user_code.replace("-", "")
    for typed in (letters.lower(), f" {letters[:4]} {letters[4:]} ", "\u2013".join(letters)):
        page = await decision_page(browser, typed)
        assert text_of(page, "user-code") == waiting.user_code


async def test_what_the_machine_says_of_itself_is_never_more_than_a_name(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    hostile = '<b>IT</b>: "please" allow \u202e\x07this' + "x" * 500
    page = await decision_page(browser, (await machine(broker, host_name=hostile)).user_code)
    shown = page.text.partition('id="device-host-name"')[2].partition("</dd>")[0]
    name = re.sub(r"<[^>]*>", "", shown.partition(">")[2]).split()[0]
    assert re.fullmatch(r"[A-Za-z0-9._?-]{1,64}", name), name
    nameless = await decision_page(browser, (await machine(broker, host_name="")).user_code)
    assert text_of(nameless, "device-host-name").strip() == "nothing"


async def test_denying_needs_no_code_and_the_machine_is_told(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    page = await decision_page(browser, waiting.user_code)
    done = await browser.submit(
        page, "/device", {"user_code": waiting.user_code, "decision": "deny", "code": ""}
    )
    assert done.status_code == 200
    assert "Nothing was given out." in done.text
    assert await waiting.error() == "access_denied"
    # Denied is denied, also for who would still allow it.
    again = await browser.submit(
        page,
        "/device",
        {"user_code": waiting.user_code, "decision": "allow", "code": browser.code()},
    )
    assert again.status_code == 422
    assert await waiting.error() == "access_denied"
    [record] = await records(broker, "device.denied")
    assert record["actor"]["handle"] == "ada@example.com"
    assert record["detail"]["device"]["ip"] == MACHINE_ADDRESS


async def test_everything_is_on_record_and_no_code_is(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    await decide(browser, waiting.user_code)
    await waiting.poll()
    found = await records(broker, "device.approved", "login.succeeded")
    [approved] = [record for record in found if record["type"] == "device.approved"]
    [succeeded] = [record for record in found if record["detail"].get("client") == "device"]
    assert approved["actor"]["ip"] == ADDRESS
    assert approved["detail"]["device"]["host_name"] == "build-7"
    assert succeeded["actor"]["ip"] == MACHINE_ADDRESS
    assert succeeded["subject"]["device_login"] == approved["subject"]["device_login"]
    everything = str(await broker.app.state.parts.audit.records(limit=1000))
    for secret in (waiting.device_code, waiting.user_code, waiting.user_code.replace("-", "")):
        assert secret not in everything


# --- what is refused --------------------------------------------------------


async def test_no_get_approves_or_even_looks_anything_up(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    queries = (
        {"user_code": waiting.user_code},
        {"user_code": waiting.user_code, "decision": "allow", "code": browser.code()},
    )
    for query in queries:
        page = await browser.get("/device", params=query)
        assert page.status_code == 200
        assert field_of(page, "user_code") == waiting.user_code
        assert MACHINE_ADDRESS not in page.text
        assert 'name="decision"' not in page.text
    hostile = await browser.get("/device", params={"user_code": '"><script>alert(1)</script>'})
    assert "<script" not in hostile.text
    assert await waiting.error() == "authorization_pending"


async def test_a_link_leads_through_signing_in_to_the_filled_field(broker: Running) -> None:
    await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    visitor = await broker.client().get("/device", params={"user_code": waiting.user_code})
    assert visitor.status_code == 303
    target = visitor.headers["location"]
    assert target == f"/login?next=%2Fdevice%3Fuser_code%3D{waiting.user_code}"


@pytest.mark.parametrize("code", ["", "000000", "abcdef", "\uff11" * 6])
async def test_nothing_is_allowed_without_a_right_code_on_that_very_page(
    broker: Running, code: str
) -> None:
    browser = await enrolled_browser(broker, ADA)  # and its factor is fresh
    waiting = await machine(broker)
    page = await decision_page(browser, waiting.user_code)
    values = {"user_code": waiting.user_code, "decision": "allow", "code": code}
    refused = await browser.submit(page, "/device", values)
    assert refused.status_code == 422
    assert "That code is not right." in refused.text
    # The same page again, to try again.
    assert text_of(refused, "user-code") == waiting.user_code
    assert await waiting.error() == "authorization_pending"


async def test_a_one_time_code_allows_one_machine(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    first, second = await machine(broker), await machine(broker)
    code = browser.code()
    assert (await decide(browser, first.user_code, code=code)).status_code == 200
    replayed = await decide(browser, second.user_code, code=code)
    assert replayed.status_code == 422
    assert await second.error() == "authorization_pending"


async def test_too_many_wrong_one_time_codes_lock_the_account_here_too(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    answers = [await decide(browser, waiting.user_code, code="000000") for _ in range(7)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Wait" in answers[-1].text
    assert (await decide(browser, waiting.user_code)).status_code == 429


async def test_a_form_of_another_session_or_site_decides_nothing(broker: Running) -> None:
    browser, other = await enrolled_browser(broker, ADA), await enrolled_browser(broker, GRACE)
    waiting = await machine(broker)
    fields = {"user_code": waiting.user_code, "decision": "allow", "code": browser.code()}
    foreign = field_of(await other.get("/device"), "csrf_token")
    for token in ("", foreign, "x" * 43):
        refused = await browser.post("/device", {**fields, "csrf_token": token})
        assert refused.status_code == 403
    own = field_of(await browser.get("/device"), "csrf_token")
    evil = await browser.client.post(
        "/device", data={**fields, "csrf_token": own}, headers={"origin": "https://evil.test"}
    )
    assert evil.status_code == 403
    assert await waiting.error() == "authorization_pending"


async def test_a_pending_second_factor_does_not_reach_the_page(broker: Running) -> None:
    await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    pending = Browser(broker.client())
    page = await pending.sign_in(broker.provider.register(ADA))
    refused = await pending.submit(
        page, "/device", {"user_code": waiting.user_code, "decision": "deny"}
    )
    assert refused.status_code == 403
    assert await waiting.error() == "authorization_pending"


async def test_guesses_are_slowed_by_account_and_recorded(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get("/device")
    # A window may end meanwhile, but not two.
    for number in range(2 * USER_CODE_PER_ACCOUNT.count + 2):
        answer = await browser.submit(page, "/device", {"user_code": "BCDF-BCDF"})
        if answer.status_code == 429:
            break
        assert (number, answer.status_code) == (number, 422)
        assert "That code is not right, was used" in answer.text
    assert answer.status_code == 429
    # Also with the right one, and from elsewhere.
    waiting = await machine(broker)
    assert (
        await browser.submit(page, "/device", {"user_code": waiting.user_code})
    ).status_code == 429
    other = await enrolled_browser(broker, GRACE)
    assert (await decision_page(other, waiting.user_code)).status_code == 200
    failed = await records(broker, "login.failed")
    assert failed[0]["actor"]["handle"] == "ada@example.com"
    assert failed[0]["detail"]["reason"] == "unknown_user_code"


@pytest.mark.parametrize("typed", ["", "ABCD-EFGH", "BCDF", "B" * 5000, "\u0412CDF-BCDF", "\0"])
async def test_what_can_not_be_a_code_is_refused_as_a_wrong_one(
    broker: Running, typed: str
) -> None:
    browser = await enrolled_browser(broker, ADA)
    answer = await decision_page(browser, typed)
    assert answer.status_code == 422
    assert "That code is not right, was used" in answer.text


async def test_starting_is_limited_by_address(broker: Running) -> None:
    client = broker.client(address="198.51.100.41")
    for _ in range(2 * DEVICE_PER_ADDRESS.count + 2):
        answer = await client.post("/oauth/device_authorization", data={"client_id": "broker-cli"})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"] == "temporarily_unavailable"
    await machine(broker)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"client_id": ""}, "invalid_client"),
        ({"client_id": "other"}, "invalid_client"),
        ({"client_id": "broker-cli", "scope": "all"}, "invalid_scope"),
        ({"client_id": "broker-cli", "host_name": "x" * 5000}, "invalid_request"),
    ],
)
async def test_starting_takes_the_known_client_alone(
    broker: Running, form: dict[str, str], error: str
) -> None:
    answer = await broker.client().post("/oauth/device_authorization", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_an_expired_code_is_worth_nothing_on_either_side(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    page = await decision_page(browser, waiting.user_code)
    await change(broker, expires_at=datetime.now(UTC))
    values = {"user_code": waiting.user_code, "decision": "allow", "code": browser.code()}
    late = await browser.submit(page, "/device", values)
    assert late.status_code == 422
    assert "over ten minutes old" in late.text
    assert await waiting.error() == "expired_token"


async def test_a_device_code_works_once_and_its_second_use_ends_the_session(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    waiting = await machine(broker)
    await decide(browser, waiting.user_code)
    tokens = (await waiting.poll()).json()
    token = {"authorization": f"Bearer {tokens['access_token']}"}
    assert (await waiting.client.get("/v1/me", headers=token)).status_code == 200
    assert await waiting.error() == "invalid_grant"
    assert (await waiting.client.get("/v1/me", headers=token)).status_code == 401
    for code in ("x" * 43, "short", "\u00fc" * 43):
        answer = await waiting.poll(code)
        assert answer.json()["error"] == "invalid_grant"


# --- settings ---------------------------------------------------------------


def with_flow(settings: Settings, flow: str) -> Settings:
    sessions = settings.sessions.model_copy(update={"device_flow": DeviceFlow(flow)})
    return settings.model_copy(update={"sessions": sessions})


async def test_off_is_off_everywhere(settings: Settings) -> None:
    async with running(with_flow(settings, "off")) as broker:
        client = broker.client()
        metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
        assert "device_authorization_endpoint" not in metadata
        assert GRANT_TYPE not in metadata["grant_types_supported"]
        start = await client.post("/oauth/device_authorization", data={"client_id": "broker-cli"})
        assert (start.status_code, start.json()["error"]) == (400, "unauthorized_client")
        poll = await Machine(client, "x" * 43, "").poll()
        assert (poll.status_code, poll.json()["error"]) == (400, "unauthorized_client")
        browser = await enrolled_browser(broker, ADA)
        token = field_of(await browser.get("/mfa"), "csrf_token")
        assert (await browser.get("/device")).status_code == 404
        assert (await browser.post("/device", {"csrf_token": token})).status_code == 404


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("203.0.113.200", True),
        ("203.0.114.9", False),
        ("::ffff:203.0.113.77", True),
        ("2001:db8::9", False),
    ],
)
async def test_same_network_is_the_approvers_own(
    settings: Settings, address: str, admitted: bool
) -> None:
    async with running(with_flow(settings, "same_network")) as broker:
        browser = await enrolled_browser(broker, ADA)
        waiting = await machine(broker, address=address)
        page = await decision_page(browser, waiting.user_code)
        values = {"user_code": waiting.user_code, "decision": "allow"}
        if admitted:
            done = await browser.submit(page, "/device", {**values, "code": browser.code()})
            assert done.status_code == 200
            assert (await waiting.poll()).status_code == 200
            return
        assert page.status_code == 403
        assert "another network than yours" in page.text
        token = field_of(await browser.get("/device"), "csrf_token")
        fields = {**values, "code": browser.code(), "csrf_token": token}
        assert (await browser.post("/device", fields)).status_code == 403
        assert await waiting.error() == "authorization_pending"
        failed = await records(broker, "login.failed")
        assert failed[0]["detail"]["reason"] == "other_network"
        # To deny is always safe.
        denied = await browser.post("/device", {**fields, "decision": "deny"})
        assert denied.status_code == 200
        assert await waiting.error() == "access_denied"


# --- what such a login reaches ----------------------------------------------

GATES = {
    gate.admin,
    gate.fresh_admin,
    gate.fresh_caller,
    gate.policy_admin,
    gate.require_admin,
}
# Whatever carries one of these words decides for others, or about rights.
SENSITIVE = re.compile(
    r"/(approve|deny|withdraw|reset|suspend|reinstate|lift|revoke)$"
    r"|^/v1/(break-glass|grants|revocations|enrolment-codes|users|access/changes)"
)


def gated(broker: Running) -> list[tuple[str, str]]:
    """Method and path of every route behind a gate of rights or of a fresh factor."""
    found = []
    for route in iter_route_contexts(broker.app.routes):
        dependant = getattr(route.original_route, "dependant", None)
        assert route.path is not None
        if dependant is not None and calls(dependant) & GATES:
            found += [(method, route.path) for method in sorted(route.methods or ())]
    return found


def calls(dependant: Any) -> set[Any]:
    found = {dependant.call}
    for part in dependant.dependencies:
        found |= calls(part)
    return found


async def test_a_device_login_passes_no_gate_of_rights_even_an_admins_with_a_fresh_factor(
    broker: Running,
) -> None:
    admin = await logged_in_admin(broker)
    device = await device_login(broker, admin.browser)
    assert (await admin.api.get("/v1/me", headers=device)).json()["rights"] == []
    walked = gated(broker)
    assert ("PUT", "/v1/access") in walked
    assert ("POST", "/v1/enrolment-codes") in walked
    for method, path in sorted({*walked, *sensitive(broker)}):
        answer = await ask(admin, method, path, device)
        assert answer.status_code == 403, (method, path, answer.text)
        assert answer.json()["code"] == "forbidden", (method, path)
        if (method, path) in walked:
            assert "by a code from another device" in answer.json()["detail"], (method, path)
    # The same person with a browser's login is not stopped by these gates.
    own = await ask(admin, "POST", "/v1/enrolment-codes", bearer(admin))
    assert own.status_code == 422


def sensitive(broker: Running) -> set[tuple[str, str]]:
    return {
        (method, path)
        for method, path in broker.routes()
        if method != "GET" and path.startswith("/v1/") and SENSITIVE.search(path)
    }


async def ask(who: LoggedIn, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    filled = re.sub(r"\{[^}]*\}", "p-aaaaaaaaaaaaaaaa", path)
    return await who.api.request(method, filled, headers=headers, json={})


async def test_a_device_login_stays_one_when_refreshed(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    waiting = await machine(broker)
    await decide(admin.browser, waiting.user_code)
    tokens = (await waiting.poll()).json()
    form = {"grant_type": "refresh_token", "client_id": "broker-cli"}
    renewed = await waiting.client.post(
        "/oauth/token", data={**form, "refresh_token": tokens["refresh_token"]}
    )
    fresh = {"authorization": f"Bearer {renewed.json()['access_token']}"}
    refused = await waiting.client.post("/v1/enrolment-codes", json={}, headers=fresh)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_it_gets_credentials_as_its_person_does(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    applied = await admin.api.put("/v1/access", content=POLICY, headers=bearer(admin))
    assert applied.status_code == 200, applied.text
    ada = await enrolled_browser(broker, ADA)
    device = await device_login(broker, ada)
    issued = await broker.client().post(
        "/v1/credentials",
        json={"role": "data-reader", "parameters": {"bucket": "reports"}},
        headers=device,
    )
    assert issued.status_code == 200, issued.text
    assert issued.json()["role"] == "data-reader"
