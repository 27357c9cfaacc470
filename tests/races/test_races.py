"""What may happen once, asked for by a crowd over two processes: one wins, or the log has an order.

24 callers and 3 rounds on each database; with --long 100 and 100.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import httpx
import pytest

from tests.hostile.world import REDIRECT_URI, VERIFIER, field_of
from tests.races.conftest import Arena, Ask

pytestmark = pytest.mark.timeout(7200)
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def types(arena: Arena, after: int) -> Counter[str]:
    return Counter(record["type"] for record in arena.world.records(after))


def form_ask(path: str, **fields: str) -> Ask:
    return Ask("POST", path, options={"data": {"client_id": "broker-cli", **fields}})


def test_totp_step(arena: Arena) -> None:
    """One code, shown by everybody at once: it counts once."""
    ada = arena.world.resident("race-totp")
    for _ in range(arena.rounds):
        arena.world.forget_steps(ada)
        seq = arena.world.head()
        answers = arena.all_of(Ask.api(ada, "POST", "/v1/mfa/verify", json={"code": ada.code()}))
        assert statuses(answers)[200] == 1
        assert set(statuses(answers)) <= {200, 422, 429}
        assert types(arena, seq)["mfa.verified"] == 1


def test_authorization_code(arena: Arena) -> None:
    """One code, redeemed by everybody: one gets tokens."""
    ada = arena.world.resident("race-code")
    for _ in range(arena.rounds):
        fields = {"redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER}
        ask = form_ask(
            "/oauth/token",
            grant_type="authorization_code",
            code=ada.authorization_code(),
            **fields,
        )
        seq = arena.world.head()
        answers = arena.all_of(ask)
        assert statuses(answers) == {200: 1, 400: arena.callers - 1}
        assert types(arena, seq)["login.succeeded"] <= 1


def test_device_code(arena: Arena) -> None:
    """One allowed device code, polled by everybody: one gets tokens."""
    for turn in range(arena.rounds):
        # Somebody else after a while: a person may type thirty user codes in ten minutes.
        ada = arena.world.resident(f"race-device-{turn // 20}")
        arena.world.forget_steps(ada)
        started = arena.world.client().post(
            "/oauth/device_authorization", data={"client_id": "broker-cli", "host_name": "race"}
        )
        assert started.status_code == 200, started.text
        user_code = started.json()["user_code"]
        allowed = ada.post(
            "/device",
            {
                "csrf_token": ada.csrf("/device"),
                "user_code": user_code,
                "decision": "allow",
                "code": ada.code(),
            },
        )
        assert allowed.status_code == 200, allowed.text
        ask = form_ask(
            "/oauth/token", grant_type=DEVICE_CODE, device_code=started.json()["device_code"]
        )
        answers = arena.all_of(ask)
        assert statuses(answers)[200] == 1
        assert set(statuses(answers)) <= {200, 400}


def test_refresh_token(arena: Arena) -> None:
    """One refresh token, rotated by everybody: at most one successor lives, and works."""
    ada = arena.world.sign_in("race-refresh")
    assert arena.world.enrol(ada).status_code == 200
    for _ in range(arena.rounds):
        ada.log_the_terminal_in()
        token = ada.refresh_token
        seq = arena.world.head()
        answers = arena.all_of(
            form_ask("/oauth/token", grant_type="refresh_token", refresh_token=token)
        )
        pairs = {
            hashlib.sha256(body["refresh_token"].encode()).digest(): body
            for body in (a.json() for a in answers if a.status_code == 200)
        }
        assert set(statuses(answers)) <= {200, 400}
        session = arena.world.rows(
            "SELECT login_session_id FROM tokens WHERE hash = ?",
            hashlib.sha256(token.encode()).digest(),
        )[0][0]
        alive = arena.world.rows(
            "SELECT t.hash FROM tokens t JOIN login_sessions s ON s.id = t.login_session_id"
            " WHERE s.id = ? AND s.revoked_at IS NULL AND t.kind = 'bkr' AND t.retired_at IS NULL",
            session,
        )
        if not alive:
            # Taken for theft, as a second use after the grace is: then it is on record.
            assert types(arena, seq)["session.revoked"] == 1
            continue
        ((living,),) = alive
        again = arena.at_once(
            [
                form_ask(
                    "/oauth/token",
                    grant_type="refresh_token",
                    refresh_token=pairs[bytes(living)]["refresh_token"],
                )
            ]
        )
        assert statuses(again) == {200: 1}


def test_recovery_code(arena: Arena) -> None:
    """One recovery code from two browsers, sent by everybody: it opens enrolment once."""
    for number in range(arena.rounds):
        who = arena.world.person(f"race-recovery-{number}")
        browsers = [arena.world.sign_in(f"race-recovery-{number}") for _ in range(2)]
        asks = [
            Ask.form(
                browser,
                "/mfa/recover",
                {"csrf_token": browser.csrf("/mfa/recover"), "recovery_code": who.codes[0]},
            )
            for browser in browsers
        ]
        seq = arena.world.head()
        answers = arena.at_once([asks[n // 2 % 2] for n in range(arena.callers)])
        assert statuses(answers)[303] >= 1
        left = arena.world.rows(
            "SELECT count(*) FROM recovery_codes WHERE principal_id = ?", who.id
        )
        assert left == [(len(who.codes) - 1,)]
        opened = arena.world.rows(
            "SELECT count(*) FROM login_sessions"
            " WHERE principal_id = ? AND may_enrol_until IS NOT NULL",
            who.id,
        )
        assert opened == [(1,)]
        recorded = [r for r in arena.world.records(seq) if r["type"] == "mfa.verified"]
        assert len(recorded) <= 1


def test_enrolment_code(arena: Arena) -> None:
    """One enrolment code in two browsers with a secret each: one authenticator counts."""
    for number in range(arena.rounds):
        subject = f"race-enrolment-{number}"
        browsers = [arena.world.sign_in(subject, groups=["platform"]) for _ in range(2)]
        admin = arena.world.stepped_up_admin()
        made = admin.api("POST", "/v1/enrolment-codes", json={"principal": browsers[0].id})
        assert made.status_code == 201, made.text
        asks = []
        for browser in browsers:
            page = browser.get("/mfa/enroll")
            found = re.search(r'id="totp-secret">([A-Z2-7]+)<', page.text)
            assert found is not None
            browser.secret = found[1]
            fields = {
                "csrf_token": field_of(page, "csrf_token"),
                "code": browser.code(),
                "enrolment_code": made.json()["code"],
            }
            asks.append(Ask.form(browser, "/mfa/enroll", fields))
        seq = arena.world.head()
        answers = arena.at_once([asks[n // 2 % 2] for n in range(arena.callers)])
        assert sum("recovery-codes" in answer.text for answer in answers) == 1
        confirmed = arena.world.rows(
            "SELECT count(*) FROM factors WHERE principal_id = ? AND confirmed_at IS NOT NULL",
            browsers[0].id,
        )
        assert confirmed == [(1,)]
        assert types(arena, seq)["mfa.enrolled"] == 1


def test_policy_apply(arena: Arena) -> None:
    """Everybody applies their own change to the same version: one is applied, and recorded."""
    admin = arena.world.stepped_up_admin()
    for turn in range(arena.rounds):
        current = admin.api("GET", "/v1/access")
        assert current.status_code == 200
        text = current.json()["text"]
        seq = arena.world.head()
        answers = arena.at_once(
            [
                Ask.api(
                    admin,
                    "PUT",
                    "/v1/access",
                    content=f"{text}\n# {turn} {number}\n".encode(),
                    headers={"if-match": current.headers["etag"]},
                )
                for number in range(arena.callers)
            ]
        )
        assert statuses(answers)[200] == 1
        assert set(statuses(answers)) <= {200, 412}
        assert types(arena, seq)["access.applied"] == 1


def test_grant_revoked_during_issuance(arena: Arena) -> None:
    """A grant is revoked while a crowd uses it: the log has an order, and after the revocation
    nothing was issued by it, whatever was on its way.
    """
    bob = arena.world.resident("race-grant")
    for _ in range(arena.rounds):
        admin = arena.world.stepped_up_admin()
        given = admin.api(
            "POST",
            "/v1/grants",
            json={"principal": bob.id, "role": "data-reader", "duration": 3600, "reason": "race"},
        )
        assert given.status_code == 201, given.text
        grant = given.json()["id"]
        asks = [
            Ask.api(bob, "POST", "/v1/credentials", json={"role": "data-reader"})
            for _ in range(arena.callers)
        ]
        revoke = Ask.api(admin, "POST", f"/v1/grants/{grant}/revoke", json={"reason": "race"})
        seq = arena.world.head()
        answers = arena.under_way(asks, then=revoke)
        assert answers[-1].status_code == 200
        assert set(statuses(answers)) <= {200, 403, 404}
        records = arena.world.records(seq)
        order = [r["type"] for r in records if r["type"] in ("grant.revoked", "issuance.issued")]
        assert order.count("grant.revoked") == 1
        assert order[-1] == "grant.revoked", order
        answered = {a.json()["issuance_id"] for a in answers if "issuance_id" in a.text}
        recorded = {r["subject"]["issuance"] for r in records if r["type"] == "issuance.issued"}
        assert answered == recorded
        assert recorded, "the revocation came first: nothing raced"
