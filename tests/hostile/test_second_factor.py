"""The second factor: what somebody who has the first may try."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.hostile.world import Person, World, field_of, problem


def verify(who: Person, code: str, url: str | None = None) -> httpx.Response:
    """Step-up by the API: the same check as the page's, with a code that tells."""
    headers = {"authorization": f"Bearer {who.token}"}
    return who.world.client(url).post("/v1/mfa/verify", json={"code": code}, headers=headers)


def mfa_time(world: World, who: Person) -> object:
    return world.rows("SELECT max(mfa_time) FROM login_sessions WHERE principal_id = ?", who.id)


@pytest.fixture
def ada(world: World) -> Person:
    return world.resident("totp-ada")


@pytest.fixture(autouse=True)
def _minutes_later(world: World, ada: Person) -> None:
    world.forget_steps(ada)


def test_code_twice(world: World, ada: Person) -> None:
    """A code read over somebody's shoulder is shown again within its half minute."""
    code = ada.code()
    assert verify(ada, code).status_code == 200
    since, seq = mfa_time(world, ada), world.head()
    assert problem(verify(ada, code)) == (422, "invalid_request")
    assert mfa_time(world, ada) == since
    (record,) = world.records(seq)
    assert (record["type"], record["detail"]["reason"]) == ("mfa.failed", "wrong_code")


def test_earlier_step_after_a_later_one(world: World, ada: Person) -> None:
    """n, n+1, n: the older code of two is shown after the newer."""
    older, newer = ada.code(), ada.code(1)
    assert verify(ada, older).status_code == 200
    assert verify(ada, newer).status_code == 200
    assert problem(verify(ada, older)) == (422, "invalid_request")
    assert problem(verify(ada, newer)) == (422, "invalid_request")


@pytest.mark.parametrize("steps", [-120, -3, 3, 120])
def test_code_of_another_time(world: World, ada: Person, steps: int) -> None:
    """A code of minutes ago or to come, as a stolen list or a wrong clock would give."""
    assert problem(verify(ada, ada.code(steps))) == (422, "invalid_request")


WIDE = str.maketrans("0123456789", "".join(chr(0xFF10 + n) for n in range(10)))
ARABIC = str.maketrans("0123456789", "".join(chr(0x0660 + n) for n in range(10)))
SPELT: dict[str, Callable[[str], str]] = {
    "full-width digits": lambda code: code.translate(WIDE),
    "Arabic digits": lambda code: code.translate(ARABIC),
    "one full-width digit": lambda code: code[:5] + code[5].translate(WIDE),
    "space before": lambda code: f" {code}",
    "space within": lambda code: f"{code[:3]} {code[3:]}",
    "newline after": lambda code: f"{code}\n",
    "NUL after": lambda code: f"{code}\x00",
    "sign before": lambda code: f"+{code}",
    "decimal": lambda code: f"{code}.0",
    "underscore": lambda code: f"{code[:3]}_{code[3:]}",
    "seven digits": lambda code: f"0{code}",
    "two codes": lambda code: f"{code}{code}",
    "zero-width space": lambda code: f"\u200b{code}",
    "superscript": lambda code: code[:5] + "\u00b2",
}


@pytest.mark.parametrize("how", SPELT)
def test_code_spelt_otherwise(world: World, ada: Person, how: str) -> None:
    """The right code in other digits, with spaces, a newline or a sign is not the code."""
    since = mfa_time(world, ada)
    assert problem(verify(ada, SPELT[how](ada.code()))) == (422, "invalid_request")
    assert mfa_time(world, ada) == since


@pytest.mark.parametrize("value", [123456, 123456.0, True, None, ["123456"], {"a": 1}, ""])
def test_code_of_another_type(world: World, ada: Person, value: object) -> None:
    """The code as a number, a list or nothing: no coercion, and no attempt is spent."""
    headers = {"authorization": f"Bearer {ada.token}"}
    answer = world.client().post("/v1/mfa/verify", json={"code": value}, headers=headers)
    assert problem(answer) == (422, "invalid_request")


def test_one_code_for_a_hundred(world: World, ada: Person) -> None:
    """A hundred callers over three processes show one code at once: it counts once."""
    urls = world.processes(3)
    code = ada.code(1)
    seq = world.head()
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda n: verify(ada, code, urls[n % 3]), range(100)))
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {a.status_code for a in answers} <= {200, 422, 429}
    assert sum(record["type"] == "mfa.verified" for record in world.records(seq)) == 1


