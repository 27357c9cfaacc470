"""What the audit log keeps of an issuance: each event whole, so that nothing in it is by chance."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.audit.record import Event, EventType, Outcome
from broker.errors import AwsDenied, BrokerError, DurationTooShort, OutsideNetwork
from broker.issuance.request import CredentialRequest
from tests.unit.issuance.issue_world import (
    ACTOR,
    ASKED,
    GRANT,
    NOW,
    PERSON,
    POLICY,
    WHO,
    World,
    sts_refusal,
)

LINE = POLICY.entitlements[0].line
READER, FAR = POLICY.roles["reader"], POLICY.roles["far"]
HUB, GATE = FAR.via
ASKED_AS = {
    "policy_version": 7,
    "reason": "ticket 12",
    "client": "broker/1",
    "parameters": {"bucket": "logs"},
    "login_session": "ls-1",
    "auth_time": "2026-11-24T11:30:00.000000Z",
    "mfa_time": "2026-11-24T11:40:00.000000Z",
}
REQUEST = replace(ASKED, client="broker/1", duration=1800)
SEEN = replace(WHO, mfa_time=NOW - timedelta(minutes=20))


def run(world: World, request: CredentialRequest = REQUEST, **of: object) -> list[Event]:
    try:
        asyncio.run(world.issue(request, **{"who": SEEN, **of}))  # type: ignore[arg-type]
    except BrokerError:
        assert world.events
    return world.events


def allow(action: list[str], resource: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def policy_text(*statements: dict[str, object]) -> str:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return json.dumps(document, separators=(",", ":"))


NO_CHAINING: dict[str, object] = {
    "Effect": "Deny",
    "Action": ["sts:AssumeRole", "sts:AssumeRoot"],
    "Resource": "*",
}


def test_the_events_of_an_issuance() -> None:
    world = World()
    requested, issued = run(world)
    [intent], [call] = world.intents, world.calls
    name = f"grace@example.com-{intent.id}"
    policy = policy_text(allow(["s3:GetObject"], "arn:aws:s3:::logs/*"), NO_CHAINING)
    digest = hashlib.sha256(policy.encode()).hexdigest()
    subject = {
        "issuance": intent.id,
        "principal": PERSON.id,
        "role": "reader",
        "role_arn": READER.role_arn,
        "account_id": "111122223333",
    }
    session = {"session_name": name, "source_identity": PERSON.id}
    assert requested == Event(
        EventType.ISSUANCE_REQUESTED,
        ACTOR,
        Outcome.SUCCESS,
        subject,
        {
            "decided_by": {"entitlement": "group corp/analysts", "line": LINE},
            "duration": {
                "requested": 1800,
                "granted": 1800,
                "bound_by": "requested",
                "limits": [
                    {"name": "requested", "seconds": 1800},
                    {"name": "entitlement", "seconds": 7200},
                    {"name": "role_maximum", "seconds": 14400},
                    {"name": "login_session_remaining", "seconds": 39585},
                ],
                "chained": False,
            },
            "session_policy": policy,
            "session_policy_sha256": digest,
            "managed_policies": [],
            "tags": [{"key": "broker:issuance", "value": intent.id}],
            "transitive_tags": ["broker:issuance"],
            "partition": "aws",
            "region": "eu-west-1",
            **session,
            **ASKED_AS,
        },
        "r-1",
    )
    assert call.role_session_name == name
    assert issued == Event(
        EventType.ISSUANCE_ISSUED,
        ACTOR,
        Outcome.SUCCESS,
        subject,
        {
            "access_key_id": "ASIAEXAMPLE000000001",
            "expires_at": "2026-11-24T13:00:00.789000Z",
            "assumed_role_arn": f"arn:aws:sts::111122223333:assumed-role/DataReader/{name}",
            "assumed_role_id": f"AROAEXAMPLE:{name}",
            "sts_request_id": "req-1",
            "session_policy_sha256": digest,
            "packed_policy_percent": 12,
            **session,
        },
        "r-1",
    )


def test_the_events_of_an_issuance_over_hops() -> None:
    world = World()
    requested, issued = run(world, CredentialRequest("far"))
    [intent] = world.intents
    on = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    name = f"grace@example.com-{intent.id}"
    carried = {
        "tags": [{"key": "broker:issuance", "value": intent.id}],
        "transitive_tags": ["broker:issuance"],
        "source_identity": PERSON.id,
    }
    assert requested.detail["hops"] == [
        {
            "role_arn": HUB,
            "duration_seconds": 900,
            "session_policy": policy_text(allow(on, GATE)),
            **carried,
        },
        {
            "role_arn": GATE,
            "duration_seconds": 900,
            "session_policy": policy_text(allow(on, FAR.role_arn)),
            "tags": [],
            "transitive_tags": [],
            "source_identity": None,
        },
    ]
    assert (requested.detail["tags"], requested.detail["transitive_tags"]) == ([], [])
    assert (requested.detail["reason"], requested.detail["client"]) == (None, None)
    passed = [
        {
            "access_key_id": f"ASIAEXAMPLE00000000{number}",
            "expires_at": "2026-11-24T13:00:00.789000Z",
            "assumed_role_arn": f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
            "assumed_role_id": f"AROAEXAMPLE:{name}",
            "sts_request_id": "req-1",
        }
        for number, account, role in ((1, "999988887777", "Hub"), (2, "111122223333", "Gate"))
    ]
    assert issued.detail["hops"] == passed
    # Where the second is refused, the first is known to have been passed.
    refused = World(refuses=GATE)
    *_, failed = run(refused, CredentialRequest("far"))
    name = refused.calls[0].role_session_name
    [hop] = failed.detail.pop("hops")  # type: ignore[attr-defined]
    assert hop["assumed_role_arn"] == f"arn:aws:sts::999988887777:assumed-role/Hub/{name}"
    assert failed.detail == {
        "code": "aws_denied",
        "sts_code": "AccessDenied",
        "sts_request_id": "req-9",
        "outcome_unknown": False,
        "alarm": False,
        "failed_at": GATE,
        "session_name": name,
        "source_identity": PERSON.id,
    }


@pytest.mark.parametrize(("unknown", "alarm"), [(True, False), (False, True)])
def test_the_event_of_a_failure(unknown: bool, alarm: bool) -> None:
    failure = sts_refusal()
    failure.outcome_unknown, failure.alarm = unknown, alarm
    world = World(fails={"sts": failure})
    requested, failed = run(world)
    assert failed == Event(
        EventType.ISSUANCE_FAILED,
        ACTOR,
        Outcome.FAILURE,
        requested.subject,
        {
            "code": AwsDenied.code,
            "sts_code": "AccessDenied",
            "sts_request_id": "req-9",
            "outcome_unknown": unknown,
            "alarm": alarm,
            "session_name": world.calls[0].role_session_name,
            "source_identity": PERSON.id,
        },
        "r-1",
    )


def denied(**detail: object) -> Event:
    return Event(
        EventType.ISSUANCE_DENIED,
        ACTOR,
        Outcome.DENIED,
        {"principal": PERSON.id, "role": "reader"},
        {"near_misses": [], "decided_by": None, "duration_requested": 1800, **detail, **ASKED_AS},
        "r-1",
    )


def test_the_event_of_a_denial() -> None:
    [event] = run(World(), address="192.0.2.1")
    misses = event.detail["near_misses"]
    assert isinstance(misses, list)
    assert [miss["entry"]["line"] for miss in misses] == [LINE]
    detail = "This role is not given to your network address (192.0.2.1)."
    assert event == denied(code=OutsideNetwork.code, detail=detail, near_misses=misses)


def test_the_event_of_a_scope_that_is_refused_names_the_entry_that_gave_the_role() -> None:
    brief = replace(SEEN, login_session_expires_at=NOW + timedelta(seconds=914))
    [event] = run(World(), who=brief)
    assert event == denied(
        code=DurationTooShort.code,
        detail=(
            "Your login session (sign in again for a new one) leaves 899 s; "
            "AWS gives no less than 900 s."
        ),
        decided_by={"entitlement": "group corp/analysts", "line": LINE},
    )


def test_who_showed_no_second_factor_is_recorded_as_such() -> None:
    [event] = run(World(), who=replace(WHO, mfa_time=None))
    assert (event.detail["code"], event.detail["mfa_time"]) == ("mfa_required", None)


def test_a_grant_is_named_with_who_gave_it() -> None:
    world = World()
    requested, _ = run(world, CredentialRequest("granted"), grants=(GRANT,))
    assert world.intents[0].grant_id == "g-1"
    assert requested.detail["decided_by"] == {"grant_id": "g-1", "granted_by": GRANT.granted_by}
