"""What a decision says, whole: to the caller, to `explain` and in `GET /v1/roles`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from broker.access.decide import (
    Allowed,
    Ceiling,
    Denied,
    Facts,
    Offer,
    decide,
    entries_for_others,
    entry_json,
    offers,
    unmapped,
)
from broker.access.grant import Grant
from broker.access.hours import Hours
from broker.access.policy import AccessPolicy, Group, Mode, Organization, User, WorkloadRef
from broker.errors import NotEntitled
from broker.identity.principal import PrincipalKind
from tests.unit.access.examples import NOW, context, grant, person, policy
from tests.unit.access.test_decide import BASE, entitled, entry, facts


def refused(
    rules: AccessPolicy,
    given: Facts | None = None,
    *,
    role: str = "data-reader",
    grants: tuple[Grant, ...] = (),
) -> Denied:
    decision = decide(rules, context(), role, grants, given or facts())
    assert isinstance(decision, Denied)
    return decision


NO_ACCOUNT = entitled(entry(), organization=Organization(allowed_accounts=frozenset({"1"})))


@pytest.mark.parametrize(
    ("rules", "role", "who", "code", "detail"),
    [
        (
            BASE,
            "data-reader",
            context(person(suspended_at=NOW)),
            "suspended",
            "This account is suspended.",
        ),
        (
            BASE,
            "data-reader",
            context(mfa_age=None),
            "mfa_required",
            "A second factor is needed for this.",
        ),
        (
            BASE,
            "admin",
            context(),
            "not_found",
            "No role of that name is offered to you; `broker roles` lists yours.",
        ),
        (
            NO_ACCOUNT,
            "data-reader",
            context(),
            "not_entitled",
            "The organization's rules allow no role in this account.",
        ),
    ],
)
def test_a_refusal_that_no_entry_is_behind(rules, role, who, code, detail):
    denied = decide(rules, who, role, (), facts())
    assert isinstance(denied, Denied)
    assert (denied.error.code, denied.error.detail) == (code, detail)
    assert denied.near_misses == ()


@pytest.mark.parametrize(
    ("one", "given", "failed"),
    [
        (
            entry(mfa_within=60),
            facts(),
            {
                "condition": "mfa_within",
                "code": "mfa_stale",
                "detail": "This role asks for a second factor shown in the last 60 s; "
                "verify it again.",
                "satisfied_by": "a second factor shown in the last 60 s: `broker mfa verify`",
            },
        ),
        (
            entry(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))),
            facts(None),
            {
                "condition": "networks",
                "code": "outside_network",
                "detail": "This role is not given to your network address (unknown).",
                "satisfied_by": "a client address in 10.0.0.0/8, 2001:db8::/32",
            },
        ),
        (
            entry(hours=Hours.parse(["Sat 08:00-20:00 Europe/Berlin"])),
            facts(),
            {
                "condition": "hours",
                "code": "outside_hours",
                "detail": "This role is given Sat 08:00-20:00 Europe/Berlin.",
                "satisfied_by": "waiting until 2026-11-28T07:00:00Z",
            },
        ),
        (
            # A window that never opens: no file can say so, but a zone may skip days.
            entry(hours=Hours(("never",), ())),
            facts(),
            {
                "condition": "hours",
                "code": "outside_hours",
                "detail": "This role is given never.",
                "satisfied_by": "other hours",
            },
        ),
        (
            entry(reason=True),
            facts(),
            {
                "condition": "reason",
                "code": "reason_required",
                "detail": "This role asks for a reason.",
                "satisfied_by": "a reason: `--reason TEXT`",
            },
        ),
        (
            entry(mode=Mode.ON_REQUEST),
            facts(),
            {
                "condition": "mode",
                "code": "approval_required",
                "detail": "This role is given on request; someone else approves it.",
                "satisfied_by": "an approved request, or a grant",
            },
        ),
    ],
)
def test_a_condition_that_does_not_hold_says_what_would_satisfy_it(one, given, failed):
    denied = refused(entitled(one), given)
    assert denied.error.code == failed["code"]
    assert denied.error.detail == failed["detail"]
    assert [miss.as_json() for miss in denied.near_misses] == [
        {
            "entry": {"entitlement": "group corp/analysts", "line": 1},
            "condition": failed["condition"],
            "failed": [failed],
        }
    ]


def test_a_stale_factor_tells_clients_how_fresh_it_must_be():
    assert refused(entitled(entry(mfa_within=60))).error.extra == {"mfa_within": 60}


@pytest.mark.parametrize(
    ("begins", "ends", "failed"),
    [
        (
            1,
            7200,
            {
                "condition": "not_before",
                "code": "not_entitled",
                "detail": "Your grant of this role has not begun yet.",
                "satisfied_by": "waiting until 2026-11-24T12:00:01Z",
            },
        ),
        (
            -7200,
            0,
            {
                "condition": "expires_at",
                "code": "not_entitled",
                "detail": "Your grant of this role has ended.",
                "satisfied_by": "a new grant; this one ended 2026-11-24T12:00:00Z",
            },
        ),
    ],
)
def test_a_grant_that_is_not_in_force_says_when(begins, ends, failed):
    denied = refused(BASE, role="admin", grants=(grant(begins=begins, ends=ends),))
    assert [miss.as_json() for miss in denied.near_misses] == [
        {
            "entry": {"grant_id": "g-1", "granted_by": "p-eeeeffffgggghhhh"},
            "condition": failed["condition"],
            "failed": [failed],
        }
    ]


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's own time zone, which decides nothing."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_the_servers_own_time_zone_decides_nothing():
    early = replace(grant(), not_before=NOW + timedelta(hours=1))
    (miss,) = refused(BASE, role="admin", grants=(early,)).near_misses
    assert miss.unmet[0].cure == "waiting until 2026-11-24T13:00:00Z"
    # 23:30 of a Tuesday in UTC is a Wednesday in Tokyo.
    tuesdays = Hours.parse(["Tue 22:00-23:59 UTC", "Sun 02:30-05:00 Europe/Berlin"])
    late = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    assert tuesdays.remaining(late) == 29 * 60
    assert tuesdays.next_opening(late) == datetime(2026, 11, 29, 1, 30, tzinfo=UTC)
    jump = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert tuesdays.next_opening(datetime(2026, 3, 28, tzinfo=UTC)) == jump
    assert jump.tzinfo is tuesdays.next_opening(late).tzinfo  # type: ignore[union-attr]


def test_moments_are_told_in_utc_wherever_they_were_written():
    early = replace(grant(), not_before=datetime.fromisoformat("2026-11-25T01:30:00+09:00"))
    (miss,) = refused(BASE, role="admin", grants=(early,)).near_misses
    assert miss.unmet[0].cure == "waiting until 2026-11-24T16:30:00Z"


def test_what_others_have_is_told_with_what_this_person_lacks():
    rules = entitled(
        entry(Group("corp/sre"), reason=True, mode=Mode.ON_REQUEST, line=2),
        entry(User("corp/eve@example.com"), reason=True, line=3),
        entry(WorkloadRef("deploy", "https://ci.test"), line=4),
    )
    misses = entries_for_others(rules, context(), "data-reader", facts())
    assert [entry_json(miss.entry) for miss in misses] == [
        {"entitlement": "workload deploy", "line": 4},
        {"entitlement": "user corp/eve@example.com", "line": 3},
        {"entitlement": "group corp/sre", "line": 2},
    ]
    subjects = [miss.as_json()["failed"][0] for miss in misses]  # type: ignore[index]
    assert subjects == [
        {
            "condition": "subject",
            "code": "not_entitled",
            "detail": "This entry is for workload deploy.",
            "satisfied_by": "being workload deploy",
        },
        {
            "condition": "subject",
            "code": "not_entitled",
            "detail": "This entry is for user corp/eve@example.com.",
            "satisfied_by": "being user corp/eve@example.com",
        },
        {
            "condition": "subject",
            "code": "not_entitled",
            "detail": "This entry is for group corp/sre.",
            "satisfied_by": "membership of group corp/sre, as the provider says at login",
        },
    ]
    assert [[unmet.condition for unmet in miss.unmet] for miss in misses] == [
        ["subject"],
        ["subject", "reason"],
        ["subject", "mode", "reason"],
    ]
    assert isinstance(misses[0].error, NotEntitled)
    # What this person lacks beside: the age of the factor is hers.
    stale = entitled(entry(Group("corp/sre"), mfa_within=60))
    (miss,) = entries_for_others(stale, context(mfa_age=60), "data-reader", facts())
    assert [unmet.condition for unmet in miss.unmet] == ["subject", "mfa_within"]


def test_a_job_needs_no_second_factor():
    job = person(
        id="w-aaaabbbbccccdddd",
        kind=PrincipalKind.WORKLOAD,
        subject="deploy@https://ci.test",
        groups=frozenset(),
    )
    theirs = entitled(entry(User("w-aaaabbbbccccdddd")))
    decision = decide(theirs, context(job, mfa_age=None), "data-reader", (), facts())
    assert isinstance(decision, Allowed)
    assert [one.name for one in offers(theirs, context(job, mfa_age=None), (), NOW)] == [
        "data-reader"
    ]


@pytest.mark.parametrize(
    ("ceiling", "left"),
    [
        (Ceiling(), 3600),
        (Ceiling(1800), 1800),
        (Ceiling(7200), 3600),
        (Ceiling(None, (("grant_remaining", NOW + timedelta(seconds=90)),)), 90),
        (Ceiling(60, (("grant_remaining", NOW + timedelta(seconds=90)),)), 60),
        (Ceiling(1800, (("hours_remaining", NOW - timedelta(seconds=1)),)), -1),
        (
            Ceiling(
                1800,
                (
                    ("grant_remaining", NOW + timedelta(seconds=90)),
                    ("hours_remaining", NOW + timedelta(seconds=80)),
                ),
            ),
            80,
        ),
    ],
)
def test_a_ceiling_leaves_the_least_of_its_limits(ceiling, left):
    assert ceiling.seconds(3600, NOW) == left


def test_a_decision_carries_the_role_the_entry_and_its_limits():
    hours = Hours.parse(["Tue 08:00-20:00 Europe/Berlin"])
    one = entry(hours=hours, max_duration=1800, line=7)
    rules = entitled(one)
    assert decide(rules, context(), "data-reader", (), facts()) == Allowed(
        BASE.roles["data-reader"],
        one,
        Ceiling(1800, (("hours_remaining", NOW + timedelta(hours=7)),)),
    )


def test_offers_come_by_name_and_whole():
    rules = entitled(
        entry(max_duration=7200),
        entry(max_duration=1800),
        entry(role="admin", mode=Mode.ON_REQUEST, max_duration=1800),
        entry(role="admin", mode=Mode.ON_REQUEST, max_duration=900),
    )
    reader, admin = policy().roles["data-reader"], policy().roles["admin"]
    offered = Offer(
        name="data-reader",
        description="Read one dataset",
        account_id="111122223333",
        account_name="Production",
        role_arn=reader.role_arn,
        availability="standing",
        max_duration=7200,
        parameters=reader.parameters,
        grant_expires_at=None,
    )
    requestable = Offer(
        name="admin",
        description="",
        account_id="444455556666",
        account_name="test",
        role_arn=admin.role_arn,
        availability="requestable",
        max_duration=1800,
        parameters={},
        grant_expires_at=None,
    )
    assert offers(rules, context(), (), NOW) == (requestable, offered)
    # Of several grants the last to end counts; one that has not begun or is over does not.
    grants = (
        grant(ends=600),
        grant(ends=1200),
        grant(begins=1, ends=9000),
        grant(begins=-60, ends=0),
        grant("other"),
        grant(ends=9000, principal_id="p-zzzzyyyyxxxxwwww"),
    )
    granted = replace(
        requestable,
        availability="granted",
        max_duration=1200,
        grant_expires_at=NOW + timedelta(seconds=1200),
    )
    assert offers(rules, context(), grants, NOW) == (granted, offered)
    # No longer than the role's maximum, whatever the entry or a grant says.
    (longest,) = offers(entitled(entry(max_duration=43200)), context(), (), NOW)
    assert longest.max_duration == 4 * 3600
    # A grant that begins at this very moment is in force.
    begins = offers(entitled(), context(), (grant(begins=0, ends=600),), NOW)
    assert [one.max_duration for one in begins] == [600]


@pytest.mark.parametrize(
    ("address", "real"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::a00:1", "::a00:1"),
    ],
)
def test_a_v4_address_on_a_v6_socket_is_the_v4_address_it_is(address, real):
    assert unmapped(ip_address(address)) == ip_address(real)
