"""The web's own attacks: forms of other sites, foreign hosts, odd paths, markup, and size."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.hostile.world import Person, World, field_of, problem
from tests.missing import missing

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def ada(world: World) -> Person:
    return world.resident("web-ada", "analysts")


# --- forms of other sites --------------------------------------------------------------------

FORMS = ["/mfa", "/mfa/enroll", "/mfa/recover", "/signout", "/oauth/authorize"]
OURS = "ours"
# The csrf_token sent, and headers beside it.
FOREIGN: dict[str, tuple[str | None, dict[str, str]]] = {
    "no token": (None, {}),
    "empty token": ("", {}),
    "made-up token": ("A" * 43, {}),
    "token not ASCII": ("\u00e9" * 43, {}),
    "foreign Origin": (OURS, {"origin": "https://evil.example"}),
    "null Origin": (OURS, {"origin": "null"}),
    "empty Origin": (OURS, {"origin": ""}),
    "Origin without our port": (OURS, {"origin": "http://127.0.0.1"}),
    "Origin a word": (OURS, {"origin": "https"}),
    "cross-site fetch": (OURS, {"sec-fetch-site": "cross-site"}),
    "same-site fetch": (OURS, {"sec-fetch-site": "same-site"}),
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("how", FOREIGN)
def test_form_of_another_site(world: World, ada: Person, path: str, how: str) -> None:
    """A form without this session's token, or sent from another origin, does nothing."""
    token, headers = FOREIGN[how]
    fields = {"code": ada.code(1), "decision": "allow"}
    if token is not None:
        fields["csrf_token"] = ada.csrf() if token == OURS else token
    before, seq = world.state(), world.head()
    answer = ada.post(path, fields, headers=headers)
    assert answer.status_code == 403
    assert (world.state(), world.records(seq)) == (before, [])


def test_token_of_another_session(world: World, ada: Person) -> None:
    """The attacker's own CSRF token, from the attacker's own session, in a victim's form."""
    attacker = world.sign_in("web-attacker")
    token = attacker.csrf("/mfa/enroll")
    before = world.state()
    answer = ada.post("/signout", {"csrf_token": token})
    assert answer.status_code == 403
    assert world.state() == before


@pytest.mark.parametrize("media_type", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_form_as_another_type(world: World, ada: Person, media_type: str) -> None:
    """Types that a page of another site may send without asking are not read as a form."""
    content = f"csrf_token={ada.csrf()}&decision=allow".encode()
    headers = {"content-type": media_type, "origin": world.url}
    answer = ada.http.post("/signout", content=content, headers=headers)
    assert answer.status_code == 422
    assert ada.get("/").status_code == 200


# --- sessions --------------------------------------------------------------------------------


def test_cookie_after_sign_out_on_another_process(world: World) -> None:
    """A copied cookie is shown to another process right after its owner signed out."""
    who = world.person("web-leaver")
    stolen = who.http.cookies["broker_session"]
    other = world.processes(2)[1]
    thief = world.client(other)
    thief.cookies.set("broker_session", stolen, domain="127.0.0.1")
    host = {"host": urlsplit(world.url).netloc}
    assert thief.get("/", headers=host).status_code == 200
    assert who.submit("/signout").status_code == 303
    assert thief.get("/", headers=host).headers["location"].startswith("/login")


def test_access_token_after_revocation_on_another_process(world: World) -> None:
    """A copied access token is used at another process right after `broker logout`."""
    who = world.person("web-revoker", "analysts")
    form = {"client_id": "broker-cli", "token": who.refresh_token}
    assert world.client().post("/oauth/revoke", data=form).status_code == 200
    headers = {"authorization": f"Bearer {who.token}"}
    for url in world.processes(2):
        answer = world.client(url).get("/v1/me", headers=headers)
        assert problem(answer) == (401, "unauthenticated")


@pytest.mark.parametrize("cookie", ["a" * 8000, "bkb_" + "a" * 42, "bkb_" + "\u00e9" * 43, "'--"])
def test_cookie_made_up(world: World, cookie: str) -> None:
    """A session cookie that is long, cut, not ASCII or SQL is no session."""
    headers = {b"cookie": f"broker_session={cookie}".encode("latin-1")}
    assert world.client().get("/", headers=headers).headers["location"].startswith("/login")


# --- hosts and paths -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost",
        "",
        "[",
        "[::1",
        "a/b?c#d",
        "evil.example\\@127.0.0.1",
        "127.0.0.1:80:80",
        "x" * 3000,
        "\u00e9",
    ],
)
def test_host_of_others(world: World, ada: Person, host: str) -> None:
    """Another Host, or none that is one: pages do not exist there, nothing is redirected to it,
    and nothing breaks."""
    for path in ("/", "/login", "/nothing", "/v1/me", "/v1/nothing", "/static/nothing"):
        answer = ada.get(path, headers={"host": host.encode("latin-1")})
        assert 400 <= answer.status_code < 500, (path, answer)
        assert "location" not in answer.headers, path
        assert host == "" or len(host) < 5 or host not in answer.text


