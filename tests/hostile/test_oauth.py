"""The broker as an OAuth server: redirects, codes, refresh tokens and the click between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.hostile.world import (
    REDIRECT_URI,
    Person,
    World,
    authorization,
    field_of,
    problem,
    query_of,
    redeem,
    refresh,
)


@pytest.fixture
def ada(world: World) -> Person:
    return world.resident("oauth-ada", "analysts")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "http://127.0.0.1.evil.example:80/callback",
        "http://127.0.0.1:80@evil.example/callback",
        "http://user@127.0.0.1:49152/callback",
        "http://127.0.0.1:49152/callback/../evil",
        "http://127.0.0.1:49152/other",
        "http://127.0.0.1:49152/callback?x=1",
        "http://127.0.0.1:49152/callback#x",
        "http://127.0.0.1:49152/callback\n",
        "http://127.0.0.1:49152\\@evil.example/callback",
        "http://127.0.0.2:49152/callback",
        "http://localhost:49152/callback",
        "http://127.1:49152/callback",
        "http://2130706433:49152/callback",
        "http://[::ffff:127.0.0.1]:49152/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:\uff14\uff19/callback",
        "http://127.0.0.1/callback",
        "https://127.0.0.1:49152/callback",
        "HTTP://127.0.0.1:49152/callback",
        "//127.0.0.1:49152/callback",
        "javascript:alert(1)",
        "",
    ],
)
def test_redirect_elsewhere(world: World, ada: Person, redirect_uri: str) -> None:
    """The code is asked to be sent to another host, user, path, port or scheme."""
    before, seq = world.state(), world.head()
    asked = {**authorization(), "redirect_uri": redirect_uri}
    shown = ada.get("/oauth/authorize", params=asked)
    form = {**asked, "csrf_token": ada.csrf(), "decision": "allow"}
    clicked = ada.post("/oauth/authorize", form)
    for answer in (shown, clicked):
        assert answer.status_code == 400
        assert "location" not in answer.headers
    assert (world.state(), world.records(seq)) == (before, [])


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "evil"},
        {"code_challenge_method": "plain"},
        {"code_challenge": ""},
        {"code_challenge": "a" * 42},
        {"response_type": "token"},
        {"state": "é"},
        {"state": "s" * 600},
    ],
    ids=str,
)
def test_authorization_request_downgraded(
    world: World, ada: Person, change: dict[str, str]
) -> None:
    """Another client, no PKCE or a weaker one, a token at once, a scope, an unsendable state."""
    before = world.state()
    form = {**authorization(), **change, "csrf_token": ada.csrf(), "decision": "allow"}
    wide = ada.get("/oauth/authorize", params={**authorization(), "scope": "admin"})
    assert "error=invalid_scope" in wide.headers["location"]
    for answer in (
        ada.get("/oauth/authorize", params={**authorization(), **change}),
        ada.post("/oauth/authorize", form),
    ):
        location = answer.headers.get("location", "")
        assert answer.status_code in (303, 400)
        assert "code=" not in location
        assert location == "" or location.startswith(f"{REDIRECT_URI}?error=")
    assert world.state() == before


def test_authorize_without_the_click(world: World, ada: Person) -> None:
    """A page or local program opens the authorize address, or posts it without the form."""
    before = world.state()
    opened = ada.get("/oauth/authorize", params=authorization())
    assert (opened.status_code, "location" in opened.headers) == (200, False)
    form = {**authorization(), "decision": "allow"}
    posted = ada.post("/oauth/authorize", form)
    cross = ada.post(
        "/oauth/authorize",
        {**form, "csrf_token": ada.csrf()},
        headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    )
    undecided = ada.post("/oauth/authorize", {**authorization(), "csrf_token": ada.csrf()})
    assert [a.status_code for a in (posted, cross, undecided)] == [403, 403, 422]
    assert world.state() == before


def test_authorize_with_the_second_factor_pending(world: World) -> None:
    """Somebody with a stolen password opens and clicks the consent page."""
    who = world.sign_in("pending")
    opened = who.get("/oauth/authorize", params=authorization())
    assert opened.headers["location"].startswith("/mfa")
    form = {**authorization(), "csrf_token": who.csrf("/mfa/enroll"), "decision": "allow"}
    before = world.state()
    clicked = who.post("/oauth/authorize", form)
    assert clicked.status_code == 403
    assert "location" not in clicked.headers
    assert world.state() == before


def test_code_used_twice(world: World, ada: Person) -> None:
    """A code seen in a browser's history is redeemed after its owner: both lose."""
    code = ada.authorization_code()
    first = redeem(world.client(), code)
    assert first.status_code == 200
    seq = world.head()
    again = redeem(world.client(), code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert [(r["type"], r["detail"]["reason"]) for r in world.records(seq)] == [
        ("session.revoked", "code_reused")
    ]
    headers = {"authorization": f"Bearer {first.json()['access_token']}"}
    assert problem(world.client().get("/v1/me", headers=headers)) == (401, "unauthenticated")
    assert refresh(world.client(), first.json()["refresh_token"]).status_code == 400


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 43},
        {"redirect_uri": "http://127.0.0.1:49153/callback"},
        {"redirect_uri": "http://[::1]:49152/callback"},
    ],
    ids=str,
)
def test_code_with_another_verifier(world: World, ada: Person, change: dict[str, str]) -> None:
    """A caught code is redeemed without its verifier or for another redirect; it is spent then."""
    code = ada.authorization_code()
    stolen = redeem(world.client(), code, **change)
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert redeem(world.client(), code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_id": "evil"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"code": "\x00"}, "invalid_grant"),
        ({"code": "a" * 5000}, "invalid_request"),
    ],
    ids=["client", "grant type", "no verifier", "short verifier", "NUL", "over-long"],
)
def test_code_by_another_client(
    world: World, ada: Person, change: dict[str, str], error: str
) -> None:
    """Another client, grant, or a malformed field at the token endpoint takes nothing."""
    before = world.state()
    answer = redeem(world.client(), **{"code": "c" * 43, **change})
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.headers["cache-control"] == "no-store"
    assert world.state() == before


