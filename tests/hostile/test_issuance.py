"""Credentials: what somebody with a right may try to get more than it, and what STS may do."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from broker.devstack.aws.faults import Fault
from tests.hostile.world import Person, World, problem


@pytest.fixture
def ada(world: World) -> Person:
    return world.resident("issue-ada", "analysts")


def untouched(world: World, who: Person, **body: Any) -> tuple[int, str]:
    """The refusal; STS was not asked, and no intent is on record."""
    calls, seq = len(world.aws.calls), world.head()
    answer = who.ask(**body)
    assert len(world.aws.calls) == calls
    assert {record["type"] for record in world.records(seq)} <= {"issuance.denied"}
    assert "credentials" not in answer.json()
    return problem(answer)


@pytest.mark.parametrize(
    "duration",
    [0, -1, 899, 43201, 10**9, 10**30, True, "3600", 3600.5, [3600], "\uff13\uff16\uff10\uff10"],
    ids=str,
)
def test_duration_out_of_range(world: World, ada: Person, duration: object) -> None:
    """A duration below 900 s, above 12 h, or of another type than a whole number."""
    assert untouched(world, ada, duration=duration) == (422, "invalid_request")


def test_duration_above_the_ceiling(world: World, ada: Person) -> None:
    """Twelve hours are asked for where two are allowed: it is lowered, and said so."""
    answer = ada.ask(duration=43200).json()
    assert answer["duration"]["granted"] == 7200
    assert answer["duration"]["bound_by"] == "entitlement"
    assert world.aws.calls.of("AssumeRole")[-1].parameters["DurationSeconds"] == "7200"


HOSTILE_VALUES = [
    "*",
    "?",
    "public/*",
    "..",
    "../private",
    "${aws:username}",
    "$",
    '"',
    "'",
    "\\",
    "a\nb",
    "a\x00b",
    "\u2028",
    "{{7*7}}",
    "{{principal.id}}",
    "{x.__class__}",
    "%s",
    "\uff0a",
    "",
    "a" * 41,
    "A",
    '","Resource":"*',
]


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_parameter_reaches_beyond(world: World, ada: Person, value: str) -> None:
    """A parameter with wildcards, policy variables, quotes, line breaks or template code."""
    assert untouched(world, ada, parameters={"prefix": value}) == (422, "invalid_request")
    assert untouched(world, ada, parameters={"bucket": value}) == (422, "invalid_request")


@pytest.mark.parametrize(
    "parameters",
    [
        {"other": "x"},
        {"": "x"},
        {"prefix": 7},
        {"prefix": ["public"]},
        {"principal.id": "p-aaaaaaaaaaaaaaaa"},
        {"__class__": "x"},
        [["prefix", "x"]],
        {f"p{n}": "x" for n in range(40)},
    ],
    ids=["unknown", "empty name", "number", "list", "principal", "dunder", "pairs", "many"],
)
def test_parameters_of_another_shape(world: World, ada: Person, parameters: object) -> None:
    """Parameters that the role does not have, or that are no strings."""
    assert untouched(world, ada, parameters=parameters) == (422, "invalid_request")


DENY = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
TRICKS: dict[str, Any] = {
    "Allow": [{**DENY, "Effect": "Allow"}],
    "allow": [{**DENY, "Effect": "allow"}],
    "Effect missing": [{"Action": "*", "Resource": "*"}],
    "Effect twice": [{**DENY, "effect": "Allow"}],
    "an object": DENY,
    "a policy": {"Version": "2012-10-17", "Statement": [DENY]},
    "text": '[{"Effect":"Deny"}]',
    "nested": [[DENY]],
    "Action a number": [{**DENY, "Action": 1}],
    "both Action and NotAction": [{**DENY, "NotAction": "s3:*"}],
    "Principal": [{**DENY, "Principal": "*"}],
    "unknown key": [{**DENY, "Allow": "*"}],
    "Condition a list": [{**DENY, "Condition": []}],
    "eleven": [DENY] * 11,
    "2,049 characters": [{**DENY, "Resource": "arn:aws:s3:::" + "a" * 2049}],
}


@pytest.mark.parametrize("name", TRICKS)
def test_restrict_widens(world: World, ada: Person, name: str) -> None:
    """`restrict` with Allow, another shape, a principal or over 2,048 characters."""
    code = untouched(world, ada, restrict=TRICKS[name])
    assert code in ((422, "invalid_request"), (422, "scope_too_large"))


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Deny", "NotAction": "s3:GetObject", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:*", "NotResource": "arn:aws:s3:::reports/*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Sid": "Allow"},
    ],
)
def test_restrict_only_narrows(world: World, ada: Person, statement: dict[str, str]) -> None:
    """NotAction and NotResource in a Deny: what AWS gets has the role's own statements, the
    ban on assuming other roles, and this Deny beside them."""
    assert ada.ask(restrict=[statement]).status_code == 200
    policy = world.aws.calls.of("AssumeRole")[-1].parameters["Policy"]
    assert policy.count('"Effect":"Allow"') == 1
    assert policy.count('"Effect":"Deny"') == 2
    assert "sts:AssumeRole" in policy


@pytest.mark.parametrize(
    "field",
    [
        "RoleArn",
        "role_arn",
        "ExternalId",
        "external_id",
        "Tags",
        "tags",
        "session_policy",
        "Policy",
        "source_identity",
        "session_name",
        "principal",
        "grant_id",
        "now",
        "__proto__",
        "constructor",
    ],
)
def test_fields_that_the_server_sets(world: World, ada: Person, field: str) -> None:
    """The body brings role ARN, external id, tags, policy, identity or session name itself."""
    assert untouched(world, ada, **{field: "x"}) == (422, "invalid_request")


BODIES = {
    "not JSON": b"role=data-reader",
    "a list": b'[{"role":"data-reader"}]',
    "a string": b'"data-reader"',
    "empty": b"",
    "cut off": b'{"role":"data-reader"',
    "UTF-16": '{"role":"data-reader"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"role":"data-reader"}',
    "lone surrogate": b'{"role":"data-reader","reason":"\\ud800"}',
    "surrogate key": b'{"role":"data-reader","\\ud800":1}',
    "raw bytes": b'{"role":"\xff\xfe"}',
    "NaN": b'{"role":"data-reader","duration":NaN}',
    "deep": b'{"role":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "huge number": b'{"role":"data-reader","duration":' + b"9" * 5000 + b"}",
    "NUL": b'{"role":"data-reader\\u0000"}',
    "role in full width": '{"role":"\uff44\uff41\uff54\uff41-reader"}'.encode(),
    "role a path": b'{"role":"../data-reader"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_body_malformed(world: World, ada: Person, name: str) -> None:
    """A body that is no JSON object, or one that parsers disagree on."""
    calls, before, seq = len(world.aws.calls), world.state(), world.head()
    headers = {"content-type": "application/json"}
    answer = ada.api("POST", "/v1/credentials", content=BODIES[name], headers=headers)
    assert problem(answer) == (422, "invalid_request")
    assert (len(world.aws.calls), world.state(), world.records(seq)) == (calls, before, [])


@pytest.mark.parametrize("reason", ["a\nb", "a\rb", "a\u2028b", "\x1b[2J", "\u202e", "r" * 501])
def test_reason_forges_lines(world: World, ada: Person, reason: str) -> None:
    """A reason with line breaks, terminal escapes or a right-to-left override."""
    assert untouched(world, ada, reason=reason) == (422, "invalid_request")


def test_role_of_others(world: World) -> None:
    """A role that exists and one that does not look the same to who may have neither."""
    bob = world.person("issue-bob")
    answers = [bob.ask(role=role) for role in ("data-reader", "no-such-role")]
    bodies = [{k: v for k, v in a.json().items() if k != "request_id"} for a in answers]
    assert bodies[0] == bodies[1]
    assert problem(answers[0]) == (404, "not_found")
    denied = [
        record["detail"]["code"]
        for record in world.records()
        if record["actor"]["id"] == bob.id and record["type"] == "issuance.denied"
    ]
    assert denied == ["not_found", "not_found"]


def test_claim_missing(world: World, ada: Person) -> None:
    """The role's scope is made of a claim that this login does not have: nothing is left out
    of the policy instead."""
    assert untouched(world, ada, role="by-team") == (403, "not_entitled")


@pytest.mark.parametrize("team", ["*", "a/../*", "a:b", "${aws:username}", "{{x}}", 'a"b'])
def test_claim_with_wildcards(world: World, team: str) -> None:
    """Somebody who can set a claim at their provider sets it to a wildcard or a path."""
    who = world.person(f"claim-{team.encode().hex()}", "analysts", team=team)
    assert untouched(world, who, role="by-team") == (403, "not_entitled")


FAULTS = {
    Fault.THROTTLE: (429, "aws_throttled"),
    Fault.SERVER_ERROR: (502, "aws_unavailable"),
    Fault.DROP_AFTER: (502, "aws_unavailable"),
    Fault.MALFORMED_XML: (502, "aws_unavailable"),
    Fault.NO_NAMESPACE: (502, "aws_unavailable"),
    Fault.EMPTY_MESSAGE: (502, "aws_denied"),
    Fault.EXPIRED: (502, "aws_unavailable"),
    Fault.OTHER_ROLE: (502, "aws_unavailable"),
    Fault.OTHER_ACCOUNT: (502, "aws_unavailable"),
    Fault.OTHER_SESSION_NAME: (502, "aws_unavailable"),
    Fault.OTHER_SOURCE_IDENTITY: (502, "aws_unavailable"),
    Fault.NO_CREDENTIALS: (502, "aws_unavailable"),
    Fault.HUGE_BODY: (502, "aws_unavailable"),
    Fault.HANG: (502, "aws_unavailable"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_sts_misbehaves(world: World, ada: Person, fault: Fault) -> None:
    """STS throttles, hangs, cuts the line after acting, breaks off, or answers for another role,
    account, session or person: nothing is given out, and the intent has its one outcome."""
    world.aws.faults.add(fault, times=None, seconds=20)
    seq = world.head()
    answer = ada.ask()
    assert answer.status_code == FAULTS[fault][0], answer.text
    assert "credentials" not in answer.json()
    types = [record["type"] for record in world.records(seq)]
    assert types == ["issuance.requested", "issuance.failed"]
    world.aws.faults.clear()
    assert ada.ask().status_code == 200


@pytest.mark.parametrize("minutes", [-20, 20])
def test_clock_far_off(world: World, ada: Person, minutes: int) -> None:
    """AWS's clock is 20 minutes from the broker's: its refusal is told as what it is."""
    world.aws.faults.clock_offset = minutes * 60
    seq = world.head()
    answer = ada.ask()
    assert problem(answer) == (502, "aws_unavailable")
    assert "clock" in answer.json()["detail"]
    assert [r["type"] for r in world.records(seq)] == ["issuance.requested", "issuance.failed"]


def test_policy_too_large_when_packed(world: World) -> None:
    """A login whose e-mail and claims make tags and policy as large as they can be gets them,
    or a refusal of the broker's own; never a wider policy."""
    who = world.person("packed", "analysts", team="t" * 256)
    world.aws.calls.clear()
    answer = who.ask(role="by-team", restrict=[{**DENY, "Resource": "arn:aws:s3:::" + "a" * 1800}])
    assert problem(answer) in ((422, "scope_too_large"), (422, "invalid_request"))
    assert [c for c in world.aws.calls.of("AssumeRole") if c.issued_key_id] == []


