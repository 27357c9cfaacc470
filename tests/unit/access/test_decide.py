"""The decision, with every condition one second before, at and after its edge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from ipaddress import ip_address, ip_network

import pytest

from broker.access.decide import (
    Allowed,
    Denied,
    Facts,
    decide,
    entries_for_others,
    entry_json,
    offers,
)
from broker.access.hours import Hours
from broker.access.policy import (
    AccessPolicy,
    Conditions,
    Entitlement,
    Group,
    Mode,
    Organization,
    Subject,
    User,
    WorkloadRef,
)
from broker.identity.principal import AuthContext
from tests.unit.access.examples import FILE, NOW, context, grant, person, policy

ANALYSTS = Group("corp/analysts")
BASE = policy()


def entitled(*entitlements: Entitlement, organization: Organization | None = None) -> AccessPolicy:
    return replace(BASE, entitlements=entitlements, organization=organization or Organization())


def entry(
    to: Subject = ANALYSTS,
    *,
    role: str = "data-reader",
    mode: Mode = Mode.STANDING,
    max_duration: int | None = None,
    line: int = 1,
    **require: object,
) -> Entitlement:
    return Entitlement(role, to, mode, max_duration, Conditions(**require), line)  # type: ignore[arg-type]


def facts(
    address: str | None = "10.1.2.3", reason: str | None = None, now: datetime = NOW
) -> Facts:
    return Facts(None if address is None else ip_address(address), reason, now)


def outcome(
    *entitlements: Entitlement, who: AuthContext | None = None, given: Facts | None = None
) -> str:
    """`allowed`, or the code of the refusal."""
    decision = decide(
        entitled(*entitlements), who or context(), "data-reader", (), given or facts()
    )
    return "allowed" if isinstance(decision, Allowed) else decision.error.code


@pytest.mark.parametrize(
    ("age", "code"), [(3599, "allowed"), (3600, "mfa_stale"), (3601, "mfa_stale"), (-5, "allowed")]
)
def test_the_second_factors_age(age, code):
    assert outcome(entry(mfa_within=3600), who=context(mfa_age=age)) == code


def test_the_second_factor_is_always_needed():
    assert outcome(entry(), who=context(mfa_age=None)) == "mfa_required"
    # Before it nothing is said of which roles there are.
    for role in ("data-reader", "admin", "nothing"):
        decision = decide(BASE, context(mfa_age=None), role, (), facts())
        assert isinstance(decision, Denied)
        assert decision.error.code == "mfa_required"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("9.255.255.255", "outside_network"),
        ("10.0.0.0", "allowed"),
        ("10.255.255.255", "allowed"),
        ("11.0.0.0", "outside_network"),
        ("::ffff:10.0.0.1", "allowed"),  # a v4 client on a v6 socket
        ("::ffff:11.0.0.1", "outside_network"),
        ("::10.0.0.1", "outside_network"),
        ("2001:db8::1", "allowed"),
        ("2001:db9::", "outside_network"),
        (None, "outside_network"),
    ],
)
def test_the_network(address, code):
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert outcome(entry(networks=networks), given=facts(address)) == code


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ((6, 59, 59), "outside_hours"),
        ((7, 0, 0), "allowed"),
        ((18, 59, 59), "allowed"),
        ((19, 0, 0), "outside_hours"),
    ],
)
def test_the_hours(moment, code):
    hours = Hours.parse(["Mon-Fri 08:00-20:00 Europe/Berlin"])
    now = datetime.combine(NOW, time(*moment), UTC)
    assert outcome(entry(hours=hours), who=context(now=now), given=facts(now=now)) == code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (None, "reason_required"),
        ("", "reason_required"),
        (" \u2003", "reason_required"),
        ("INC-7", "allowed"),
    ],
)
def test_the_reason(reason, code):
    assert outcome(entry(reason=True), given=facts(reason=reason)) == code


@pytest.mark.parametrize(
    ("begins", "ends", "code"),
    [
        (1, 7200, "not_entitled"),
        (0, 7200, "allowed"),
        (-7200, 1, "allowed"),
        (-7200, 0, "not_entitled"),
        (-7200, -1, "not_entitled"),
    ],
)
def test_a_grant_is_in_force_from_its_beginning_until_its_end(begins, ends, code):
    one = grant(begins=begins, ends=ends)
    decision = decide(BASE, context(), "admin", (one,), facts())
    if code == "allowed":
        assert isinstance(decision, Allowed)
        assert decision.by == one
        assert decision.ceiling.max_duration is None
        assert decision.ceiling.ends == (("grant_remaining", one.expires_at),)
    else:
        assert isinstance(decision, Denied)
        assert decision.error.code == code


def test_a_grant_is_for_its_person_and_its_role_alone():
    for other in (grant(principal_id="p-zzzzyyyyxxxxwwww"), grant("data-reader2")):
        decision = decide(BASE, context(), "admin", (other,), facts())
        assert isinstance(decision, Denied)
        assert decision.error.code == "not_found"


@pytest.mark.parametrize(
    ("subject", "changes", "code"),
    [
        (Group("corp/analysts"), {}, "allowed"),
        (Group("analysts"), {}, "not_found"),
        (Group("lab/analysts"), {}, "not_found"),
        (Group("corp/analysts"), {"groups": frozenset()}, "not_found"),
        (Group("corp/analysts"), {"groups": frozenset({"lab/analysts"})}, "not_found"),
        (User("p-aaaabbbbccccdddd"), {}, "allowed"),
        (User("p-aaaabbbbccccddde"), {}, "not_found"),
        # An address is bound to a person by the store, and never compared here.
        (User("corp/ada@example.com"), {}, "not_found"),
        (
            User("corp/ada@example.com"),
            {"user_names": frozenset({"corp/ada@example.com"}), "email": "other@example.com"},
            "allowed",
        ),
        (WorkloadRef("p-aaaabbbbccccdddd", "https://ci.test"), {}, "not_found"),
    ],
)
def test_whom_an_entitlement_is_for(subject, changes, code):
    assert outcome(entry(subject), who=context(person(**changes))) == code


def test_a_suspended_person_gets_nothing():
    who = context(person(suspended_at=NOW - timedelta(days=1)))
    assert outcome(entry(), who=who) == "suspended"
    assert offers(entitled(entry()), who, (grant(),), NOW) == ()


def test_a_role_that_nobody_offers_is_as_unknown_as_one_that_is_not_there():
    hidden = decide(BASE, context(), "admin", (), facts())
    unknown = decide(BASE, context(), "no-such-role", (), facts())
    assert isinstance(hidden, Denied)
    assert isinstance(unknown, Denied)
    assert hidden.error.code == unknown.error.code == "not_found"
    assert hidden.error.detail == unknown.error.detail
    assert hidden.near_misses == unknown.near_misses == ()


def test_on_request_is_not_standing():
    assert outcome(entry(mode=Mode.ON_REQUEST)) == "approval_required"


def test_an_account_that_the_organization_leaves_out():
    for accounts, code in (({"111122223333"}, "allowed"), ({"444455556666"}, "not_entitled")):
        rules = Organization(allowed_accounts=frozenset(accounts))
        decision = decide(
            entitled(entry(), organization=rules), context(), "data-reader", (), facts()
        )
        got = "allowed" if isinstance(decision, Allowed) else decision.error.code
        assert got == code


def test_the_entry_that_leaves_the_longest_time_wins():
    office = Hours.parse(["Mon-Fri 08:00-13:30 Europe/Berlin"])  # half an hour left
    short, long = entry(max_duration=1800, line=1), entry(max_duration=7200, line=2)
    closing, open_end = entry(hours=office, line=3), entry(line=4)
    stale = entry(mfa_within=60, line=5)

    def chosen(*entitlements: Entitlement) -> object:
        decision = decide(entitled(*entitlements), context(), "data-reader", (), facts())
        assert isinstance(decision, Allowed)
        return decision.by

    assert chosen(short, long) == long
    assert chosen(long, short) == long
    assert chosen(closing, long) == long
    assert chosen(long, open_end, stale) == open_end
    # Equals: the first in the file. More than the role's maximum is no longer than it.
    assert chosen(entry(max_duration=20000, line=6), open_end).line == 6  # type: ignore[attr-defined]

    decision = decide(entitled(closing), context(), "data-reader", (), facts())
    assert isinstance(decision, Allowed)
    assert decision.ceiling.ends == (("hours_remaining", NOW + timedelta(minutes=30)),)

    two_hours = grant("data-reader", ends=7201)
    decision = decide(entitled(long), context(), "data-reader", (two_hours,), facts())
    assert isinstance(decision, Allowed)
    assert decision.by == two_hours
    # Of equals the entitlement, which nobody has to have granted.
    same = grant("data-reader", ends=7200)
    decision = decide(entitled(long), context(), "data-reader", (same,), facts())
    assert isinstance(decision, Allowed)
    assert decision.by == long


def test_a_refusal_is_that_of_the_entry_that_is_nearest():
    far = entry(networks=(ip_network("192.0.2.0/24"),), reason=True, mfa_within=10, line=1)
    hours = entry(hours=Hours.parse(["Sat 08:00-20:00 UTC"]), line=2)
    stale = entry(mfa_within=10, line=3)
    reason = entry(reason=True, line=4)
    decision = decide(entitled(far, hours, stale, reason), context(), "data-reader", (), facts())
    assert isinstance(decision, Denied)
    assert decision.error.code == "reason_required"
    assert [miss.code for miss in decision.near_misses] == [
        "reason_required",
        "mfa_stale",
        "outside_hours",
        "outside_network",
    ]
    # Within one entry, what is hardest to cure comes first: no step-up in vain.
    assert decision.near_misses[-1].as_json() == {
        "entry": {"entitlement": "group corp/analysts", "line": 1},
        "condition": "networks",
        "failed": [
            {
                "condition": "networks",
                "code": "outside_network",
                "detail": "This role is not given to your network address (10.1.2.3).",
                "satisfied_by": "a client address in 192.0.2.0/24",
            },
            {
                "condition": "mfa_within",
                "code": "mfa_stale",
                "detail": "This role asks for a second factor shown in the last 10 s; "
                "verify it again.",
                "satisfied_by": "a second factor shown in the last 10 s: `broker mfa verify`",
            },
            {
                "condition": "reason",
                "code": "reason_required",
                "detail": "This role asks for a reason.",
                "satisfied_by": "a reason: `--reason TEXT`",
            },
        ],
    }


OFFICE = Hours.parse(["Mon-Fri 08:00-20:00 Europe/Berlin"])
BEFORE_WORK = datetime(2026, 11, 24, 6, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "who", "given", "condition", "cure"),
    [
        (
            entry(mfa_within=3600),
            context(mfa_age=3600),
            facts(),
            "mfa_within",
            "in the last 3600 s",
        ),
        (
            entry(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))),
            context(),
            facts("11.0.0.0"),
            "networks",
            "a client address in 10.0.0.0/8, 2001:db8::/32",
        ),
        (
            entry(hours=OFFICE),
            context(now=BEFORE_WORK),
            facts(now=BEFORE_WORK),
            "hours",
            "waiting until 2026-11-24T07:00:00Z",
        ),
        (entry(reason=True), context(), facts(reason=" "), "reason", "--reason TEXT"),
        (entry(mode=Mode.ON_REQUEST), context(), facts(), "mode", "an approved request"),
    ],
)
def test_a_near_miss_names_the_one_condition_and_what_satisfies_it(
    one, who, given, condition, cure
):
    decision = decide(entitled(one), who, "data-reader", (), given)
    assert isinstance(decision, Denied)
    [miss] = decision.near_misses
    assert miss.entry == one
    [unmet] = miss.unmet
    assert unmet.condition == condition
    assert cure in unmet.cure
    assert decision.error is unmet.error


@pytest.mark.parametrize(
    ("begins", "ends", "condition", "cure"),
    [
        (1, 7200, "not_before", "waiting until 2026-11-24T12:00:01Z"),
        (-7200, 0, "expires_at", "this one ended 2026-11-24T12:00:00Z"),
    ],
)
def test_a_grant_out_of_force_is_a_near_miss(begins, ends, condition, cure):
    decision = decide(BASE, context(), "admin", (grant(begins=begins, ends=ends),), facts())
    assert isinstance(decision, Denied)
    [miss] = decision.near_misses
    assert [unmet.condition for unmet in miss.unmet] == [condition]
    assert cure in miss.unmet[0].cure


def test_entries_for_others_say_whom_the_role_is_given_to():
    """For auditors: what stands between this person and the role, the nearest entry first."""
    rules = entitled(
        entry(line=1),  # hers: not among the others'
        entry(Group("corp/sre"), reason=True, line=2),
        entry(User("corp/eve@example.com"), line=3),
        entry(WorkloadRef("deploy", "https://ci.test"), role="admin", line=4),
    )
    misses = entries_for_others(rules, context(), "data-reader", facts())
    assert [entry_json(miss.entry)["line"] for miss in misses] == [3, 2]
    assert [unmet.condition for unmet in misses[1].unmet] == ["subject", "reason"]
    assert misses[0].unmet[0].cure == "being user corp/eve@example.com"
    assert misses[1].unmet[0].cure == "membership of group corp/sre, as the provider says at login"
    assert entries_for_others(rules, context(), "no-such-role", facts()) == ()


def test_offers_list_what_one_can_have_whether_or_not_it_applies_now():
    closed = entry(hours=Hours.parse(["Sat 08:00-20:00 UTC"]), mfa_within=60, max_duration=1800)
    one = grant(ends=3000)
    reader, admin = sorted(
        offers(entitled(closed), context(mfa_age=9999), (one,), NOW),
        key=lambda offer: -len(offer.name),
    )
    assert (reader.name, reader.availability, reader.max_duration) == (
        "data-reader",
        "standing",
        1800,
    )
    assert reader.description == "Read one dataset"
    assert (reader.account_id, reader.account_name) == ("111122223333", "Production")
    assert list(reader.parameters) == ["bucket", "prefix"]
    assert reader.grant_expires_at is None
    assert (admin.name, admin.availability, admin.max_duration) == ("admin", "granted", 3000)
    assert admin.grant_expires_at == one.expires_at


@pytest.mark.parametrize(
    ("grants", "who"),
    [
        ((grant(ends=0),), context()),
        ((grant(begins=1),), context()),
        ((grant(principal_id="p-zzzzyyyyxxxxwwww"),), context()),
        ((grant(),), context(mfa_age=None)),
    ],
)
def test_what_is_not_offered(grants, who):
    theirs = entitled(entry(Group("corp/others"), mode=Mode.ON_REQUEST))
    assert offers(theirs, who, grants, NOW) == ()


def test_a_role_on_request_is_offered_as_such_unless_it_is_at_hand():
    asked = entry(mode=Mode.ON_REQUEST, max_duration=3600)
    (offer,) = offers(entitled(asked), context(), (), NOW)
    assert (offer.availability, offer.max_duration) == ("requestable", 3600)
    (offer,) = offers(entitled(asked), context(), (grant("data-reader", ends=1800),), NOW)
    assert (offer.availability, offer.max_duration) == ("granted", 1800)
    (offer,) = offers(entitled(asked, entry(max_duration=900)), context(), (), NOW)
    assert (offer.availability, offer.max_duration) == ("standing", 900)
    assert offers(entitled(asked), context(mfa_age=None), (), NOW) == ()


def test_a_grant_covers_a_role_that_is_on_request():
    policy_ = entitled(entry(mode=Mode.ON_REQUEST))
    granted = decide(policy_, context(), "data-reader", (grant("data-reader"),), facts())
    assert isinstance(granted, Allowed)
    assert granted.by == grant("data-reader")
    # With its conditions unmet too, what refuses is that nobody has approved.
    assert outcome(entry(mode=Mode.ON_REQUEST, reason=True)) == "approval_required"
    # Another entry for the same role that needs no approval is asked first.
    assert outcome(entry(mode=Mode.ON_REQUEST), entry(reason=True)) == "reason_required"


def test_an_offer_is_bounded_by_role_and_organization():
    rules = Organization(maximum_duration=5400)
    (offer,) = offers(entitled(entry(), organization=rules), context(), (), NOW)
    assert offer.max_duration == 5400
    (offer,) = offers(entitled(entry()), context(), (), NOW)
    assert offer.max_duration == 4 * 3600
    rules = Organization(allowed_accounts=frozenset({"444455556666"}))
    assert offers(entitled(entry(), organization=rules), context(), (), NOW) == ()


def test_the_file_decides_as_it_reads():
    given = facts("10.1.2.3", "INC-7")
    decision = decide(policy(FILE), context(), "data-reader", (), given)
    assert isinstance(decision, Allowed)
    assert decision.role.name == "data-reader"
    assert decision.ceiling.max_duration == 7200
    assert decision.ceiling.ends == (("hours_remaining", datetime(2026, 11, 24, 19, tzinfo=UTC)),)
