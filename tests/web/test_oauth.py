"""The broker's own OAuth endpoints, and what hostile clients of them get."""

from __future__ import annotations

import pytest

from broker.identity.throttle import TOKEN_PER_ADDRESS
from tests.web.conftest import ORIGIN, Running
from tests.web.journeys import bearer, enrolled_browser, logged_in_person
from tests.web.people import (
    ADA,
    REDIRECT_URI,
    VERIFIER,
    Browser,
    authorization,
    exchange,
    field_of,
    query_of,
)


async def test_metadata_names_this_issuer_whatever_the_host_header_says(broker: Running) -> None:
    answer = await broker.client().get(
        "/.well-known/oauth-authorization-server", headers={"host": "evil.test"}
    )
    document = answer.json()
    assert document["issuer"] == ORIGIN
    assert document["code_challenge_methods_supported"] == ["S256"]
    endpoints = [value for name, value in document.items() if name.endswith("_endpoint")]
    assert all(endpoint.startswith(f"{ORIGIN}/oauth/") for endpoint in endpoints)


async def test_consent_names_the_program_its_port_and_the_rights_and_waits_for_a_click(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get("/oauth/authorize", params=authorization())
    assert page.status_code == 200
    for named in ("broker command line", "broker-cli", "49152", "temporary AWS credentials"):
        assert named in page.text
    # Only this loopback port may follow the click.
    assert "form-action 'self' http://127.0.0.1:49152;" in page.headers["content-security-policy"]
    # However often it is loaded, no code comes of it.
    for _ in range(3):
        again = await browser.get("/oauth/authorize", params=authorization())
        assert again.status_code == 200
        assert "location" not in again.headers


async def test_allowing_gives_a_code_and_denying_an_error_with_state_and_issuer(
    broker: Running,
) -> None:
    browser = await enrolled_browser(broker, ADA)
    allowed = await browser.consent("allow", state="a b&c=d")
    assert allowed.headers["location"].startswith(f"{REDIRECT_URI}?")
    query = query_of(allowed)
    assert query["state"] == "a b&c=d"
    assert query["iss"] == ORIGIN
    denied = query_of(await browser.consent("deny"))
    assert denied == {"error": "access_denied", "state": "xyz", "iss": ORIGIN}
    neither = await browser.consent("perhaps")
    assert neither.status_code == 422


async def test_a_v6_loopback_client_gets_its_redirect_through_the_csp(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get(
        "/oauth/authorize", params=authorization("http://[::1]:50000/callback")
    )
    assert "form-action 'self' http:;" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.test/callback"},
        {"redirect_uri": "http://127.0.0.1:49152/callback/../x"},
        {"redirect_uri": "http://127.0.0.1.evil.test:1/callback"},
        {"redirect_uri": "http://127.0.0.1:49152@evil.test/callback"},
        {"redirect_uri": "http://localhost:49152/callback"},
        {"redirect_uri": "http://127.0.0.1:99999/callback"},
        {"client_id": "other"},
        {"client_id": ""},
    ],
)
async def test_what_can_not_be_trusted_is_never_redirected_to(
    broker: Running, change: dict[str, str]
) -> None:
    browser = await enrolled_browser(broker, ADA)
    answer = await browser.get("/oauth/authorize", params=authorization() | change)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    page = await browser.get("/mfa")
    posted = await browser.post(
        "/oauth/authorize",
        authorization()
        | change
        | {"decision": "allow", "csrf_token": field_of(page, "csrf_token")},
    )
    assert posted.status_code == 400
    assert "location" not in posted.headers


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
async def test_errors_of_a_known_client_go_back_to_it(
    broker: Running, change: dict[str, str], error: str
) -> None:
    browser = await enrolled_browser(broker, ADA)
    answer = await browser.get("/oauth/authorize", params=authorization() | change)
    assert answer.status_code == 303
    assert query_of(answer)["error"] == error
    assert query_of(answer)["iss"] == ORIGIN