def test_policy_that_only_sts_finds_too_large(world: World, ada: Person) -> None:
    """Text within AWS's 2,048 characters that does not pack: STS's own refusal is told as the
    broker's, on record, and nothing is issued in its place."""
    noise = hashlib.shake_256(b"noise").hexdigest(700)
    seq = world.head()
    answer = ada.ask(restrict=[{**DENY, "Resource": f"arn:aws:s3:::{noise}"}])
    assert problem(answer) == (422, "scope_too_large")
    recorded = world.records(seq)
    assert [r["type"] for r in recorded] == ["issuance.requested", "issuance.failed"]
    assert "PackedPolicyTooLarge" in json.dumps(recorded[-1]["detail"])


def test_secrets_stay_in_the_answer(world: World, ada: Person) -> None:
    """Neither the log files nor the audit log nor the database hold what was given out."""
    given = ada.ask().json()["credentials"]
    secrets = (given["secret_access_key"], given["session_token"], ada.token, ada.refresh_token)
    kept = (
        world.log()
        + repr(world.records())
        + (world.folder / "broker.db").read_bytes().decode("latin-1")
    )
    for secret in secrets:
        assert secret not in kept


def test_other_peoples_issuances(world: World, ada: Person) -> None:
    """An issuance's id is guessed or seen: to others it does not exist."""
    issuance = ada.ask().json()["issuance_id"]
    eve = world.person("issue-eve", "analysts")
    answer = eve.api("GET", f"/v1/issuances/{issuance}")
    assert problem(answer) == (404, "not_found")
    assert eve.api("GET", "/v1/issuances").json()["issuances"] == []