def test_ten_wrong_codes(world: World) -> None:
    """Guessing: after a few wrong codes the right one looks as wrong as any, until the lock
    is over; the lock is on record."""
    who = world.person("guesser")
    world.forget_steps(who)
    seq = world.head()
    wrong = f"{(int(who.code()) + 1) % 10**6:06}"
    answers = [verify(who, wrong) for _ in range(10)]
    assert [a.status_code for a in answers[:5]] == [422] * 5
    assert problem(answers[-1]) == (429, "mfa_locked")
    locked, right = verify(who, wrong), verify(who, who.code())
    assert problem(locked) == problem(right) == (429, "mfa_locked")
    assert {k: v for k, v in locked.json().items() if k not in ("request_id", "retry_after")} == {
        k: v for k, v in right.json().items() if k not in ("request_id", "retry_after")
    }
    types = [record["type"] for record in world.records(seq)]
    assert types.count("mfa.failed") == 5
    assert types.count("mfa.locked") == 1
    world.change("UPDATE mfa_failures SET last_failure_at = 0 WHERE principal_id = ?", who.id)
    assert verify(who, who.code()).status_code == 200


def test_lock_is_the_persons(world: World) -> None:
    """Changing address, process or session moves no counter: the lock is the account's."""
    who = world.person("mover")
    world.forget_steps(who)
    urls = world.processes(2)
    for number in range(5):
        assert verify(who, "000000", urls[number % 2]).status_code == 422
    again = world.sign_in("mover", email="MOVER@example.com")
    answer = again.submit("/mfa", code=who.code())
    assert answer.status_code == 429
    assert problem(verify(who, who.code(), urls[1])) == (429, "mfa_locked")


def test_nobody_locks_others(world: World, ada: Person) -> None:
    """Wrong codes by those without ada's first factor leave her account alone."""
    attacker = world.visitor()
    for _ in range(12):
        assert attacker.post("/mfa", {"code": "000000"}).status_code == 401
        headers = {"authorization": f"Bearer bka_{'a' * 43}"}
        answer = world.client().post("/v1/mfa/verify", json={"code": "000000"}, headers=headers)
        assert answer.status_code == 401
    other = world.sign_in("totp-other")
    for _ in range(6):
        other.post("/mfa", {"code": "000000", "csrf_token": other.csrf("/mfa/enroll")})
    assert verify(ada, ada.code()).status_code == 200


def test_first_factor_alone_reaches_nothing(world: World, ada: Person) -> None:
    """A stolen password opens the code page, and no other."""
    thief = world.sign_in("totp-ada")
    for path in ("/", "/oauth/authorize", "/console", "/device"):
        answer = thief.get(path)
        assert answer.status_code in (303, 404), path
        assert answer.headers.get("location", "/mfa").startswith("/mfa")
    before = world.state()
    page = thief.get("/mfa/enroll")
    assert page.status_code in (303, 403)
    assert "totp-secret" not in page.text
    form = {"csrf_token": thief.csrf(), "code": "000000", "enrolment_code": ""}
    assert thief.post("/mfa/enroll", form).status_code in (303, 403)
    assert world.state() == before


def test_parallel_enrolment(world: World) -> None:
    """Two browsers with the first factor enrol at once: one authenticator counts, and the
    other's secret opens nothing."""
    one, two = world.sign_in("racer"), world.sign_in("racer")
    answers = []
    for who in (one, two):
        page = who.get("/mfa/enroll")
        who.secret = re.search(r'id="totp-secret">([A-Z2-7]+)<', page.text)[1]  # type: ignore[index]
        answers.append(field_of(page, "csrf_token"))
    assert one.secret != two.secret

    def confirm(at: int) -> httpx.Response:
        who = (one, two)[at]
        return who.post("/mfa/enroll", {"csrf_token": answers[at], "code": who.code()})

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(confirm, (0, 1)))
    assert sum(answer.status_code == 200 for answer in done) <= 1
    factors = world.rows(
        "SELECT count(*) FROM factors WHERE principal_id = ? AND confirmed_at IS NOT NULL", one.id
    )
    assert factors[0][0] <= 1


def test_enrolment_is_not_watched(world: World) -> None:
    """A thief of the first factor opens the enrolment page first, and waits for its owner to
    confirm that secret: each session has its own."""
    thief, owner = world.sign_in("watched"), world.sign_in("watched")
    shown = re.search(r'id="totp-secret">([A-Z2-7]+)<', thief.get("/mfa/enroll").text)
    assert world.enrol(owner).status_code == 200
    assert shown is not None
    assert shown[1] != owner.secret
    thief.secret = shown[1]
    assert thief.submit("/mfa", code=thief.code(1)).status_code == 422


