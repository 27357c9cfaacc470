"""What holds for every request, whoever sends it: names, limits, headers, crashes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from broker.identity.throttle import LOGIN_PER_ADDRESS
from broker.web.middleware import BODY_LIMIT, POLICY_BODY_LIMIT
from tests.web.conftest import Running
from tests.web.journeys import bearer, enrolled_browser, logged_in_person
from tests.web.people import ADA


@pytest.mark.parametrize("host", ["evil.test", "broker.test:8443", "broker.test.evil.test", ""])
async def test_pages_exist_under_one_host_name_alone(broker: Running, host: str) -> None:
    browser = await enrolled_browser(broker, ADA)
    for path in ("/", "/login", "/mfa", "/oauth/authorize", "/signout"):
        answer = await browser.get(path, headers={"host": host, "accept": "text/html"})
        assert answer.status_code == 421, path
        assert host == "" or host not in answer.text
        assert "location" not in answer.headers
    for same in ("BROKER.test", "broker.test:443"):
        assert (await browser.get("/", headers={"host": same})).status_code == 200


async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(broker: Running) -> None:
    lying = {"x-forwarded-for": "198.51.100.1"}
    with structlog.testing.capture_logs() as logs:
        await broker.client(address="203.0.113.9").get("/healthz", headers=lying)
        await broker.client(address="10.9.0.1").get("/healthz", headers=lying)
    assert [entry["ip"] for entry in logs] == ["203.0.113.9", "198.51.100.1"]


async def test_forwarded_hosts_and_schemes_change_no_url(broker: Running) -> None:
    answer = await broker.client(address="10.9.0.1").get(
        "/login",
        headers={
            "x-forwarded-host": "evil.test",
            "x-forwarded-proto": "http",
            "forwarded": "host=evil.test",
        },
    )
    assert "evil.test" not in answer.headers["location"]
    assert "redirect_uri=https%3A%2F%2Fbroker.test%2F" in answer.headers["location"]


async def test_the_request_id_is_ours_and_the_log_has_no_query(broker: Running) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await broker.client().get(
            "/login/callback?code=secret-code&state=x", headers={"x-request-id": "chosen"}
        )
    assert answer.headers["x-request-id"].startswith("req-")
    entries = [entry for entry in logs if entry["event"] == "request"]
    assert entries[0]["request_id"] == answer.headers["x-request-id"]
    assert entries[0]["path"] == "/login/callback"
    assert "secret-code" not in repr(logs)


@pytest.mark.parametrize("name", ["host", "authorization", "content-type", "cookie", "origin"])
async def test_a_header_that_decides_something_comes_once(broker: Running, name: str) -> None:
    headers = [("host", "broker.test"), (name, "a"), (name, "b")]
    answer = await broker.client().get("/v1/me", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


async def test_a_long_body_is_refused_by_its_length_and_while_it_streams(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    sent = 0

    async def stream(total: int) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(total // 1024):
            sent += 1024
            yield b"a" * 1024

    for path in ("/v1/credentials", "/v1/mfa/verify", "/oauth/token"):
        told = await ada.api.post(
            path,
            content=b"{" + b" " * BODY_LIMIT,
            headers={**bearer(ada), "content-type": "application/json"},
        )
        assert told.status_code == 413 or path == "/oauth/token", path
        sent = 0
        streamed = await ada.api.post(
            path,
            content=stream(10 * BODY_LIMIT),
            headers={
                **bearer(ada),
                "content-type": "application/x-www-form-urlencoded"
                if path == "/oauth/token"
                else "application/json",
            },
        )
        assert streamed.status_code == 413, path
        assert streamed.headers["content-type"] in ("application/problem+json", "application/json")

    policy = await ada.api.post(
        "/v1/access/lint", content=b"#" * (POLICY_BODY_LIMIT - 1), headers=bearer(ada)
    )
    assert policy.status_code == 200
    more = await ada.api.post(
        "/v1/access/lint", content=b"#" * (POLICY_BODY_LIMIT + 1), headers=bearer(ada)
    )
    assert more.status_code == 413


async def test_unknown_paths_and_methods_answer_in_the_readers_own_shape(broker: Running) -> None:
    client = broker.client()
    missing = await client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    page = await client.get("/nothing", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    program = await client.get("/nothing", headers={"accept": "application/json"})
    assert program.headers["content-type"] == "application/problem+json"
    method = await client.delete("/v1/credentials")
    assert (method.status_code, method.json()["code"]) == (405, "invalid_request")
    assert method.headers["allow"] == "POST"
    # A trailing slash is another address, and not a redirect that takes the Host for granted.
    assert (await client.get("/v1/me/")).status_code == 404


async def test_a_crash_is_logged_and_shows_nothing(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)

    async def fail(_token: object) -> None:
        raise RuntimeError("secret detail of the fault")

    broker.app.state.parts.sessions.authenticate = fail
    with structlog.testing.capture_logs() as logs:
        for path, accept in (("/v1/me", "*/*"), ("/mfa", "text/html")):
            answer = await ada.browser.get(path, headers={**bearer(ada), "accept": accept})
            assert answer.status_code == 500
            assert "secret detail" not in answer.text
            assert answer.headers["x-request-id"] in answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"
    crashes = [entry for entry in logs if entry["event"] == "crashed"]
    assert len(crashes) == 2
    assert all(entry["exc_info"] for entry in crashes)


async def test_every_answer_carries_the_security_headers(broker: Running) -> None:
    client = broker.client()
    for method, path in (
        ("GET", "/healthz"),
        ("GET", "/v1/me"),
        ("POST", "/v1/credentials"),
        ("POST", "/oauth/token"),
        ("GET", "/login"),
        ("GET", "/nothing"),
    ):
        answer = await client.request(method, path)
        for name in (
            "content-security-policy",
            "strict-transport-security",
            "x-content-type-options",
            "referrer-policy",
            "permissions-policy",
            "cross-origin-opener-policy",
            "cross-origin-resource-policy",
        ):
            assert name in answer.headers, (path, name)
        assert answer.headers["cache-control"] == "no-store"


async def test_a_websocket_is_closed_at_the_door(broker: Running) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "app": broker.app,
    }
    await broker.app(scope, receive, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_logins_are_limited_by_address(broker: Running) -> None:
    client = broker.client(address="198.51.100.7")
    # A window may end meanwhile, but not two.
    answers = [await client.get("/login") for _ in range(2 * LOGIN_PER_ADDRESS.count + 2)]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {303, 429}
    limited = answers[statuses.index(429)]
    assert int(limited.headers["retry-after"]) >= 1
    assert (await broker.client(address="198.51.100.8").get("/login")).status_code == 303


async def test_a_caller_that_goes_away_while_sending_is_no_crash(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> dict[str, object]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        raise AssertionError(f"nobody is there to read {message['type']}")

    headers = [
        (b"host", b"broker.test"),
        (b"authorization", f"Bearer {ada.token}".encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/credentials",
        "query_string": b"",
        "headers": headers,
    }
    with structlog.testing.capture_logs() as logs:
        await broker.app(scope, receive, send)  # type: ignore[arg-type]
    assert [entry["event"] for entry in logs] == ["request"]
    assert broker.sts.calls == []


@pytest.mark.parametrize(
    "path", ["/v1%2Fme", "/v1/me%0a", "/v1/%2e/me", "/v1%5cme", "/v1/me%C2%85"]
)
async def test_an_address_has_one_spelling(broker: Running, path: str) -> None:
    ada = await logged_in_person(broker, ADA)
    answer = await ada.api.get(path, headers=bearer(ada))
    assert answer.status_code == 404
    assert ada.person.email not in answer.text
