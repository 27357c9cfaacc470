"""A flood of refusals leaves the first of each kind and counts, within bounds."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.audit import suppress
from broker.audit.record import SYSTEM, Actor, Event, EventType, Outcome, clean_and_prepare
from broker.audit.suppress import MAX_KINDS_PER_SOURCE, MAX_KINDS_PER_TYPE, DenialWindow

MINUTE = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def denied(who: str = "p-1", role: str = "admin", code: str = "not_entitled") -> Event:
    return Event(
        EventType.ISSUANCE_DENIED,
        Actor(who, "person", who, "192.0.2.1"),
        Outcome.DENIED,
        {"principal": who, "role": role},
        {"code": code},
    )


def failed_login(ip: str | None) -> Event:
    return Event(
        EventType.LOGIN_FAILED,
        Actor("anonymous", "anonymous", ip=ip),
        Outcome.FAILURE,
        detail={"reason": "state"},
    )


def after(seconds: float) -> datetime:
    return MINUTE + timedelta(seconds=seconds)


def count(event: Event) -> int:
    found = event.detail["count"]
    assert isinstance(found, int)
    return found


def test_the_first_of_a_kind_in_a_minute_passes_and_the_rest_are_counted() -> None:
    window = DenialWindow()
    assert [window.admit(denied(), after(n)) for n in range(5)] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert window.admit(denied(role="other"), after(5))
    assert window.admit(denied(code="mfa_stale"), after(6))
    assert window.admit(denied(who="p-2"), after(7))
    assert window.take_due(after(59)) == ()
    (suppressed,) = window.take_due(after(60))
    assert suppressed == Event(
        EventType.AUDIT_SUPPRESSED,
        SYSTEM,
        Outcome.DENIED,
        {"type": "issuance.denied", "source": "p-1", "principal": "p-1", "role": "admin"},
        {
            "code": "not_entitled",
            "count": 4,
            "minute": "2026-01-02T12:00:00.000000Z",
            "various": False,
        },
    )
    assert window.take_due(after(60)) == ()
    assert window.admit(denied(), after(61))


def test_the_unfinished_minute_is_handed_out_at_the_end() -> None:
    window = DenialWindow()
    for _ in range(3):
        window.admit(denied(), after(1))
    assert [count(event) for event in window.take_all()] == [2]
    assert window.take_all() == ()


def test_a_first_that_could_not_be_stored_lets_the_next_one_pass() -> None:
    window = DenialWindow()
    assert window.admit(denied(), after(0))
    assert not window.admit(denied(), after(1))
    window.retract(denied())
    assert window.admit(denied(), after(2))
    assert not window.admit(denied(), after(3))
    assert [count(event) for event in window.take_due(after(60))] == [2]


def test_nobody_in_particular_is_told_apart_by_network() -> None:
    window = DenialWindow()
    assert window.admit(failed_login("192.0.2.1"), after(0))
    assert window.admit(failed_login("192.0.2.2"), after(0))
    assert not window.admit(failed_login("::ffff:192.0.2.2"), after(0))
    assert window.admit(failed_login("2001:db8::1"), after(0))
    assert not window.admit(failed_login("2001:db8::ffff:2"), after(0))
    assert window.admit(failed_login("2001:db8:0:1::1"), after(0))
    assert window.admit(failed_login("::1"), after(0))
    assert window.admit(failed_login(None), after(0))
    assert not window.admit(failed_login("not an address"), after(0))
    sources = {str(e.subject["source"]) for e in window.take_due(after(60))}
    assert sources == {"192.0.2.2", "2001:db8::/64", "unknown"}


def test_one_persons_flood_of_kinds_hides_nobody_elses_probe() -> None:
    window = DenialWindow()
    passed = sum(window.admit(denied(role=f"r{n}"), after(0)) for n in range(10_000))
    assert passed == MAX_KINDS_PER_SOURCE
    assert window.admit(denied(who="p-2"), after(1))
    (suppressed,) = window.take_due(after(60))
    assert suppressed == Event(
        EventType.AUDIT_SUPPRESSED,
        SYSTEM,
        Outcome.DENIED,
        {"type": "issuance.denied", "source": "p-1", "principal": "p-1", "role": "*"},
        {
            "code": "*",
            "count": 10_000 - passed,
            "minute": "2026-01-02T12:00:00.000000Z",
            "various": True,
        },
    )


def test_a_flood_from_everywhere_is_bounded_and_hides_no_authenticated_probe() -> None:
    window = DenialWindow()
    addresses = [f"10.{a}.{b}.1" for a in range(100) for b in range(250)]
    passed = sum(window.admit(failed_login(ip), after(0)) for ip in addresses)
    assert passed == MAX_KINDS_PER_TYPE
    assert window.admit(denied(), after(1))
    held = (window._tallies, window._kinds_of_source)
    assert all(len(counters) <= MAX_KINDS_PER_TYPE + 2 for counters in held)
    (suppressed,) = window.take_due(after(60))
    assert suppressed.subject == {"type": "login.failed", "source": "*", "role": "*"}
    assert count(suppressed) == len(addresses) - passed


def test_counts_that_nobody_takes_are_bounded_and_their_loss_is_said() -> None:
    window = DenialWindow()
    minutes = suppress.MAX_WAITING // MAX_KINDS_PER_SOURCE + 10
    for minute in range(minutes):
        for role in range(MAX_KINDS_PER_SOURCE):
            for _ in range(2):
                window.admit(denied(role=f"r{role}"), after(60 * minute))
    due = window.take_all()
    assert len(due) == suppress.MAX_WAITING + 1
    assert sum(map(count, due)) == minutes * MAX_KINDS_PER_SOURCE
    lost = {"code": "*", "count": count(due[-1]), "various": True}
    assert due[-1] == Event(
        EventType.AUDIT_SUPPRESSED, SYSTEM, Outcome.DENIED, {"source": "*"}, lost
    )
    assert window.take_all() == (), "said once"


def test_a_clock_set_back_neither_loses_nor_repeats() -> None:
    window = DenialWindow()
    assert window.admit(denied(), after(0))
    assert not window.admit(denied(), after(-600))
    assert window.take_due(after(-600)) == ()
    assert [count(event) for event in window.take_due(after(60))] == [1]


events = st.builds(
    denied,
    who=st.sampled_from(["p-1", "p-2", "p-3"]),
    role=st.sampled_from(["a", "b"]) | st.text(max_size=3),
    code=st.sampled_from(["not_entitled", "mfa_stale"]),
)


@given(st.lists(st.tuples(events, st.integers(0, 200))))
def test_every_refusal_is_a_record_or_in_a_count(arrivals: list[tuple[Any, int]]) -> None:
    window = DenialWindow()
    passed: Counter[tuple[object, ...]] = Counter()
    counted = 0
    for event, second in sorted(arrivals, key=lambda arrival: arrival[1]):
        key = (event.actor.id, event.subject["role"], event.detail["code"], second // 60)
        if window.admit(event, after(second)):
            passed[key] += 1
        else:
            assert passed[key] == 1
        for suppressed in window.take_due(after(second)):
            clean_and_prepare(suppressed)  # as the journal does
            counted += count(suppressed)
    counted += sum(map(count, window.take_all()))
    assert sum(passed.values()) + counted == len(arrivals)
    assert all(times == 1 for times in passed.values())


def test_kinds_are_told_apart_by_what_was_refused() -> None:
    """Of a CI token by the reason, of others by the code, or the reason where there is none."""
    window = DenialWindow()
    job = Event(
        EventType.CI_REJECTED,
        Actor("anonymous", "anonymous", ip="192.0.2.1"),
        Outcome.DENIED,
        detail={"code": "ci_token_rejected", "reason": "it has expired"},
    )
    other_reason = replace(job, detail={"code": "ci_token_rejected", "reason": "it has no exp"})
    assert window.admit(job, after(0))
    assert window.admit(other_reason, after(0))
    assert not window.admit(job, after(0))
    assert window.admit(failed_login("192.0.2.1"), after(0))
    assert not window.admit(failed_login("192.0.2.1"), after(0))
    assert window.admit(replace(failed_login("192.0.2.1"), detail={"reason": "x"}), after(0))
    assert [event.detail["code"] for event in window.take_all()] == ["it has expired", "state"]


def test_a_job_is_a_source_of_its_own_wherever_it_runs() -> None:
    window = DenialWindow()
    job = replace(denied(), actor=Actor("w-1", "workload", ip="192.0.2.1"))
    assert window.admit(job, after(0))
    assert not window.admit(replace(job, actor=Actor("w-1", "workload")), after(0))
    assert window.admit(replace(job, actor=Actor("w-2", "workload")), after(0))
    (suppressed,) = window.take_all()
    assert (suppressed.subject["source"], suppressed.subject["principal"]) == ("w-1", "w-1")


def test_each_minute_has_its_own_room() -> None:
    window = DenialWindow()
    for minute in range(3):
        passed = [window.admit(denied(role=f"r{n}"), after(60 * minute)) for n in range(40)]
        assert sum(passed) == MAX_KINDS_PER_SOURCE
    assert [count(event) for event in window.take_due(after(120))] == [8, 8]
    assert [event.detail["minute"] for event in window.take_all()] == [
        "2026-01-02T12:02:00.000000Z"
    ]


def test_a_first_that_could_not_be_stored_is_no_matter_once_its_minute_is_over() -> None:
    window = DenialWindow()
    window.admit(denied(), after(0))
    window.take_due(after(60))
    window.retract(denied())
    assert window.admit(denied(), after(61))
    assert not window.admit(denied(), after(62))


def test_members_of_a_hostile_shape_are_no_kind_of_their_own() -> None:
    window = DenialWindow()
    odd = replace(denied(), subject={"role": ["x"]}, detail={"code": {"y": 1}})
    assert window.admit(odd, after(0))
    assert not window.admit(replace(odd, subject={"role": 7}), after(0))
    long = replace(denied(), subject={"role": "x" * 100_000})
    window.admit(long, after(0))
    window.admit(long, after(0))
    ends_otherwise = replace(denied(), subject={"role": "x" * 128 + "y"})
    assert not window.admit(ends_otherwise, after(0)), "the same, as far as it is looked at"
    roles = [event.subject.get("role") for event in window.take_all()]
    assert roles == [None, "x" * 128]