def test_admins_need_an_invitation(world: World) -> None:
    """With open enrolment, somebody with an admin's password enrols the admin's first factor."""
    thief = world.sign_in("new-admin", groups=["platform"])
    before = world.rows("SELECT count(*) FROM factors WHERE confirmed_at IS NOT NULL")
    for code in ("", "aaaaaa-aaaaaa-aaaaaa-aaaaaa", "' OR 1=1 --"):
        seq = world.head()
        answer = world.enrol(thief, code)
        assert answer.status_code == 422
        (record,) = [r for r in world.records(seq) if r["type"] == "mfa.failed"]
        assert record["detail"]["reason"] == "wrong_enrolment_code"
    assert world.rows("SELECT count(*) FROM factors WHERE confirmed_at IS NOT NULL") == before


def test_enrolment_code_of_somebody_else(world: World) -> None:
    """An invitation for one person is used by another."""
    invited = world.sign_in("invited", groups=["platform"])
    world.forget_steps(world.admin)
    verify(world.admin, world.admin.code())
    made = world.admin.api("POST", "/v1/enrolment-codes", json={"principal": invited.id})
    assert made.status_code == 201, made.text
    code = made.json()["code"]
    thief = world.sign_in("inviting-thief", groups=["platform"])
    assert world.enrol(thief, code).status_code == 422
    assert world.enrol(invited, code).status_code == 200


def test_recovery_code_twice(world: World) -> None:
    """A recovery code is spent a second time, from another browser."""
    who = world.person("recoverer")
    browser = world.sign_in("recoverer")
    first = browser.submit("/mfa/recover", recovery_code=who.codes[0])
    assert first.headers["location"] == "/mfa/enroll"
    other = world.sign_in("recoverer")
    seq = world.head()
    again = other.submit("/mfa/recover", recovery_code=who.codes[0])
    assert again.status_code == 422
    assert [r["detail"]["reason"] for r in world.records(seq)] == ["wrong_recovery_code"]
    assert other.get("/mfa/enroll").status_code in (303, 403)


def test_recovery_code_opens_enrolment_alone(world: World) -> None:
    """A found recovery code gives no second factor by itself, and none of somebody else's."""
    who, other = world.person("recover-only"), world.sign_in("recover-other")
    thief = world.sign_in("recover-only")
    assert thief.submit("/mfa/recover", recovery_code=who.codes[1]).status_code == 303
    assert thief.get("/").headers["location"].startswith("/mfa")
    form = {"csrf_token": other.csrf("/mfa/enroll"), "recovery_code": who.codes[2]}
    assert other.post("/mfa/recover", form).status_code == 422


def test_sealed_secret_copied(world: World, ada: Person) -> None:
    """Somebody who can write the database copies their own sealed secret to another's row."""
    thief = world.person("copier")
    kept = world.rows(
        "SELECT key_id, version, nonce, ciphertext FROM factors WHERE principal_id = ?", ada.id
    )[0]
    statement = (
        "UPDATE factors SET key_id = ?, version = ?, nonce = ?, ciphertext = ? "
        "WHERE principal_id = ?"
    )
    own = world.rows(
        "SELECT key_id, version, nonce, ciphertext FROM factors WHERE principal_id = ?", thief.id
    )[0]
    world.change(statement, *own, ada.id)
    try:
        answer = verify(ada, thief.code())
        assert answer.status_code == 500
        assert thief.secret not in world.log()
    finally:
        world.change(statement, *kept, ada.id)
    world.forget_steps(ada)
    assert verify(ada, ada.code()).status_code == 200


def test_clock_stepping_back(world: World, ada: Person) -> None:
    """After a clock that ran ahead was set right, codes that were shown count no second time."""
    world.change("UPDATE factors SET last_step = last_step + 10 WHERE principal_id = ?", ada.id)
    assert verify(ada, ada.code(1)).status_code == 200
    assert problem(verify(ada, ada.code(1))) == (422, "invalid_request")
    assert problem(verify(ada, ada.code())) == (422, "invalid_request")


def test_cookie_of_before_the_factor(world: World, ada: Person) -> None:
    """Session fixation: a cookie known before the second factor is worth nothing after it."""
    browser = world.sign_in("totp-ada")
    known = browser.http.cookies["broker_session"]
    assert browser.submit("/mfa", code=ada.code()).status_code == 303
    thief = world.visitor()
    thief.http.cookies.set("broker_session", known, domain="127.0.0.1")
    assert thief.get("/").headers["location"].startswith("/login")