@pytest.mark.parametrize(
    "name", ["x-forwarded-host", "x-host", "forwarded", "x-original-url", "x-rewrite-url"]
)
def test_forwarded_hosts(world: World, name: str) -> None:
    """A proxy's headers name another host or path: no URL of ours has it."""
    headers = {name: "evil.example", "x-forwarded-proto": "https", "x-forwarded-port": "1"}
    answers = [
        world.client().get("/login", headers=headers, params={"provider": "corp"}),
        world.client().get("/.well-known/oauth-authorization-server", headers=headers),
        world.client().get("/", headers=headers),
    ]
    for answer in answers:
        assert "evil" not in answer.text + answer.headers.get("location", "")
    assert answers[1].json()["issuer"] == world.url


@pytest.mark.parametrize(
    "path",
    [
        "//v1/me",
        "/v1//me",
        "/v1/./me",
        "/v1/x/../me",
        "/v1/%2e%2e/v1/me",
        "/v1%2fme",
        "/v1/me;x=1",
        "/v1/me/",
        "/V1/me",
        "/v1/me%00",
        "/v1/me%20",
        "/v1/me%0a",
        "/static/../broker.toml",
        "/static/%2e%2e%2fbroker.toml",
        "/static/..%5cbroker.toml",
        "//evil.example/%2e%2e",
        "/%ff%fe",
        "/v1/issuances/%2e%2e%2fme",
        "/.git/config",
    ],
)
def test_path_games(world: World, ada: Person, path: str) -> None:
    """Doubled slashes, dot segments, encodings and parameters reach no route by another name."""
    status, head, body = raw(world, f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {ada.token}")
    assert status in (404, 422), (status, head)
    assert b"location:" not in head.lower()
    assert ada.id.encode() not in body


@pytest.mark.parametrize("query", [b"x=\xff", b"next=\xc3\x28", b"%", b"a=%zz", b"\x80", b"=&=&="])
def test_query_that_is_no_text(world: World, query: bytes) -> None:
    """A query with raw bytes or broken escapes is answered, not crashed on."""
    for path in (b"/", b"/login", b"/mfa", b"/v1/me", b"/nothing", b"/login/callback"):
        status, _, _ = raw(world, b"GET " + path + b"?" + query + b" HTTP/1.1")
        assert status < 500, path


@pytest.mark.parametrize(
    "method", ["HEAD", "GET", "OPTIONS", "TRACE", "DELETE", "PATCH", "PUT", "FOO"]
)
def test_methods_that_change_nothing(world: World, ada: Person, method: str) -> None:
    """Links, images and crawlers cause GET and HEAD; other methods are not routes either."""
    paths = ["/mfa", "/mfa/recover", "/signout", "/oauth/token", "/oauth/revoke", "/v1/credentials",
             "/v1/mfa/verify", "/v1/enrolment-codes", "/v1/ci/credentials", "/oauth/authorize",
             f"/v1/users/{ada.id}/mfa/reset", "/", "/healthz"]  # fmt: skip
    before, seq, calls = world.state(), world.head(), len(world.aws.calls)
    for path in paths:
        headers = {"authorization": f"Bearer {ada.token}", "origin": world.url}
        answer = ada.http.request(method, path, headers=headers)
        assert answer.status_code < 500
    assert (world.state(), world.records(seq), len(world.aws.calls)) == (before, [], calls)


@pytest.mark.parametrize("extra", ["is_admin", "groups", "principal", "mfa_time", "__proto__"])
def test_extra_fields(world: World, ada: Person, extra: str) -> None:
    """Members that a route does not know, in the hope that one is bound to an object."""
    since = world.rows("SELECT max(mfa_time) FROM login_sessions WHERE principal_id = ?", ada.id)
    answer = ada.api("POST", "/v1/mfa/verify", json={"code": ada.code(1), extra: True})
    assert problem(answer) == (422, "invalid_request")
    after = world.rows("SELECT max(mfa_time) FROM login_sessions WHERE principal_id = ?", ada.id)
    assert after == since


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":"1","\\ud800":1}',
        b'{"\\ud800":"1"}',
        b'{"code":"\\ud800"}',
        b'{"code":"1","a\\u0000b":1}',
        b"[" * 30_000,
        b'{"code":' + b"9" * 5000 + b"}",
        b'{"code":"1","code":"2"}',
        b"\xff\xfe",
        b"",
    ],
)
def test_json_that_breaks_readers(world: World, ada: Person, body: bytes) -> None:
    """Surrogates in names, depth, digits without end, raw bytes: refused, and no crash."""
    headers = {"content-type": "application/json"}
    answer = ada.api("POST", "/v1/mfa/verify", content=body, headers=headers)
    assert answer.status_code in (400, 422), (answer.status_code, answer.text)