def test_parameters_twice(world: World) -> None:
    """A form that two parsers would read in two ways."""
    answer = world.client().post(
        "/oauth/token",
        content=b"grant_type=refresh_token&grant_type=authorization_code&client_id=broker-cli",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_code_of_a_browser_that_signed_out(world: World) -> None:
    """A code is kept until its person has signed out, then redeemed."""
    who = world.person("leaver")
    code = who.authorization_code()
    assert who.submit("/signout").status_code == 303
    before = world.rows("SELECT count(*) FROM tokens")
    assert redeem(world.client(), code).json()["error"] == "invalid_grant"
    assert world.rows("SELECT count(*) FROM tokens") == before


def test_fifty_redemptions_at_once(world: World, ada: Person) -> None:
    """Fifty callers over two processes redeem one code: at most one gets tokens."""
    code = ada.authorization_code()
    urls = world.processes(2)
    clients = [world.client(urls[number % 2]) for number in range(50)]
    sessions = world.rows("SELECT count(*) FROM login_sessions")[0][0]
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda client: redeem(client, code), clients))
    winners = [answer for answer in answers if answer.status_code == 200]
    assert len(winners) == 1
    assert {a.json()["error"] for a in answers if a.status_code != 200} == {"invalid_grant"}
    assert world.rows("SELECT count(*) FROM login_sessions")[0][0] == sessions + 1


def test_refresh_reused_within_the_grace(world: World) -> None:
    """Within its grace a rotated-out token still works, once its reply was lost, and voids the
    pair that went astray; whoever shows that pair then ends the family."""
    who = world.person("graceful")
    lost = refresh(world.client(), who.refresh_token).json()
    again = refresh(world.client(), who.refresh_token)
    assert again.status_code == 200
    seq = world.head()
    caught = refresh(world.client(), lost["refresh_token"])
    assert caught.json()["error"] == "invalid_grant"
    assert [(r["type"], r["detail"]["reason"]) for r in world.records(seq)] == [
        ("session.revoked", "refresh_reused")
    ]
    assert refresh(world.client(), again.json()["refresh_token"]).status_code == 400