async def test_a_doubled_parameter_is_refused(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    pairs = [*authorization().items(), ("redirect_uri", "https://evil.test/")]
    answer = await browser.get("/oauth/authorize", params=pairs)
    assert answer.status_code == 400
    refused = await broker.client().post(
        "/oauth/token",
        content="grant_type=refresh_token&grant_type=authorization_code",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert refused.status_code == 400
    assert refused.json()["error"] == "invalid_request"


async def test_a_code_needs_its_verifier_and_works_once(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    client = broker.client()
    wrong = await client.post(
        "/oauth/token",
        data={
            "grant_type": "authorization_code",
            "client_id": "broker-cli",
            "code": query_of(await browser.consent())["code"],
            "redirect_uri": REDIRECT_URI,
            "code_verifier": "w" * 43,
        },
    )
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")

    code = query_of(await browser.consent())["code"]
    first = await exchange(client, code)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-store"
    assert first.json()["expires_in"] == 900
    token = {"authorization": f"Bearer {first.json()['access_token']}"}
    assert (await client.get("/v1/me", headers=token)).status_code == 200
    # Somebody else has the code too: what was made of it ends.
    second = await exchange(client, code)
    assert second.json()["error"] == "invalid_grant"
    assert (await client.get("/v1/me", headers=token)).status_code == 401


async def test_refresh_tokens_rotate_and_a_revoked_login_is_over(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    form = {"grant_type": "refresh_token", "client_id": "broker-cli"}
    renewed = await ada.api.post("/oauth/token", data={**form, "refresh_token": ada.refresh_token})
    assert renewed.status_code == 200
    pair = renewed.json()
    assert pair["refresh_token"] != ada.refresh_token
    fresh = {"authorization": f"Bearer {pair['access_token']}"}
    assert (await ada.api.get("/v1/me", headers=fresh)).status_code == 200

    revoked = await ada.api.post(
        "/oauth/revoke", data={"client_id": "broker-cli", "token": pair["refresh_token"]}
    )
    assert revoked.status_code == 200
    assert (await ada.api.get("/v1/me", headers=fresh)).status_code == 401
    again = await ada.api.post(
        "/oauth/token", data={**form, "refresh_token": pair["refresh_token"]}
    )
    assert again.json()["error"] == "invalid_grant"
    # The browser's own session is another one.
    assert (await ada.browser.get("/")).status_code == 200
    unknown = await ada.api.post("/oauth/revoke", data={"client_id": "broker-cli", "token": "x"})
    assert unknown.status_code == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password", "client_id": "broker-cli"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "client_id": "x"}, "invalid_client"),
        (
            {"grant_type": "refresh_token", "client_id": "broker-cli", "refresh_token": "bkr_x"},
            "invalid_grant",
        ),
        (
            {
                "grant_type": "authorization_code",
                "client_id": "broker-cli",
                "code": "c" * 43,
                "redirect_uri": REDIRECT_URI,
                "code_verifier": VERIFIER,
            },
            "invalid_grant",
        ),
    ],
)
async def test_token_errors_have_the_shape_of_rfc_6749(
    broker: Running, form: dict[str, str], error: str
) -> None:
    answer = await broker.client().post("/oauth/token", data=form)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == error
    assert set(answer.json()) == {"error", "error_description"}


async def test_a_json_body_at_the_token_endpoint_is_refused(broker: Running) -> None:
    answer = await broker.client().post("/oauth/token", json={"grant_type": "refresh_token"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_the_token_endpoint_is_limited_by_address(broker: Running) -> None:
    client = broker.client(address="198.51.100.7")
    # A window may end meanwhile, but not two.
    for _ in range(2 * TOKEN_PER_ADDRESS.count + 2):
        answer = await client.post("/oauth/token", data={"a": "b"})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    other = await broker.client(address="198.51.100.8").post("/oauth/token", data={"a": "b"})
    assert other.status_code == 400


async def test_the_factor_of_the_browser_carries_over_to_the_command_line(
    broker: Running,
) -> None:
    ada = await logged_in_person(broker, ADA)
    me = (await ada.api.get("/v1/me", headers=bearer(ada))).json()
    assert me["mfa_time"] is not None
    pending = Browser(broker.client())
    await pending.sign_in(broker.provider.register(ADA))
    asked = await pending.get("/oauth/authorize", params=authorization())
    assert asked.status_code == 303
    assert asked.headers["location"].startswith("/mfa?next=%2Foauth%2Fauthorize")