# --- every object as somebody else -----------------------------------------------------------


def test_objects_of_others(world: World, ada: Person) -> None:
    """Somebody without rights names other people's sessions, issuances, grants, changes and
    users, to read, change and end them."""
    answer = ada.ask()
    assert answer.status_code == 200, answer.text
    issuance = answer.json()["issuance_id"]
    session = world.rows("SELECT id FROM login_sessions WHERE principal_id = ?", ada.id)[0][0]
    grant = a_grant(world, ada)
    eve = world.person("web-eve", "analysts")
    change = "chg-" + "a" * 26
    before, seq = world.state(), world.head()
    reason = {"json": {"reason": "mine now"}}
    refusals: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/v1/issuances/{issuance}", {}),
        ("GET", "/v1/issuances/iss-aaaa", {}),
        ("GET", "/v1/users", {}),
        ("GET", f"/v1/users?q={ada.id}", {}),
        ("GET", f"/v1/users/{ada.id}", {}),
        ("GET", f"/v1/users/{ada.id}/live", {}),
        ("GET", f"/v1/users/{ada.id}/sessions", {}),
        ("DELETE", f"/v1/users/{ada.id}/sessions", {}),
        ("DELETE", f"/v1/users/{ada.id}/sessions/{session}", {}),
        ("DELETE", f"/v1/users/{eve.id}/sessions/{session}", {}),
        ("DELETE", f"/v1/me/sessions/{session}", {}),
        ("POST", f"/v1/users/{ada.id}/suspend", reason),
        ("POST", f"/v1/users/{ada.id}/reinstate", reason),
        ("POST", f"/v1/users/{ada.id}/mfa/reset", {}),
        ("POST", f"/v1/users/{world.admin.id}/mfa/reset", {}),
        ("POST", "/v1/enrolment-codes", {"json": {"principal": ada.id}}),
        ("GET", f"/v1/grants/{grant}", {}),
        ("POST", f"/v1/grants/{grant}/revoke", reason),
        (
            "POST",
            "/v1/grants",
            {
                "json": {
                    "principal": eve.id,
                    "role": "data-reader",
                    "duration": 3600,
                    **reason["json"],
                }
            },
        ),
        ("GET", "/v1/access", {}),
        ("PUT", "/v1/access", {"content": b"version: 1"}),
        ("GET", "/v1/access/changes", {}),
        ("GET", f"/v1/access/changes/{change}", {}),
        ("POST", f"/v1/access/changes/{change}/approve", {}),
        ("POST", f"/v1/access/changes/{change}/withdraw", {}),
        ("GET", "/v1/access/trust-policy/data-reader", {}),
        ("POST", "/v1/access/try", {"json": {"token": "x"}}),
        ("GET", "/v1/audit/records", {}),
        ("GET", "/v1/audit/export", {}),
        ("GET", "/v1/audit/tile/entries/000", {}),
        ("GET", f"/v1/roles/data-reader/explain?principal={ada.id}", {}),
        ("GET", "/v1/roles/data-reader/explain?workload=deploy", {}),
    ]
    for method, path, options in refusals:
        answer = eve.api(method, path, **options)
        assert problem(answer) in ((403, "forbidden"), (404, "not_found")), (path, answer.text)
        # Of what others have not even the existence is told.
        assert ada.id not in answer.text
    assert (world.state(), world.records(seq)) == (before, [])
    # What lists one's own holds nothing of theirs.
    for path in ("/v1/me/sessions", "/v1/issuances", f"/v1/grants?principal={ada.id}"):
        answer = eve.api("GET", path)
        assert answer.status_code == 200, answer.text
        assert not {ada.id, session, issuance, grant} & set(re.findall(r"[\w-]+", answer.text))