@pytest.mark.parametrize("how", ["successor used", "grace over"])
def test_refresh_reused_after_the_grace(world: World, how: str) -> None:
    """A stolen refresh token is shown after its successor was used, or a minute later."""
    who = world.person(f"thief-{len(how)}")
    stolen = who.refresh_token
    successor = refresh(world.client(), stolen).json()
    if how == "successor used":
        successor = refresh(world.client(), successor["refresh_token"]).json()
    else:
        world.change("UPDATE tokens SET grace_until = 1 WHERE grace_until IS NOT NULL")
    seq = world.head()
    assert refresh(world.client(), stolen).json()["error"] == "invalid_grant"
    assert [r["detail"]["reason"] for r in world.records(seq)] == ["refresh_reused"]
    headers = {"authorization": f"Bearer {successor['access_token']}"}
    assert world.client().get("/v1/me", headers=headers).status_code == 401
    assert refresh(world.client(), successor["refresh_token"]).status_code == 400


def test_refresh_by_many_at_once(world: World) -> None:
    """Many callers rotate one token at once: in the end one pair lives, or none."""
    who = world.person("rotator")
    urls = world.processes(2)
    clients = [world.client(urls[number % 2]) for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda client: refresh(client, who.refresh_token), clients))
    pairs = [a.json()["refresh_token"] for a in answers if a.status_code == 200]
    alive = [pair for pair in pairs if refresh(world.client(), pair).status_code == 200]
    assert len(alive) <= 1


TOKEN_KINDS: dict[str, Callable[[Person], str]] = {
    "refresh token": lambda who: who.refresh_token,
    "cookie": lambda who: who.http.cookies["broker_session"],
    "authorization code": lambda who: who.authorization_code(),
    "access token cut": lambda who: who.token[:-1],
    "access token in upper case": lambda who: who.token.upper(),
    "access token twice": lambda who: f"{who.token} {who.token}",
    "kind changed": lambda who: "bkc_" + who.token[4:],
    "nothing": lambda who: "",
}


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_tokens_of_another_kind(world: World, ada: Person, kind: str) -> None:
    """A token is shown where its kind has no business: each kind has a reach of its own."""
    presented = TOKEN_KINDS[kind](ada)
    before, seq = world.state(), world.head()
    headers = {"authorization": f"Bearer {presented}".strip()}
    client = world.client()
    for method, path in (
        ("GET", "/v1/me"),
        ("GET", "/v1/roles"),
        ("GET", "/v1/access"),
        ("PUT", "/v1/access"),
        ("GET", "/v1/audit/records"),
        ("GET", "/v1/container/data-reader"),
        ("POST", "/v1/enrolment-codes"),
    ):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code in (401, 422), (method, path, answer.text)
    asked = client.post("/v1/credentials", headers=headers, json={"role": "data-reader"})
    assert problem(asked) == (401, "unauthenticated")
    assert (world.state(), world.records(seq)) == (before, [])


def test_access_token_is_no_cookie(world: World, ada: Person) -> None:
    """A stolen access token is put into the browser's cookie, to click on consent pages."""
    thief = world.visitor()
    thief.http.cookies.set("broker_session", ada.token, domain="127.0.0.1")
    answer: httpx.Response = thief.get("/")
    assert answer.headers["location"].startswith("/login")


def test_consent_of_another_session(world: World, ada: Person) -> None:
    """The form of one person's consent page is sent with another's cookie."""
    other = world.person("oauth-other")
    page = ada.get("/oauth/authorize", params=authorization())
    form = {**authorization(), "csrf_token": field_of(page, "csrf_token"), "decision": "allow"}
    before = world.state()
    answer = other.post("/oauth/authorize", form)
    assert answer.status_code == 403
    assert "location" not in answer.headers
    assert world.state() == before


def test_state_comes_back_verbatim(world: World, ada: Person) -> None:
    """A state with markup, line breaks in escapes and separators must not split the redirect."""
    state = "a&code=evil#%0d%0aX: y<script>"
    assert query_of(ada.consent(state=state))["state"] == state
