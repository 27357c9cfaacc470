"""`broker why`: what it asks, and what a person reads of the answer."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply

PATH = "/v1/roles/data-reader/explain"
ALLOWED: dict[str, Any] = {
    "principal": {
        "id": "p-abcdefghij234567",
        "kind": "person",
        "handle": "alice@example.com",
        "groups": ["corp/analysts"],
        "suspended": False,
    },
    "address": "10.1.2.3",
    "assumed": [],
    "policy_version": 4,
    "now": "2026-11-24T12:00:00Z",
    "role": "data-reader",
    "role_arn": "arn:aws:iam::111122223333:role/DataReader",
    "account_id": "111122223333",
    "account_name": "Production",
    "allowed": True,
    "code": None,
    "detail": None,
    "matched": {"entitlement": "group corp/analysts", "line": 18},
    "near_misses": [],
    "duration": {
        "requested": 7200,
        "granted": 3600,
        "bound_by": "role_chaining",
        "limits": [
            {"name": "requested", "seconds": 7200},
            {"name": "role_chaining", "seconds": 3600},
            {"name": "entitlement", "seconds": 3600},
        ],
        "chained": True,
    },
    "session_policy": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]},
    "session_policy_characters": 60,
    "managed_policies": [],
    "tags": {"team": "web", "broker:issuance": "iss-0"},
    "transitive_tags": ["broker:issuance"],
    "source_identity": "p-abcdefghij234567",
    "session_name": "alice@example.com-iss-0",
    "via": ["arn:aws:iam::999988887777:role/Hub"],
}
REFUSED: dict[str, Any] = {
    **ALLOWED,
    "assumed": ["their newest login, of 2026-11-24T08:00:00Z"],
    "allowed": False,
    "code": "outside_network",
    "detail": "This role is not given to your network address (10.1.2.3).",
    "matched": None,
    "duration": None,
    "near_misses": [
        {
            "entry": {"entitlement": "group corp/analysts", "line": 18},
            "condition": "networks",
            "failed": [
                {
                    "condition": "networks",
                    "code": "outside_network",
                    "detail": "No.",
                    "satisfied_by": "a client address in 192.0.2.0/24",
                },
                {
                    "condition": "reason",
                    "code": "reason_required",
                    "detail": "No.",
                    "satisfied_by": "a reason: `--reason TEXT`",
                },
            ],
        }
    ],
}


def test_what_is_asked(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.of(ALLOWED)
    asked = ("--set", "bucket=a&b", "--set", "prefix=x y", "--duration", "2h", "--reason", "T#7")
    done = cli("why", "data-reader", *asked, "--principal", "corp/al+ice@example.com", "--json")
    assert done.code == 0
    assert json.loads(done.out) == ALLOWED
    seen = broker.last(PATH)
    assert seen.method == "GET"
    assert seen.query == {
        "set": "bucket=a&b",  # the first of both
        "duration": "7200",
        "reason": "T#7",
        "principal": "corp/al+ice@example.com",
    }


def test_a_workload_is_asked_about_by_its_name(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.of({**ALLOWED, "assumed": ["a job of workload deploy"]})
    done = cli("why", "data-reader", "--workload", "deploy")
    assert done.code == 0
    assert broker.last(PATH).query == {"workload": "deploy"}
    assert "assumed:  a job of workload deploy" in done.out


def test_an_allowed_request_shows_limits_policy_and_tags(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies[PATH] = Reply.of(ALLOWED)
    done = cli("why", "data-reader")
    assert done.code == 0
    assert broker.last(PATH).query == {}
    shown = done.out.splitlines()
    for line in (
        "who:      alice@example.com (p-abcdefghij234567)",
        "groups:   corp/analysts",
        "role:     data-reader (arn:aws:iam::111122223333:role/DataReader)",
        "ALLOWED by entitlement group corp/analysts (line 18)",
        "DURATION 1h, bound by role_chaining",
        "    requested      2h",
        "  > role_chaining  1h",
        "    entitlement    1h",  # as low, but not what is named
        "SESSION POLICY (60 of 2048 characters)",
        '          "Effect": "Allow"',
        "    arn:aws:iam::999988887777:role/Hub",
        "    team             web",
        "    broker:issuance  iss-0  (transitive)",
        "SOURCE IDENTITY p-abcdefghij234567",
    ):
        assert line in shown, done.out
    assert "REFUSED" not in done.out


def test_a_refusal_shows_the_nearest_entry_and_what_it_needs(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies[PATH] = Reply.of(REFUSED)
    done = cli("why", "data-reader", "--principal", "p-abcdefghij234567")
    assert done.code == 0
    shown = done.out.splitlines()
    for line in (
        "assumed:  their newest login, of 2026-11-24T08:00:00Z",
        "REFUSED outside_network: This role is not given to your network address (10.1.2.3).",
        "    entitlement group corp/analysts (line 18)",
        "        fails networks: needs a client address in 192.0.2.0/24",
        "        and   reason: needs a reason: `--reason TEXT`",
    ):
        assert line in shown, done.out
    assert "SESSION POLICY" not in done.out
    assert "ALLOWED" not in done.out


def test_nothing_reaches_the_terminal_that_could_rewrite_it(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: poisoned(item) for name, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        return f"{value}\x1b[2J\r\u202e" if isinstance(value, str) else value

    for body in (ALLOWED, REFUSED):
        broker.replies[PATH] = Reply.of(poisoned(copy.deepcopy(body)))
        done = cli("why", "data-reader")
        assert done.code == 0
        assert not any(sign in done.out for sign in "\x1b\r\u202e")


@pytest.mark.parametrize("member", ["near_misses", "code", "duration"])
def test_an_answer_of_another_shape_is_not_believed(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, member: str
):
    broker.replies[PATH] = Reply.of({**REFUSED, member: {"limits": 7}})
    assert cli("why", "data-reader").code == 4


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("DATA",),
        ("data-reader", "--set", "bucket"),
        ("data-reader", "--principal", "alice"),
        ("data-reader", "--duration", "soon"),
        ("data-reader", "--workload", "deploy", "--principal", "w-abcdefghij234567"),
    ],
)
def test_wrong_usage(cli: Cli, broker: FakeBroker, logged_in: Tokens, words: tuple[str, ...]):
    assert cli.inside("why", *words).code == 2
    assert broker.count(PATH) == 0


def test_a_refusal_to_explain_is_one(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.problem(403, "forbidden", "Only auditors and admins.")
    done = cli("why", "data-reader", "--principal", "corp/bob@example.com")
    assert done.code == 1
    assert done.err.startswith("broker: forbidden: Only auditors and admins.")