def a_grant(world: World, who: Person) -> str:
    given = world.stepped_up_admin().api(
        "POST",
        "/v1/grants",
        json={"principal": who.id, "role": "data-reader", "duration": 3600, "reason": "theirs"},
    )
    assert given.status_code == 201, given.text
    return str(given.json()["id"])


# --- size and slowness -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/credentials", "/v1/mfa/verify", "/v1/access", "/oauth/token"]
)
def test_ten_megabytes(world: World, ada: Person, path: str) -> None:
    """10 MB of JSON or form, declared or in chunks, are refused before they are held."""
    body = b'{"role":"' + b"a" * 10 * 2**20 + b'"}'
    method = "PUT" if path == "/v1/access" else "POST"
    for content in (body, iter([body[i : i + 65536] for i in range(0, len(body), 65536)])):
        headers = {"authorization": f"Bearer {ada.token}", "content-type": "application/json"}
        if path == "/oauth/token":
            headers["content-type"] = "application/x-www-form-urlencoded"
        try:
            answer = world.client().request(method, path, content=content, headers=headers)
        except httpx.TransportError:
            continue  # cut off while sending: as good
        assert answer.status_code in (403, 413), answer.text
    assert world.client().get("/readyz").status_code == 200


def test_a_million_fields(world: World, ada: Person) -> None:
    """A form of a million names, and one of as many as fit, cost no more than their bytes."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    started = time.monotonic()
    big = world.client().post("/oauth/token", content=b"a&" * 1_000_000, headers=kind)
    fits = world.client().post("/oauth/token", content=b"a&" * 32_000, headers=kind)
    assert (big.status_code, fits.status_code) == (413, 400)
    page = ada.http.post("/mfa", content=b"a&" * 32_000, headers={**kind, "origin": world.url})
    assert page.status_code == 422
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "head",
    [
        b"X-A: " + b"a" * 200_000,
        b"\r\n".join(b"X-%d: a" % n for n in range(20_000)),
        b"Range: bytes=" + b"0-1," * 30_000,
        b"Cookie: " + b"broker_session=x; " * 10_000,
        b"Content-Length: " + b"0" * 6000 + b"5",
        b"Content-Length: -1",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Content-Length: 5\r\nContent-Length: 6",
        b" folded: a",
        b"X-A: a\x00b",
    ],
    ids=lambda head: head[:24].decode("latin-1"),
)
def test_headers_huge_or_double(world: World, head: bytes) -> None:
    """Heads of 100 KB and more, ranges without end, and lengths that two readers take in two
    ways: refused, and the server goes on."""
    status, _, _ = raw(world, b"POST /v1/credentials HTTP/1.1\r\n" + head, b"a" * 6)
    assert 400 <= status < 500 or status == 0
    assert world.client().get("/readyz").status_code == 200


def test_slow_clients(world: World) -> None:
    """Two hundred connections that never finish a request keep nobody else waiting."""
    target = urlsplit(world.url)
    held = []
    try:
        for number in range(200):
            line = socket.create_connection((target.hostname or "", target.port or 0), timeout=10)
            line.sendall(b"POST /v1/credentials HTTP/1.1\r\nHost: x\r\n"[: 10 + number % 30])
            held.append(line)
        started = time.monotonic()
        assert world.client().get("/readyz").status_code == 200
        assert time.monotonic() - started < 5
    finally:
        for line in held:
            line.close()


# --- markup in what is stored and shown ------------------------------------------------------

SNIPPETS = [
    "<script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    '"><script>{}</script>',
    "'><img src=x onerror={}>",
    '" autofocus onfocus={} x="',
    "' onmouseover={} x='",
    "javascript:{}",
    "</title><script>{}</script>",
    "</textarea><script>{}</script>",
    "</style><script>{}</script>",
    "<!--><script>{}</script>-->",
    "<iframe srcdoc='<script>{}</script>'>",
    "<a href=javascript:{}>x</a>",
    "<body onload={}>",
    "<details open ontoggle={}>",
    "<math><mi xlink:href=javascript:{}>",
    "<object data=javascript:{}>",
    "<style>@import 'javascript:{}'</style>",
    "<meta http-equiv=refresh content='0;javascript:{}'>",
    "<base href=//evil.example/>{}",
    "<form action=//evil.example><input name=code>{}",
    "<input type=image src=x onerror={}>",
    "<video><source onerror={}></video>",
    "{{{{constructor.constructor('{}')()}}}}",
]
PAYLOADS = [
    wrapped
    for snippet in SNIPPETS
    for call in ("window.pwned=1", "top.pwned=1")
    for one in (snippet.format(call),)
    for wrapped in (one, one.upper(), one.replace("<", "&lt;"), one.replace("<", "\uff1c"))
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        missing("chromium is missing: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


def test_two_hundred_payloads(world: World, chromium: Any) -> None:
    """200 pieces of markup and script as group names, handle and e-mail, looked at in a real
    browser: none runs, none makes an element."""
    assert len(PAYLOADS) == 200
    with watched(world, chromium) as page:
        for start in range(0, 200, 50):
            some = PAYLOADS[start : start + 50]
            handle = "".join(c for c in some[0] if c.isprintable())[:128]
            who = world.sign_in(f"xss-{start}", groups=some, email=handle, name=handle)
            assert world.enrol(who).status_code == 200
            show_as(who, page)
            for path in ("/", "/mfa", "/mfa/recover", "/signout", "/mfa/enroll"):
                answer = page.goto(world.url + path)
                assert answer is not None
                assert answer.status == 200, path
                nothing_ran(page, path)
            page.goto(world.url + "/")
            shown = page.locator("main").inner_text()
            assert all(one in shown for one in some if one == " ".join(one.split()))


def test_payloads_in_the_policy(world: World, chromium: Any) -> None:
    """The same in the descriptions of roles and the names of accounts, which everybody who has
    the role is shown."""
    admin = world.stepped_up_admin()
    before = admin.api("GET", "/v1/access")
    who = world.person("xss-policy", "readers-of-markup")
    lines = ["version: 1", "admins: [{group: corp/platform}]", "auditors: [{group: corp/audit}]"]
    lines += ["accounts:"]
    lines += [
        f'  a{n}: {{id: "{111122220000 + n}", name: {json.dumps(text)}}}'
        for n, text in enumerate(PAYLOADS[:100])
    ]
    lines += ["roles:"]
    for n, text in enumerate(PAYLOADS[100:]):
        described = f"description: {json.dumps(text)}, " if n % 2 else ""
        arn = f"arn:aws:iam::{111122220000 + n}:role/R"
        lines += [f'  r{n}: {{{described}account: a{n}, role_arn: "{arn}", unscoped: true}}']
    lines += ["entitlements:"]
    lines += [
        f"  - {{role: r{n}, to: {{group: corp/readers-of-markup}}, mode: standing}}"
        for n in range(100)
    ]
    try:
        in_force = {"if-match": before.headers["etag"]}
        content = "\n".join(lines).encode()
        applied = admin.api("PUT", "/v1/access", content=content, headers=in_force)
        assert applied.status_code == 200, applied.text
        with watched(world, chromium) as page:
            show_as(who, page)
            page.goto(world.url + "/")
            nothing_ran(page, "/")
            shown = page.locator("main").inner_text()
            expected = [PAYLOADS[100 + n] if n % 2 else PAYLOADS[n] for n in range(100)]
            assert all(one in shown for one in expected if one == " ".join(one.split()))
    finally:
        restored = world.stepped_up_admin().api(
            "PUT",
            "/v1/access",
            content=before.json()["text"].encode(),
            headers={"if-match": admin.api("GET", "/v1/access").headers["etag"]},
        )
        assert restored.status_code == 200, restored.text


def test_payloads_of_a_machine(world: World, chromium: Any) -> None:
    """The same as the host name that an unknown machine claims, on the page that asks a person
    whether to log it in."""
    who = world.person("xss-device", "analysts")
    with watched(world, chromium) as page:
        show_as(who, page)
        for text in PAYLOADS[::8]:
            started = world.client().post(
                "/oauth/device_authorization", data={"client_id": "broker-cli", "host_name": text}
            )
            assert started.status_code == 200, started.text
            page.goto(f"{world.url}/device?user_code={started.json()['user_code']}")
            page.locator("form[action='/device'] button").first.click()
            page.locator("#device-host-name").wait_for()
            nothing_ran(page, text)


@contextmanager
def watched(world: World, chromium: Any) -> Iterator[Any]:
    """A page of a fresh browser, in which no dialog opened and no other host was asked."""
    context = chromium.new_context()
    loaded: list[str] = []
    context.on("request", lambda request: loaded.append(request.url))
    page = context.new_page()
    dialogs: list[str] = []

    def dismiss(dialog: Any) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    try:
        yield page
    finally:
        context.close()
    assert dialogs == []
    assert {urlsplit(url).netloc for url in loaded} == {urlsplit(world.url).netloc}


def show_as(who: Person, page: Any) -> None:
    cookie = who.http.cookies["broker_session"]
    page.context.add_cookies([{"name": "broker_session", "value": cookie, "url": who.world.url}])


def nothing_ran(page: Any, where: str) -> None:
    assert page.evaluate("window.pwned === undefined"), where
    foreign = "script, iframe, object, embed, base, video, math, details, style"
    assert page.locator(foreign).count() == 0, where
    assert page.locator("[onerror], [onload], [onfocus], [onmouseover]").count() == 0, where
    assert page.locator("img[src=x], a[href^='javascript']").count() == 0, where


def test_payloads_in_queries(world: World, chromium: Any) -> None:
    """Markup in every parameter that a page could show again: reflected nowhere as markup."""
    who = world.sign_in("xss-query")
    context = chromium.new_context()
    page = context.new_page()
    cookie = who.http.cookies["broker_session"]
    context.add_cookies([{"name": "broker_session", "value": cookie, "url": world.url}])
    payload = '"><script>window.pwned=1</script><img src=x onerror=window.pwned=1>'
    from urllib.parse import quote  # noqa: PLC0415 -- for this one test

    try:
        for path in ("/login?provider=", "/mfa/enroll?next=", "/login/callback?error=",
                     "/login/callback?error_description=", "/nothing/", "/signout?x=",
                     "/oauth/authorize?client_id="):  # fmt: skip
            page.goto(world.url + path + quote(payload))
            assert page.evaluate("window.pwned === undefined"), path
            assert page.locator("script, img[src=x]").count() == 0, path
    finally:
        context.close()


def test_policies_of_every_page(world: World, ada: Person) -> None:
    """Framing, sniffing, referrers and scripts: every page says no to them by itself."""
    for path in ("/", "/mfa", "/signout", "/login?provider=none", "/nothing", "/oauth/authorize"):
        headers = ada.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"


def test_secrets_in_no_url(world: World, ada: Person) -> None:
    """The server's own log tells no code, state, token or query of all that was sent here."""
    log = world.log()
    assert ada.token not in log
    assert ada.http.cookies["broker_session"] not in log
    assert "csrf_token=" not in log
    for line in log.splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        assert "?" not in entry.get("path", "")


def raw(world: World, head: str | bytes, rest: bytes = b"") -> tuple[int, bytes, bytes]:
    """Bytes as they are, which clients would tidy up: status (0: cut off), head and body."""
    target = urlsplit(world.url)
    text = head.encode("latin-1") if isinstance(head, str) else head
    received = b""
    with socket.create_connection((target.hostname or "", target.port or 0), timeout=20) as line:
        try:
            line.sendall(
                text + f"\r\nHost: {target.netloc}\r\nConnection: close\r\n\r\n".encode() + rest
            )
            while data := line.recv(65536):
                received += data
        except OSError:
            pass
    top, _, body = received.partition(b"\r\n\r\n")
    return (int(top.split(b" ")[1]) if top.startswith(b"HTTP/1.1 ") else 0), top, body


def test_fields_of_forms_escape(world: World, ada: Person) -> None:
    """A state with quotes and markup comes back on the consent page as text."""
    from tests.hostile.world import authorization  # noqa: PLC0415 -- one test's

    state = '"><script>alert(1)</script>'
    page = ada.get("/oauth/authorize", params={**authorization(), "state": state})
    assert "<script>" not in page.text
    assert field_of(page, "state") == state
