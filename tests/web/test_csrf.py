"""No other site makes a browser change anything here: proven over the whole route table."""

from __future__ import annotations

import re

import pytest

from broker.identity.sessions import Token, TokenKind
from broker.web.csrf import csrf_token
from tests.web.conftest import ORIGIN, Running
from tests.web.journeys import enrolled_browser
from tests.web.people import ADA, GRACE, Browser, field_of

SAFE = {"GET", "HEAD", "OPTIONS"}
# Public clients by design: what they present is itself the proof.
TOKEN_ENDPOINTS = {"/oauth/token", "/oauth/revoke", "/oauth/device_authorization"}


def mutating_routes(broker: Running) -> list[tuple[str, str]]:
    return [
        (method, re.sub(r"\{[^}]*\}", "p-aaaaaaaaaaaaaaaa", path))
        for method, path in broker.routes()
        if method not in SAFE
    ]


async def test_every_mutating_route_takes_a_bearer_token_or_a_csrf_token_of_its_own(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    other = await enrolled_browser(broker, GRACE)
    foreign = field_of(await other.get("/mfa"), "csrf_token")
    routes = mutating_routes(broker)
    assert ("POST", "/v1/credentials") in routes
    assert ("POST", "/mfa") in routes
    for method, path in routes:
        if path in TOKEN_ENDPOINTS:
            continue
        for token in (None, "", foreign, "x" * 43):
            fields = {"code": "000000", "decision": "allow"}
            if token is not None:
                fields["csrf_token"] = token
            answer = await browser.client.request(
                method, path, data=fields, headers={"origin": ORIGIN}
            )
            wanted = 401 if path.startswith("/v1/") else 403
            assert answer.status_code == wanted, f"{method} {path} with {token!r}"
    # The session is as it was.
    assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://broker.test"},
        {"origin": "https://broker.test:8443"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_the_right_token_from_another_origin_is_refused(
    broker: Running, headers: dict[str, str]
) -> None:
    browser = await enrolled_browser(broker, ADA)
    token = field_of(await browser.get("/signout"), "csrf_token")
    answer = await browser.client.post("/signout", data={"csrf_token": token}, headers=headers)
    assert answer.status_code == 403
    assert (await browser.get("/")).status_code == 200
    own = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
    done = await browser.client.post("/signout", data={"csrf_token": token}, headers=own)
    assert done.status_code == 303


async def test_a_token_from_before_the_second_factor_is_worth_nothing_after_it(
    broker: Running,
) -> None:
    browser = Browser(broker.client())
    page = await browser.sign_in(broker.provider.register(ADA))
    before = field_of(page, "csrf_token")
    await browser.enrol(page)
    answer = await browser.post("/signout", {"csrf_token": before})
    assert answer.status_code == 403


async def test_the_api_never_looks_at_the_cookie(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    assert (await browser.get("/v1/me")).status_code == 401
    cookie = browser.client.cookies["__Host-broker_session"]
    shown = await broker.client().get("/v1/me", headers={"authorization": f"Bearer {cookie}"})
    assert shown.status_code == 401


async def test_a_form_of_another_type_or_with_doubled_fields_is_refused(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    token = field_of(await browser.get("/signout"), "csrf_token")
    for body, media_type in (
        (f"csrf_token={token}&csrf_token={token}", "application/x-www-form-urlencoded"),
        (f"csrf_token={token}", "text/plain"),
        (f'{{"csrf_token": "{token}"}}', "application/json"),
        (f"csrf_token={token}&a=%ff", "application/x-www-form-urlencoded"),
        (f"csrf_token={token}" + "&a=b" * 100, "application/x-www-form-urlencoded"),
    ):
        answer = await browser.client.post(
            "/signout", content=body, headers={"content-type": media_type, "origin": ORIGIN}
        )
        assert answer.status_code == 422, body
    assert (await browser.get("/")).status_code == 200


def test_tokens_differ_by_session_and_tell_nothing_of_it() -> None:
    first, second = Token.new(TokenKind.BROWSER), Token.new(TokenKind.BROWSER)
    assert csrf_token(first) == csrf_token(first) != csrf_token(second)
    assert first.text[4:] not in csrf_token(first)
