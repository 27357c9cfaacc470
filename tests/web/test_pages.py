"""Every page, from a first sign-in to a replaced authenticator."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from broker.adapters.store.schema import principals
from broker.settings import Settings
from tests.web.conftest import ORIGIN, Running, running
from tests.web.journeys import (
    POLICY,
    bearer,
    enrolled_browser,
    logged_in_admin,
    logged_in_person,
)
from tests.web.people import ADA, ADMIN, Browser, field_of, query_of, text_of

PENDING_REACHES = {"/mfa", "/mfa/enroll", "/mfa/recover", "/signout"}


async def signed_in(broker: Running) -> Browser:
    """Past the provider, with the second factor pending."""
    browser = Browser(broker.client())
    page = await browser.sign_in(broker.provider.register(ADA))
    assert page.status_code == 200
    return browser


async def test_a_first_visit_leads_through_the_provider_to_enrolment_and_home(
    broker: Running,
) -> None:
    browser = Browser(broker.client())
    assert (await browser.get("/")).headers["location"] == "/login?next=%2F"
    page = await browser.sign_in(broker.provider.register(ADA))
    assert page.url.path == "/mfa/enroll"
    assert "otpauth://totp/" in page.text
    assert "<svg" in page.text
    assert "enrolment_code" not in page.text
    shown = await browser.enrol(page)
    assert len(set(browser.recovery_codes)) == 10
    assert 'id="continue" href="/"' in shown.text

    home = await browser.get("/")
    assert home.status_code == 200
    assert "ada@example.com" in home.text
    assert "corp/analysts" in home.text


async def test_a_provider_that_is_out_is_said_and_nothing_else_happens(broker: Running) -> None:
    broker.provider.reachable = False
    client = broker.client()
    answer = await client.get("/login")
    assert answer.status_code == 403
    assert "Signing in did not succeed" in answer.text
    assert "can&#39;t be reached" not in answer.text
    assert not client.cookies


async def test_several_providers_are_offered_by_their_titles(settings: Settings) -> None:
    second = {"name": "guests", "title": "Guests", "issuer": "https://g.test", "client_id": "b"}
    several = settings.model_copy(
        update={"oidc": (*settings.oidc, type(settings.oidc[0]).model_validate(second))}
    )
    async with running(several, providers=("corp", "guests")) as broker:
        page = await broker.client().get("/login", params={"next": "/mfa"})
        assert page.status_code == 200
        assert 'href="/login?provider=guests&amp;next=%2Fmfa"' in page.text
        chosen = await broker.client().get("/login", params={"provider": "guests"})
        assert chosen.headers["location"].startswith("https://guests.test/")
        unknown = await broker.client().get("/login", params={"provider": "nobody"})
        assert unknown.status_code == 404


async def test_a_callback_is_bound_to_the_browser_that_began(broker: Running) -> None:
    code = broker.provider.register(ADA)
    attacker = Browser(broker.client())
    state = query_of(await attacker.get("/login"))["state"]
    victim = Browser(broker.client())
    for client in (victim, Browser(broker.client())):
        answer = await client.get("/login/callback", params={"code": code, "state": state})
        assert answer.status_code == 403
        assert not client.client.cookies
    # And an attempt is good for one callback.
    assert (
        await attacker.get("/login/callback", params={"code": code, "state": state})
    ).status_code == 303
    again = await attacker.get("/login/callback", params={"code": code, "state": state})
    assert again.status_code == 403


async def test_a_pending_second_factor_reaches_its_own_pages_and_signing_out_alone(
    broker: Running,
) -> None:
    browser = await signed_in(broker)
    for path in page_paths(broker):
        answer = await browser.get(path)
        if path in PENDING_REACHES:
            assert answer.status_code in (200, 303), path
            continue
        if path.startswith("/login"):
            continue
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/mfa?next="), path


def page_paths(broker: Running) -> set[str]:
    pages = {path for method, path in broker.routes() if method == "GET"}
    return {
        path
        for path in pages
        if path not in ("/healthz", "/readyz", "/metrics", "/openapi.json")
        and not path.startswith(("/v1", "/.well-known", "/static"))
    }


async def test_invited_enrolment_takes_an_admins_code_and_that_once(settings: Settings) -> None:
    async with running(settings.model_copy(update={"mfa": type(settings.mfa)()})) as broker:
        admin = await logged_in_admin(broker)
        invited = await admin.api.post(
            "/v1/enrolment-codes",
            json={"provider": "corp", "email": ADA.email},
            headers=bearer(admin),
        )
        assert invited.status_code == 201, invited.text

        browser = Browser(broker.client())
        page = await browser.sign_in(broker.provider.register(ADA))
        assert 'name="enrolment_code"' in page.text
        for wrong in ("", "aaaaaa-aaaaaa-aaaaaa-aaaaaa"):
            refused = await browser.enrol(page, wrong)
            assert refused.status_code == 422
            assert "recovery-codes" not in refused.text
        confirmed = await browser.enrol(page, invited.json()["code"])
        assert confirmed.status_code == 200


async def test_an_admin_never_enrols_on_the_first_factor_alone(broker: Running) -> None:
    browser = Browser(broker.client())
    page = await browser.sign_in(broker.provider.register(ADMIN))
    assert 'name="enrolment_code"' in page.text
    assert (await browser.enrol(page)).status_code == 422


async def test_another_browser_with_the_first_factor_never_sees_the_secret_being_enrolled(
    broker: Running,
) -> None:
    victim, thief = Browser(broker.client()), Browser(broker.client())
    code = broker.provider.register(ADA)
    page = await victim.sign_in(code)
    seen = await thief.sign_in(code)
    assert text_of(page, "totp-secret") != text_of(seen, "totp-secret")
    refused = await victim.enrol(page)
    assert refused.status_code in (409, 422)
    assert text_of(seen, "totp-secret") not in refused.text


async def test_the_next_sign_in_asks_for_a_code_and_no_code_works_twice(broker: Running) -> None:
    first = await enrolled_browser(broker, ADA)
    browser = Browser(broker.client(), first.secret, _step=first._step)
    page = await browser.sign_in(broker.provider.register(ADA), next_path="/mfa/enroll")
    assert page.url.path == "/mfa"
    pending = browser.client.cookies["__Host-broker_session"]
    code = browser.code()
    wrong = await browser.submit(page, "/mfa", {"code": "abcdef"})
    assert wrong.status_code == 422
    assert "That code is not right." in wrong.text
    verified = await browser.submit(wrong, "/mfa", {"code": code})
    assert verified.status_code == 303
    assert verified.headers["location"] == "/mfa/enroll"
    # A privilege change is a new cookie, and the old one is dead.
    raised = browser.client.cookies["__Host-broker_session"]
    assert raised != pending
    stale = broker.client()
    stale.cookies.set("__Host-broker_session", pending, domain="broker.test")
    assert (await stale.get("/")).headers["location"].startswith("/login")
    replayed = await browser.submit(await browser.get("/mfa"), "/mfa", {"code": code})
    assert replayed.status_code == 422


async def test_too_many_wrong_codes_lock_the_account_and_say_how_long(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get("/mfa")
    answers = [await browser.submit(page, "/mfa", {"code": "000000"}) for _ in range(8)]
    locked = answers[-1]
    assert locked.status_code == 429
    assert int(locked.headers["retry-after"]) >= 1
    # The right code is not even looked at.
    assert (await browser.submit(page, "/mfa", {"code": browser.code()})).status_code == 429


async def test_a_recovery_code_opens_re_enrolment_once_and_nothing_else(broker: Running) -> None:
    lost = await enrolled_browser(broker, ADA)
    browser = Browser(broker.client())
    await browser.sign_in(broker.provider.register(ADA))
    page = await browser.get("/mfa/recover")
    wrong = await browser.submit(page, "/mfa/recover", {"recovery_code": "nope"})
    assert wrong.status_code == 422
    spent = await browser.submit(page, "/mfa/recover", {"recovery_code": lost.recovery_codes[0]})
    assert spent.headers["location"] == "/mfa/enroll"
    assert (await browser.get("/")).headers["location"].startswith("/mfa")
    enrolment = await browser.get("/mfa/enroll")
    assert enrolment.status_code == 200
    assert (await browser.enrol(enrolment)).status_code == 200
    assert (await browser.get("/")).status_code == 200
    assert browser.secret != lost.secret

    again = Browser(broker.client())
    await again.sign_in(broker.provider.register(ADA))
    page = await again.get("/mfa/recover")
    reused = await again.submit(page, "/mfa/recover", {"recovery_code": lost.recovery_codes[0]})
    assert reused.status_code == 422


async def test_a_confirmed_factor_is_replaced_only_after_a_fresh_code(broker: Running) -> None:
    first = await enrolled_browser(broker, ADA)
    second = Browser(broker.client(), first.secret, _step=first._step)
    await second.sign_in(broker.provider.register(ADA))
    refused = await second.get("/mfa/enroll")
    assert refused.status_code == 303
    assert refused.headers["location"] == "/mfa?next=%2Fmfa%2Fenroll"
    assert (await first.get("/mfa/enroll")).status_code == 200


async def test_signing_out_ends_the_session_itself(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    cookie = browser.client.cookies["__Host-broker_session"]
    done = await browser.submit(await browser.get("/signout"), "/signout", {})
    assert done.headers["location"] == "/signout"
    assert "You are signed out" in (await browser.get("/signout")).text
    thief = broker.client()
    thief.cookies.set("__Host-broker_session", cookie, domain="broker.test")
    assert (await thief.get("/")).headers["location"].startswith("/login")


async def test_a_form_of_an_ended_session_gets_a_page_and_no_redirect(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get("/mfa")
    await browser.submit(await browser.get("/signout"), "/signout", {})
    answer = await browser.submit(page, "/mfa", {"code": browser.code()})
    assert answer.status_code == 401
    assert 'href="/login?next=' in answer.text


@pytest.mark.parametrize(
    "hostile",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "/mfa/../..//evil.test",
        "javascript:alert(1)",
        "/mfa\r\nset-cookie: a=b",
        "/signout",
    ],
)
async def test_next_never_leads_away(broker: Running, hostile: str) -> None:
    browser = Browser(broker.client())
    start = await browser.get("/login", params={"next": hostile})
    back = await browser.get(
        "/login/callback",
        params={"code": broker.provider.register(ADA), "state": query_of(start)["state"]},
    )
    assert back.headers["location"] == "/mfa/enroll?next=%2F"
    page = await browser.get("/mfa/enroll", params={"next": hostile})
    assert 'name="next" value="/"' in page.text
    shown = await browser.enrol(page)
    assert 'id="continue" href="/"' in shown.text
    verified = await browser.post(
        "/mfa", {"code": browser.code(), "next": hostile, "csrf_token": await csrf(browser)}
    )
    assert verified.status_code == 303
    assert verified.headers["location"] == "/"


async def csrf(browser: Browser) -> str:
    return field_of(await browser.get("/mfa"), "csrf_token")


async def test_cookies_are_bound_to_the_host_and_hidden_from_script(broker: Running) -> None:
    browser = Browser(broker.client())
    start = await browser.get("/login")
    back = await browser.get(
        "/login/callback",
        params={"code": broker.provider.register(ADA), "state": query_of(start)["state"]},
    )
    cookies = back.headers.get_list("set-cookie")
    session = next(c for c in cookies if c.startswith("__Host-broker_session="))
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert attribute in session
    assert "Domain" not in session
    assert any(c.startswith('__Host-broker_login=""; ') and "Max-Age=0" in c for c in cookies)


async def test_plain_http_on_loopback_works_without_the_prefix(settings: Settings) -> None:
    server = settings.server.model_copy(update={"public_url": "http://127.0.0.1:8080"})
    async with running(settings.model_copy(update={"server": server})) as broker:
        browser = Browser(broker.client(origin="http://127.0.0.1:8080"))
        page = await browser.sign_in(broker.provider.register(ADA))
        assert "broker_session" in browser.client.cookies
        assert (await browser.enrol(page)).status_code == 200
        assert "strict-transport-security" not in page.headers
        assert (await browser.get("/")).status_code == 200


async def test_reading_changes_nothing(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    admin = await logged_in_admin(broker)
    before = await log_length(broker)
    for path in page_paths(broker) - {"/login", "/login/callback"}:
        await ada.browser.get(path)
        head = await ada.browser.client.head(path)
        assert head.status_code == 405, path
    for path in ("/v1/me", "/v1/roles", "/v1/issuances", "/v1/access", "/v1/audit/records"):
        await admin.api.get(path, headers=bearer(admin))
    assert await log_length(broker) == before
    assert (await ada.browser.get("/")).status_code == 200


async def log_length(broker: Running) -> int:
    return len(await broker.app.state.parts.audit.records(limit=1000))


async def test_a_suspended_person_learns_that_and_no_more(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    await suspend(broker, ADA.subject)
    answer = await browser.get("/")
    assert answer.status_code == 403
    assert "suspended" in answer.text
    again = Browser(broker.client())
    start = await again.get("/login")
    back = await again.get(
        "/login/callback",
        params={"code": "code-ada", "state": query_of(start)["state"]},
    )
    assert back.status_code == 403
    assert "__Host-broker_session" not in again.client.cookies


async def suspend(broker: Running, subject: str) -> None:
    database = broker.app.state.parts.people._database
    async with database.begin() as conn:
        await conn.execute(
            update(principals)
            .where(principals.c.subject == subject)
            .values(suspended_at=datetime.now(UTC))
        )


async def test_pages_are_for_no_frame_no_cache_and_no_script(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    for path in ("/", "/mfa", "/mfa/enroll", "/mfa/recover", "/signout", "/nothing-here"):
        page = await browser.get(path, headers={"accept": "text/html"})
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; ")
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self';" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["strict-transport-security"].startswith("max-age=")
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        # Under this policy each of them would be a broken page.
        for refused in ("<script", "style=", "onclick", "http-equiv"):
            assert refused not in page.text
    assert ORIGIN not in (await browser.get("/")).text


async def test_the_style_sheet_is_cached_for_ever_under_its_hash(broker: Running) -> None:
    client = broker.client()
    page = await client.get("/signout")
    path = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    sheet = await client.get(path)
    assert sheet.status_code == 200
    assert sheet.headers["content-type"] == "text/css; charset=utf-8"
    assert sheet.headers["cache-control"] == "public, max-age=31536000, immutable"
    for name in ("broker.css", "broker.0000000000000000.css", "..%2fparts.py", "%2e%2e/parts.py"):
        assert (await client.get(f"/static/{name}")).status_code == 404


async def test_a_role_without_a_description_is_shown_with_its_account(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    undescribed = POLICY.replace("    description: Read one dataset\n", "")
    assert undescribed != POLICY
    applied = await admin.api.put("/v1/access", content=undescribed, headers=bearer(admin))
    assert applied.status_code == 200, applied.text
    ada = await enrolled_browser(broker, ADA)
    home = await ada.get("/")
    assert home.status_code == 200
    assert "Production" in home.text
