"""Each of the six steps: what it records, and what happens where it fails or the caller leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.policy import Role
from broker.audit.receipt import Receipt
from broker.audit.record import EventType, Outcome, to_record
from broker.errors import (
    AuditUnavailable,
    AwsDenied,
    BrokerError,
    DurationTooShort,
    InvalidRequest,
    MfaRequired,
    NotEntitled,
    NotFound,
    OutsideNetwork,
    ReasonRequired,
    ScopeTooLarge,
    Suspended,
    Unauthenticated,
)
from broker.issuance.issue import Issued, answer
from broker.issuance.request import CredentialRequest
from broker.issuance.sts import StsFailure
from tests.unit.issuance.issue_world import (
    ACTOR,
    ASKED,
    GRANT,
    NOW,
    PERSON,
    POLICY,
    SECRETS,
    TRIPLE,
    WHO,
    World,
    no_audit,
    sts_refusal,
)


@pytest.fixture
async def world() -> World:
    return World()


# The good way.


async def test_the_steps_come_in_their_order(world):
    issued = await world.issue()
    assert world.order == ["request", "sts", "conclude"]
    assert issued.credentials == TRIPLE
    assert [event.type for event in world.events] == [
        EventType.ISSUANCE_REQUESTED,
        EventType.ISSUANCE_ISSUED,
    ]
    assert {event.outcome for event in world.events} == {Outcome.SUCCESS}
    assert {event.actor for event in world.events} == {ACTOR}
    assert {event.request_id for event in world.events} == {"r-1"}


async def test_the_intent_says_who_what_why_and_under_which_policy(world):
    issued = await world.issue()
    [intent], [call] = world.intents, world.calls
    assert intent.id == issued.issuance_id
    assert intent.principal_id == PERSON.id
    assert intent.login_session_id == "ls-1"
    assert intent.grant_id is None
    assert (intent.role, intent.account_id) == ("reader", "111122223333")
    assert intent.role_arn == call.role_arn
    assert intent.session_name == call.role_session_name == issued.session_name
    assert intent.source_identity == call.source_identity == PERSON.id
    assert intent.duration_seconds == call.duration_seconds == 3600

    event = intent.event
    assert event.subject == {
        "issuance": issued.issuance_id,
        "principal": PERSON.id,
        "role": "reader",
        "role_arn": call.role_arn,
        "account_id": "111122223333",
    }
    detail = event.detail
    entitlement = POLICY.entitlements[0]
    assert detail["decided_by"] == {"entitlement": "group corp/analysts", "line": entitlement.line}
    assert detail["policy_version"] == 7
    assert detail["reason"] == "ticket 12"
    assert detail["parameters"] == {"bucket": "logs"}
    assert detail["session_policy"] == call.policy
    assert call.policy is not None
    assert detail["session_policy_sha256"] == hashlib.sha256(call.policy.encode()).hexdigest()
    assert intent.policy_sha256 == detail["session_policy_sha256"]
    assert "arn:aws:s3:::logs/*" in call.policy
    assert detail["duration"] == issued.duration.as_json()
    assert detail["session_name"] == call.role_session_name
    assert detail["source_identity"] == PERSON.id
    assert detail["tags"] == [{"key": key, "value": value} for key, value in call.tags]
    assert detail["login_session"] == "ls-1"


async def test_the_outcome_says_what_sts_gave(world):
    issued = await world.issue()
    [outcome] = world.outcomes
    assert outcome.intent is world.intents[0]
    assert outcome.access_key_id == TRIPLE.access_key_id
    assert outcome.expires_at == TRIPLE.expiration
    assert outcome.assumed_role_arn == issued.assumed_role_arn
    detail = outcome.event.detail
    assert detail["access_key_id"] == TRIPLE.access_key_id
    assert detail["expires_at"] == "2026-11-24T13:00:00.789000Z"
    assert detail["assumed_role_arn"] == issued.assumed_role_arn
    assert detail["assumed_role_id"] == f"AROAEXAMPLE:{issued.session_name}"
    assert detail["sts_request_id"] == "req-1"
    assert detail["packed_policy_percent"] == 12
    assert detail["session_policy_sha256"] == outcome.intent.policy_sha256
    # The journal writes its own reason there where it withholds.
    assert "reason" not in detail


async def test_a_grants_issuance_names_the_grant_and_ends_with_it(world):
    request = CredentialRequest(role="granted", duration=43200)
    issued = await world.issue(request, grants=(GRANT,))
    [intent] = world.intents
    assert intent.grant_id == "g-1"
    assert intent.event.detail["decided_by"] == {
        "grant_id": "g-1",
        "granted_by": "p-adminadminadmin",
    }
    assert NOW + timedelta(seconds=issued.duration.granted) < GRANT.expires_at


async def test_chained_base_credentials_cap_the_duration(world):
    world.chained_partitions = frozenset({"aws"})
    issued = await world.issue(replace(ASKED, duration=7200))
    assert issued.duration.chained
    assert (issued.duration.granted, issued.duration.bound_by) == (3600, "role_chaining")
    world.chained_partitions = frozenset()
    assert (await world.issue(replace(ASKED, duration=7200))).duration.granted == 7200


async def test_no_secret_is_in_any_record_or_repr(world):
    issued = await world.issue()
    world.fails = {"sts": sts_refusal()}
    with pytest.raises(AwsDenied):
        await world.issue()
    with pytest.raises(NotFound):
        await world.issue(replace(ASKED, role="other"))
    told = b"".join(to_record(event, 1, NOW) for event in world.events).decode()
    told += repr(issued) + repr(world.intents) + repr(world.outcomes)
    for secret in (*SECRETS, "canary-sts-message"):
        assert secret not in told


async def test_the_answer_is_the_interfaces(world):
    issued = await world.issue(replace(ASKED, duration=5400))
    body = json.loads(json.dumps(answer(issued)))
    assert body == {
        "credentials": {
            "access_key_id": TRIPLE.access_key_id,
            "secret_access_key": SECRETS[0],
            "session_token": SECRETS[1],
            "expiration": "2026-11-24T13:00:00Z",
        },
        "issuance_id": issued.issuance_id,
        "role": "reader",
        "role_arn": "arn:aws:iam::111122223333:role/DataReader",
        "assumed_role_arn": issued.assumed_role_arn,
        "account_id": "111122223333",
        "region": "eu-west-1",
        "source_identity": PERSON.id,
        "session_name": issued.session_name,
        "duration": {
            "requested": 5400,
            "granted": 5400,
            "bound_by": "requested",
            "limits": body["duration"]["limits"],
            "chained": False,
        },
    }
    names = [limit["name"] for limit in body["duration"]["limits"]]
    assert names[:3] == ["requested", "entitlement", "role_maximum"]


async def test_the_answer_carries_the_receipt_where_the_log_is_signed(world):
    receipt = Receipt(17, b'{"seq":17}', (b"\x01" * 32,), "a signed note")
    issued = replace(await world.issue(), receipt=receipt)
    assert answer(issued)["receipt"] == receipt.as_json()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_times_are_in_utc_wherever_the_broker_runs(world, monkeypatch, zone):
    issued = await world.issue()
    monkeypatch.setenv("TZ", zone)
    try:
        time.tzset()
        credentials = answer(issued)["credentials"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert isinstance(credentials, dict)
    assert credentials["expiration"] == "2026-11-24T13:00:00Z"


async def test_two_issuances_share_no_id_and_no_session_name(world):
    first, second = await world.issue(), await world.issue()
    assert first.issuance_id != second.issuance_id
    assert first.session_name != second.session_name


# Refusals before STS.


@pytest.mark.parametrize(
    ("request_", "who", "address", "error"),
    [
        (replace(ASKED, role="other"), WHO, "10.1.2.3", NotFound),
        (replace(ASKED, role="granted"), WHO, "10.1.2.3", NotFound),
        (replace(ASKED, reason=None), WHO, "10.1.2.3", ReasonRequired),
        (ASKED, WHO, "192.0.2.1", OutsideNetwork),
        (ASKED, replace(WHO, mfa_time=None), "10.1.2.3", MfaRequired),
        (
            ASKED,
            replace(WHO, principal=replace(PERSON, suspended_at=NOW)),
            "10.1.2.3",
            Suspended,
        ),
        (replace(ASKED, duration=899), WHO, "10.1.2.3", InvalidRequest),
        (replace(ASKED, duration=43201), WHO, "10.1.2.3", InvalidRequest),
        (replace(ASKED, parameters={"bucket": "payroll"}), WHO, "10.1.2.3", InvalidRequest),
        (replace(ASKED, parameters={"nothing": "x"}), WHO, "10.1.2.3", InvalidRequest),
        (
            ASKED,
            replace(WHO, login_session_expires_at=NOW + timedelta(minutes=10)),
            "10.1.2.3",
            DurationTooShort,
        ),
        (
            replace(
                ASKED,
                restrict=tuple(
                    {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::" + "x" * 400}
                    for _ in range(5)
                ),
            ),
            WHO,
            "10.1.2.3",
            ScopeTooLarge,
        ),
    ],
)
async def test_a_refusal_is_recorded_and_sts_is_not_asked(world, request_, who, address, error):
    with pytest.raises(error):
        await world.issue(request_, who, address=address)
    assert world.order == ["deny"]
    [event] = world.events
    assert event.type is EventType.ISSUANCE_DENIED
    assert event.outcome is Outcome.DENIED
    assert event.subject == {"principal": PERSON.id, "role": request_.role}
    assert event.detail["code"] == error.code
    assert event.detail["policy_version"] == 7


async def test_a_denial_names_the_entries_that_nearly_applied(world):
    with pytest.raises(OutsideNetwork):
        await world.issue(address="192.0.2.1")
    [miss] = world.events[0].detail["near_misses"]
    assert miss["entry"]["line"] == POLICY.entitlements[0].line
    assert [failed["code"] for failed in miss["failed"]] == ["outside_network"]


async def test_a_refused_scope_names_the_entry_that_would_have_given_it(world):
    with pytest.raises(InvalidRequest):
        await world.issue(replace(ASKED, duration=1))
    assert world.events[0].detail["decided_by"]["line"] == POLICY.entitlements[0].line


async def test_a_denial_that_cannot_be_recorded_is_no_answer(world):
    world.fails = {"deny": no_audit()}
    with pytest.raises(AuditUnavailable):
        await world.issue(replace(ASKED, role="other"))


# Faults from step 3 on.


async def test_without_a_durable_intent_sts_is_not_asked(world):
    world.fails = {"request": no_audit()}
    with pytest.raises(AuditUnavailable):
        await world.issue()
    assert world.order == ["request failed"]
    assert world.calls == []


async def test_a_refusal_of_sts_is_recorded_and_told(world):
    world.fails = {"sts": sts_refusal()}
    with pytest.raises(AwsDenied, match="Ask the operator"):
        await world.issue()
    assert world.order == ["request", "sts failed", "fail"]
    [event] = world.of(EventType.ISSUANCE_FAILED)
    assert event.outcome is Outcome.FAILURE
    assert event.subject == world.intents[0].event.subject
    assert event.detail["code"] == "aws_denied"
    assert event.detail["sts_code"] == "AccessDenied"
    assert event.detail["sts_request_id"] == "req-9"
    assert event.detail["outcome_unknown"] is False
    assert event.detail["alarm"] is False


@pytest.mark.parametrize("flag", ["outcome_unknown", "alarm"])
async def test_an_unknown_or_odd_outcome_is_recorded_as_such(world, flag):
    failure = sts_refusal()
    setattr(failure, flag, True)
    world.fails = {"sts": failure}
    with pytest.raises(AwsDenied):
        await world.issue()
    [event] = world.of(EventType.ISSUANCE_FAILED)
    assert event.detail[flag] is True


async def test_a_failure_that_cannot_be_recorded_is_told_as_that(world):
    world.fails = {"sts": sts_refusal(), "fail": no_audit()}
    with pytest.raises(AuditUnavailable):
        await world.issue()


async def test_a_fault_of_ours_leaves_the_intent_to_the_reaper(world):
    """An outcome that nobody knows is not guessed at."""
    world.fails = {"sts": RuntimeError("bug")}
    with pytest.raises(RuntimeError):
        await world.issue()
    assert world.order == ["request", "sts failed"]


async def test_an_outcome_that_cannot_be_recorded_gives_nothing(world):
    world.fails = {"conclude": no_audit()}
    with pytest.raises(AuditUnavailable) as caught:
        await world.issue()
    assert world.order == ["request", "sts", "conclude failed"]
    assert not any(secret in repr(caught.value) for secret in SECRETS)


LATE = "Recording took too long, so nothing is given out; try again."


@pytest.mark.parametrize(
    ("reason", "error", "detail"),
    [
        ("suspended", Suspended, "This account is suspended."),
        (
            "session_ended",
            Unauthenticated,
            "Your login session ended meanwhile; sign in again.",
        ),
        ("grant_revoked", NotEntitled, "Your grant of this role was revoked meanwhile."),
        ("grant_expired", NotEntitled, "Your grant of this role ended meanwhile."),
        ("late", AuditUnavailable, LATE),
        ("a reason of a later version", AuditUnavailable, LATE),
    ],
)
async def test_what_is_withheld_is_given_to_nobody(world, reason, error, detail):
    world.withhold = reason
    with pytest.raises(error) as caught:
        await world.issue()
    assert type(caught.value) is error
    assert caught.value.detail == detail
    [event] = world.of(EventType.ISSUANCE_WITHHELD)
    assert event.detail["reason"] == reason
    assert event.detail["access_key_id"] == TRIPLE.access_key_id


# The caller goes away.


@pytest.mark.parametrize("step", ["request", "sts", "conclude"])
async def test_a_caller_that_leaves_loses_the_credentials_but_not_the_record(world, step):
    world.holds = frozenset({step})
    task = asyncio.create_task(world.issue())
    await world.reached.wait()
    for _ in range(3):  # an impatient server cancels again and again
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    world.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.order == ["request", "sts", "conclude"]
    assert len(world.of(EventType.ISSUANCE_ISSUED)) == 1


async def test_a_caller_that_leaves_does_not_hide_a_failure(world):
    world.fails = {"sts": sts_refusal()}
    world.holds = frozenset({"fail"})
    task = asyncio.create_task(world.issue())
    await world.reached.wait()
    task.cancel()
    world.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(world.of(EventType.ISSUANCE_FAILED)) == 1


async def test_a_caller_that_leaves_does_not_hide_a_denial(world):
    world.holds = frozenset({"deny"})
    task = asyncio.create_task(world.issue(replace(ASKED, role="other")))
    await world.reached.wait()
    task.cancel()
    world.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(world.of(EventType.ISSUANCE_DENIED)) == 1


# Whatever happens.

STEPS = ("deny", "request", "sts", "fail", "conclude")


@given(
    fails=st.sets(st.sampled_from(STEPS)),
    holds=st.sampled_from([*STEPS, None]),
    leaves=st.booleans(),
    withhold=st.sampled_from([None, "suspended", "late"]),
    role=st.sampled_from(["reader", "granted", "other"]),
)
def test_nothing_is_minted_unrecorded_and_nothing_given_unrecorded(
    fails, holds, leaves, withhold, role
):
    async def scenario() -> None:
        world = World(withhold=withhold)
        world.fails = {step: sts_refusal() if step == "sts" else no_audit() for step in fails}
        world.holds = frozenset({holds} if holds else ())
        task = asyncio.create_task(world.issue(replace(ASKED, role=role), grants=(GRANT,)))
        waiting = asyncio.create_task(world.reached.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if leaves:
            task.cancel()
        world.released.set()
        waiting.cancel()
        [given_] = await asyncio.gather(task, return_exceptions=True)

        requested = world.of(EventType.ISSUANCE_REQUESTED)
        issued = world.of(EventType.ISSUANCE_ISSUED)
        assert len(world.calls) <= len(requested)
        if "sts" in world.order:
            assert world.order.index("request") < world.order.index("sts")
            assert {"conclude", "conclude failed"} & set(world.order)
        if isinstance(given_, Issued):
            [event] = issued
            assert event.subject["issuance"] == given_.issuance_id
            assert event.detail["access_key_id"] == given_.credentials.access_key_id
            assert withhold is None
        else:
            assert isinstance(given_, BrokerError | asyncio.CancelledError)
            assert not isinstance(given_, StsFailure)

    asyncio.run(scenario())


def test_the_role_hides_its_external_id():
    role = POLICY.roles["reader"]
    assert isinstance(role, Role)
    assert SECRETS[2] not in repr(role)
