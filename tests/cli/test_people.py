"""users, sessions, suspend, reinstate, grant, grants, revoke and enrol-code --group."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.cli import times
from broker.cli.failure import WrongUsage
from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply, Seen

ADA = "p-adaadaadaadaadaa"
BOB = "p-bobbobbobbobbobb"
GRANT = "g-" + "a" * 26
SESSION = "ls-" + "0" * 20
ESC = "\x1b[31m"


def user(id_: str, name: str, provider: str = "corp", **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "kind": "person",
        "handle": name,
        "email": f"{name}@example.com",
        "email_verified": True,
        "provider": provider,
        "groups": ["corp/analysts"],
        "rights": [],
        "second_factor": True,
        "live_sessions": 1,
        "created_at": "2026-01-02T03:04:05Z",
        "last_login_at": "2026-01-02T03:04:05Z",
        "suspended_at": None,
        "suspended_reason": None,
    } | changes


@pytest.fixture
def people(broker: FakeBroker) -> list[dict[str, Any]]:
    """Those that the broker knows, two a page."""
    known = [user(ADA, "ada"), user(BOB, "bob"), user("p-" + "c" * 16, "cleo")]

    def listed(request: Seen) -> Reply:
        part = request.query.get("q", "").lower()
        found = [one for one in known if part in one["handle"] + one["email"]]
        ids = [one["id"] for one in found]
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = found[start : start + 2]
        return Reply.of({"users": page, "next": page[-1]["id"] if len(page) == 2 else None})

    broker.replies["/v1/users"] = listed
    return known


@pytest.fixture
def made(broker: FakeBroker) -> dict[str, Any]:
    """The grant that the broker answers with."""
    grant = {
        "id": GRANT,
        "principal_id": BOB,
        "handle": f"bob{ESC}",
        "role": "deployer",
        "state": "active",
        "not_before": "2026-11-25T13:00:00Z",
        "expires_at": "2026-11-25T15:00:00Z",
        "usable_until": "2026-11-25T14:44:45Z",
        "granted_by": ADA,
        "reason": "on call",
    }
    broker.replies["/v1/grants"] = lambda request: (
        Reply.of(grant, 201)
        if request.method == "POST"
        else Reply.of({"grants": [grant], "next": None})
    )
    broker.replies[f"/v1/grants/{GRANT}/revoke"] = Reply.of(grant)
    return grant


def live(policy: object) -> dict[str, Any]:
    return {
        "live_issuances": [],
        "live_issuances_total": 2,
        "roles": [
            {
                "role": "deployer",
                "role_arn": "arn:aws:iam::111122223333:role/Deployer",
                "account_id": "111122223333",
                "live_issuances": 2,
                "last_expires_at": "2026-11-25T15:00:00Z",
                "may_chain": True,
                "policy_name": f"broker-deny-{BOB}",
                "policy": policy,
            }
        ],
    }


def test_users_are_read_to_the_last_page(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, people: list[dict[str, Any]]
):
    people[1] |= {"handle": f"bob{ESC}", "suspended_at": "2026-01-02T03:04:05Z"}
    done = cli.inside("users", "--group", "corp/analysts")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "HANDLE", "ada", "bob\\x1b[31m", "cleo",
    ]  # fmt: skip
    assert "suspended" in done.out.splitlines()[2]
    assert broker.last("/v1/users").query["group"] == "corp/analysts"
    assert len(json.loads(cli.inside("users", "--json").out)) == 3


def test_a_list_that_leads_in_a_circle_ends(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies["/v1/users"] = Reply.of({"users": [user(ADA, "ada")], "next": ADA})
    assert cli.inside("users").code == 0
    assert broker.count("/v1/users") == 2


@pytest.mark.parametrize(
    "named", [BOB, "bob", "BOB", "bob@example.com", "corp/Bob@Example.com", "corp/bob@example.com"]
)
def test_a_person_is_found_by_each_name(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, people: list[dict[str, Any]], named: str
):
    broker.replies[f"/v1/users/{BOB}"] = Reply.of(people[1])
    done = cli.inside("users", "show", named)
    assert done.code == 0, done.err
    assert BOB in done.out


@pytest.mark.parametrize(
    ("named", "code", "says"),
    [
        ("nobody", 1, "nobody known"),
        ("bo", 1, "nobody known"),  # part of a name is none
        ("other/bob@example.com", 1, "nobody known"),
        ("twin@example.com", 1, f"{ADA}, {BOB}"),
        ("p-../../x", 2, "not a person"),
        ("corp/", 2, "not a person"),
        ("", 2, "not a person"),
    ],
)
def test_who_is_not_meant_clearly_is_not_touched(
    cli: Cli,
    broker: FakeBroker,
    logged_in: Tokens,
    people: list[dict[str, Any]],
    named: str,
    code: int,
    says: str,
):
    people[0] |= {"email": "twin@example.com"}
    people[1] |= {"email": "twin@example.com", "provider": "third"}
    for words in (("users", "end-sessions", named), ("suspend", named, "--reason", "x")):
        done = cli.inside(*words)
        assert (done.code, says in done.err) == (code, True), done.err
    assert {request.method for request in broker.seen} <= {"GET"}


def test_logins_are_listed_and_ended(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, people: list[dict[str, Any]]
):
    session = {
        "id": SESSION,
        "client": "cli",
        "auth_time": "2026-01-02T03:04:05Z",
        "mfa_time": None,
        "created_at": "2026-01-02T03:04:05Z",
        "expires_at": "2026-01-02T15:04:05Z",
        "ip": "192.0.2.1",
        "user_agent": f"agent{ESC}",
        "current": True,
    }
    of_bob = f"/v1/users/{BOB}/sessions"
    for path in (of_bob, "/v1/me/sessions"):
        broker.replies[path] = lambda request: (
            Reply.of({"sessions": [session], "next": None})
            if request.method == "GET"
            else Reply.of({"ended": [SESSION]})
        )
        broker.replies[f"{path}/{SESSION}"] = Reply.of({"ended": [SESSION]})
    for shown in ("users sessions bob", "sessions"):
        done = cli.inside(*shown.split())
        assert done.code == 0, done.err
        assert f"{SESSION} (this one)" in done.out
        assert ESC not in done.out
    for words, path in (
        (("users", "end-sessions", "bob"), of_bob),
        (("users", "end-sessions", "bob", "--session", SESSION), f"{of_bob}/{SESSION}"),
        (("sessions", "--end-others"), "/v1/me/sessions"),
        (("sessions", "--end", SESSION), f"/v1/me/sessions/{SESSION}"),
    ):
        done = cli.inside(*words)
        assert (done.code, "Ended 1 login," in done.err) == (0, True), done.err
        assert broker.last(path).method == "DELETE"
    assert cli.inside("sessions", "--end", "../../users").code == 2


def test_a_suspension_prints_what_to_paste(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, people: list[dict[str, Any]]
):
    policy = {"Version": "2012-10-17", "Statement": [{"Sid": f"x{ESC}"}]}
    done_there = live(policy) | {
        "principal_id": BOB,
        "already_suspended": False,
        "suspended_at": "2026-11-25T14:00:00Z",
        "reason": "stolen",
        "login_sessions_ended": 3,
        "grants_revoked": [GRANT],
    }
    broker.replies[f"/v1/users/{BOB}/suspend"] = Reply.of(done_there)
    done = cli.inside("suspend", "bob", "--reason", "stolen")
    assert done.code == 0, done.err
    assert broker.last(f"/v1/users/{BOB}/suspend").json() == {"reason": "stolen"}
    assert "3 logins, 1 grants" in done.err
    pasted = "\n".join(line for line in done.out.splitlines() if not line.startswith("#"))
    assert json.loads(pasted) == policy
    assert ESC not in done.out
    assert "role/Deployer" in done.out
    assert "2026-11-25T15:00:00Z" in done.out
    assert "beware" in done.out
    assert json.loads(cli.inside("suspend", "bob", "--reason", "x", "--json").out) == done_there
    assert cli.inside("suspend", "bob").code == 2  # a reason is asked for
    done_there |= {"already_suspended": True, "roles": []}
    broker.replies[f"/v1/users/{BOB}/suspend"] = Reply.of(done_there)
    again = cli.inside("suspend", "bob", "--reason", "x")
    assert "suspended already" in again.err
    assert "nothing is left to do there" in again.err


def test_a_reinstatement_prints_what_stays_denied(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, people: list[dict[str, Any]]
):
    broker.replies[f"/v1/users/{BOB}/reinstate"] = Reply.of(
        live({"Version": "2012-10-17"}) | {"lifted_at": "2026-11-25T14:00:00Z"}
    )
    done = cli.inside("reinstate", "bob", "--reason", "found")
    assert done.code == 0, done.err
    assert "2012-10-17" in done.out
    assert "log in anew" in done.err


def test_a_grant_says_when_in_both_times(
    cli: Cli,
    broker: FakeBroker,
    logged_in: Tokens,
    people: list[dict[str, Any]],
    made: dict[str, Any],
):
    cli.environment["TZ"] = "Europe/Berlin"
    words = ("--from", "2026-11-25 14:00", "--until", "2026-11-25T15:00:00Z", "--reason", "on call")
    done = cli("grant", "bob", "deployer", *words)
    assert (done.code, done.out) == (0, f"{GRANT}\n"), done.err
    assert "2026-11-25T13:00:00Z (2026-11-25 14:00 +0100 here)" in done.err
    assert ESC not in done.err
    asked = broker.last("/v1/grants")
    assert asked.json() == {
        "principal": BOB,
        "role": "deployer",
        "reason": "on call",
        "not_before": "2026-11-25T13:00:00Z",
        "expires_at": "2026-11-25T15:00:00Z",
    }
    key = asked.headers["idempotency-key"]
    cli.inside("grant", "corp/bob@example.com", "deployer", "--for", "2h", "--reason", "on call")
    asked = broker.last("/v1/grants")
    assert asked.json() == {
        "user": "corp/bob@example.com",
        "role": "deployer",
        "reason": "on call",
        "duration": 7200,
    }
    assert asked.headers["idempotency-key"] != key
    made["usable_until"] = "2026-11-25T12:59:00Z"
    short = cli.inside("grant", BOB, "deployer", "--for", "10m", "--reason", "x")
    assert "which is never" in short.err


@pytest.mark.parametrize(
    "words",
    [
        ("--reason", "x"),
        ("--for", "2h"),
        ("--for", "2h", "--until", "2026-11-25 14:00", "--reason", "x"),
        ("--for", "soon", "--reason", "x"),
        ("--until", "tomorrow", "--reason", "x"),
        ("--until", "2026-11-25", "--reason", "x"),
        ("--until", "9999-12-31T23:59:59-14:00", "--reason", "x"),
    ],
)
def test_what_is_no_grant_is_wrong_usage(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, words: tuple[str, ...]
):
    assert cli.inside("grant", BOB, "deployer", *words).code == 2
    assert cli.inside("grant", BOB, "Deployer!", "--for", "2h", "--reason", "x").code == 2
    assert broker.seen == []


def test_grants_are_listed_and_revoked(
    cli: Cli,
    broker: FakeBroker,
    logged_in: Tokens,
    people: list[dict[str, Any]],
    made: dict[str, Any],
):
    done = cli.inside("grants", "--active", "--person", "bob", "--role", "deployer")
    assert done.code == 0, done.err
    assert GRANT in done.out
    assert ESC not in done.out
    query = broker.last("/v1/grants").query
    assert query == {"active": "true", "principal": BOB, "role": "deployer", "limit": "500"}
    assert json.loads(cli.inside("grants", "--json").out) == [made]
    done = cli.inside("revoke", GRANT, "--reason", "over")
    assert (done.code, "no longer has deployer" in done.err) == (0, True)
    assert broker.last(f"/v1/grants/{GRANT}/revoke").json() == {"reason": "over"}
    assert cli.inside("revoke", "g-../x", "--reason", "over").code == 2


def test_codes_for_a_group_are_one_a_line(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    def codes(request: Seen) -> Reply:
        last = "after" in request.json()
        name = "bob" if last else f"ada{ESC}"
        one = {"principal": ADA, "handle": name, "email": None, "code": "abc-def"}
        return Reply.of({"codes": [one], "expires_at": None, "next": None if last else ADA}, 201)

    broker.replies["/v1/enrolment-codes"] = codes
    done = cli.inside("enrol-code", "--group", "corp/analysts")
    assert (done.code, done.out) == (0, "ada\\x1b[31m\tabc-def\nbob\tabc-def\n")
    assert "abc-def" not in done.err
    assert broker.last("/v1/enrolment-codes").json() == {"group": "corp/analysts", "after": ADA}
    assert cli.inside("enrol-code").code == 2
    assert cli.inside("enrol-code", BOB, "--group", "corp/x").code == 2


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_a_local_time_means_one_moment_or_is_refused():
    assert times.moment("2026-07-01 14:00", "--from") == "2026-07-01T12:00:00Z"
    assert times.moment("2026-12-01T14:00:30", "--from") == "2026-12-01T13:00:30Z"
    assert times.moment("2026-10-25T02:30:00+02:00", "--from") == "2026-10-25T00:30:00Z"
    # The hour that comes twice, and the one that never comes.
    for text in ("2026-10-25 02:30", "2026-03-29 02:30"):
        with pytest.raises(WrongUsage, match="clocks change"):
            times.moment(text, "--from")
    assert times.both("2026-07-01T12:00:00Z").endswith("(2026-07-01 14:00 +0200 here)")
    assert times.both("nonsense\x1b") == "nonsense\\x1b"
    assert times.both(None) == times.local("") == "-"
    assert datetime.fromisoformat(times.moment("2026-07-01 14:00Z", "-")) == datetime(
        2026, 7, 1, 14, tzinfo=UTC
    )
