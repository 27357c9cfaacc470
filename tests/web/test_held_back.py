"""A request whose last byte is held back is judged when it is whole, not when it began; and a
cookie counts under its own name alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.web.conftest import Running
from tests.web.journeys import (
    POLICY,
    bearer,
    enrolled_browser,
    logged_in_admin,
    logged_in_person,
)
from tests.web.people import ADA, REDIRECT_URI, authorization, field_of
from tests.web.test_api import apply, problem


async def held_back(
    body: bytes, meanwhile: Callable[[], Awaitable[object]]
) -> AsyncIterator[bytes]:
    yield body[:-1]
    await meanwhile()
    yield body[-1:]


async def test_a_right_that_went_while_the_body_was_held_back_is_gone(broker: Running) -> None:
    admin, ada = await logged_in_admin(broker), await logged_in_person(broker, ADA)
    await apply(admin, POLICY)
    without = POLICY.replace("{group: analysts}", "{group: others}")
    body = held_back(
        b'{"role":"data-reader","parameters":{"bucket":"logs"}}',
        lambda: apply(admin, without, version=1),
    )
    headers = {**bearer(ada), "content-type": "application/json"}
    answer = await ada.api.post("/v1/credentials", content=body, headers=headers)
    assert problem(answer) == (404, "not_found")
    assert broker.sts.calls == []


async def test_a_policy_is_applied_by_who_may_when_the_file_is_whole(broker: Running) -> None:
    admin = await logged_in_admin(broker)

    async def log_out() -> None:
        form = {"client_id": "broker-cli", "token": admin.refresh_token}
        assert (await admin.api.post("/oauth/revoke", data=form)).status_code == 200

    body = held_back(POLICY.encode(), log_out)
    answer = await admin.api.put("/v1/access", content=body, headers=bearer(admin))
    assert problem(answer) == (401, "unauthenticated")
    assert await broker.app.state.parts.access.current_policy() is None


async def test_consent_of_a_session_that_ended_meanwhile_gives_no_code(broker: Running) -> None:
    browser = await enrolled_browser(broker, ADA)
    page = await browser.get("/oauth/authorize", params=authorization(REDIRECT_URI))
    token = field_of(page, "csrf_token")
    form = "&".join(
        f"{name}={field_of(page, name).replace(':', '%3A').replace('/', '%2F')}"
        for name in ("csrf_token", *authorization())
    )
    kept = dict(browser.client.cookies)

    async def sign_out() -> None:
        await browser.post("/signout", {"csrf_token": token})

    cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
    answer = await broker.client().post(
        "/oauth/authorize",
        content=held_back(f"{form}&decision=allow".encode(), sign_out),
        headers={"content-type": "application/x-www-form-urlencoded", "cookie": cookie},
    )
    assert answer.status_code == 401
    assert "location" not in answer.headers


@pytest.mark.parametrize("space", [b"\xa0", b"\x85", b"\x1f", b"\x0b"])
async def test_a_cookie_planted_by_a_neighbour_under_a_padded_name_is_not_read(
    broker: Running, space: bytes
) -> None:
    attacker = await enrolled_browser(broker, ADA)
    ((name, value),) = attacker.client.cookies.items()
    assert name == "__Host-broker_session"
    victim = broker.client()
    exact = f"{name}={value}".encode()
    assert (await victim.get("/", headers={b"cookie": exact})).status_code == 200
    for planted in (space + exact, name.encode() + space + b"=" + value.encode()):
        answer = await victim.get("/", headers={b"cookie": planted})
        assert answer.headers["location"].startswith("/login"), planted
    # Of two nobody knows which one is the browser's own.
    twice = await victim.get("/", headers={b"cookie": exact + b"; " + exact})
    assert twice.headers["location"].startswith("/login")
