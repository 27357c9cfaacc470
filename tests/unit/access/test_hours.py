from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.hours import Hours, HoursError

OFFICE = Hours.parse(["Mon-Fri 08:00-20:00 Europe/Berlin"])
NIGHT = Hours.parse(["Fri 22:00-06:00 Europe/Berlin"])
# 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00, both Sundays.
SUNDAY = Hours.parse(["Sun 02:30-05:00 Europe/Berlin"])


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("hours", "moment", "remaining"),
    [
        (OFFICE, utc(2026, 11, 24, 6, 59, 59), 0),
        (OFFICE, utc(2026, 11, 24, 7, 0, 0), 12 * 3600),
        (OFFICE, utc(2026, 11, 24, 18, 59, 59), 1),
        (OFFICE, utc(2026, 11, 24, 19, 0, 0), 0),
        (OFFICE, utc(2026, 11, 28, 12, 0, 0), 0),  # Saturday
        (OFFICE, utc(2026, 7, 7, 6, 0, 0), 12 * 3600),  # summer time
        (OFFICE, utc(2026, 7, 7, 5, 59, 59), 0),
        (NIGHT, utc(2026, 11, 27, 20, 59, 59), 0),
        (NIGHT, utc(2026, 11, 27, 21, 0, 0), 8 * 3600),
        (NIGHT, utc(2026, 11, 28, 4, 59, 59), 1),  # Saturday morning belongs to Friday
        (NIGHT, utc(2026, 11, 28, 5, 0, 0), 0),
        (NIGHT, utc(2026, 11, 28, 21, 0, 0), 0),
        # 02:30 does not occur: the window opens at the jump, 01:00 UTC.
        (SUNDAY, utc(2026, 3, 29, 0, 59, 59), 0),
        (SUNDAY, utc(2026, 3, 29, 1, 0, 0), 2 * 3600),
        (SUNDAY, utc(2026, 3, 29, 3, 0, 0), 0),
        # 02:30 occurs twice: the first opens, and the window stays open over the second.
        (SUNDAY, utc(2026, 10, 25, 0, 29, 59), 0),
        (SUNDAY, utc(2026, 10, 25, 0, 30, 0), 3 * 3600 + 1800),
        (SUNDAY, utc(2026, 10, 25, 1, 15, 0), 2 * 3600 + 2700),
        (SUNDAY, utc(2026, 10, 25, 4, 0, 0), 0),
    ],
)
def test_edges_of_a_window(hours, moment, remaining):
    assert hours.contains(moment) is (remaining > 0)
    assert hours.remaining(moment) == remaining


def test_a_time_that_occurs_twice_closes_at_its_first_occurrence():
    hours = Hours.parse(["Sun 00:00-02:30 Europe/Berlin"])
    assert hours.remaining(utc(2026, 10, 25, 0, 29, 59)) == 1
    assert not hours.contains(utc(2026, 10, 25, 0, 30, 0))
    assert not hours.contains(utc(2026, 10, 25, 1, 15, 0))  # 02:15 again


def test_windows_that_touch_or_overlap_are_one():
    hours = Hours.parse(["Mon 08:00-12:00 UTC", "Mon 12:00-18:00 UTC", "Mon 17:00-24:00 UTC"])
    assert hours.remaining(utc(2026, 11, 23, 8)) == 16 * 3600
    assert hours.remaining(utc(2026, 11, 23, 7, 59)) == 0


def test_round_the_clock_stays_open_longer_than_any_credential():
    assert Hours.parse(["Mon-Sun 00:00-24:00 UTC"]).remaining(utc(2026, 11, 24)) >= 172800


@pytest.mark.parametrize(
    ("text", "message", "instead"),
    [
        ("always", "'always' is not days, hours and a time zone", "write Mon-Fri 08:00-20:00"),
        ("Mon 8:00-20:00 UTC", "is not days, hours and a time zone", "write Mon-Fri"),
        ("Mon 08:00-20:00", "is not days, hours and a time zone", "Europe/Berlin"),
        ("Monday 08:00-20:00 UTC", "'Monday' is no day", "write Mon, Tue"),
        ("Fri-Mon 08:00-20:00 UTC", "'Fri-Mon' runs backwards", "write Fri-Sun,Mon-Mon"),
        ("Mon 08:60-20:00 UTC", "08:60 is no time of day", "write 00:00 to 24:00"),
        ("Mon 08:00-24:01 UTC", "24:01 is no time of day", "write 00:00 to 24:00"),
        ("Mon 24:00-08:00 UTC", "24:00 can only close", "write 00:00 and the next day"),
        ("Mon 08:00-08:00 UTC", "08:00-08:00 is empty", "write 00:00-24:00"),
        ("Mon 08:00-20:00 Europe/Atlantis", "'Europe/Atlantis' is no time zone", "Europe/Berlin"),
        ("Mon 08:00-20:00 Europe", "'Europe' is no time zone", "Europe/Berlin"),
        ("Mon 08:00-20:00 a/../../etc/passwd", "is not days, hours", "write Mon-Fri"),
    ],
)
def test_what_is_no_window_is_refused_with_its_cure(text, message, instead):
    with pytest.raises(HoursError) as refused:
        Hours.parse([text])
    assert message in refused.value.message
    assert instead in refused.value.instead


_SECONDS = 15 * 365 * 86400
_MOMENTS = st.integers(0, _SECONDS).map(lambda past: utc(2020, 1, 1) + timedelta(seconds=past))
_CLOCK = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
_ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
)


@given(opens=_CLOCK, closes=_CLOCK, zone=_ZONES, moment=_MOMENTS)
def test_what_remains_is_exactly_how_long_it_stays_inside(opens, closes, zone, moment):
    if opens == closes:
        return
    hours = Hours.parse([f"Mon-Thu {opens}-{closes} {zone}"])
    remaining = hours.remaining(moment)
    assert hours.contains(moment) is (remaining > 0)
    if remaining:
        assert hours.contains(moment + timedelta(seconds=remaining - 1))
        assert not hours.contains(moment + timedelta(seconds=remaining))


@pytest.mark.parametrize(
    ("hours", "moment", "opens"),
    [
        (OFFICE, utc(2026, 11, 24, 6, 59, 59), utc(2026, 11, 24, 7)),
        (OFFICE, utc(2026, 11, 24, 7, 0, 0), utc(2026, 11, 25, 7)),  # open: the one after it
        (OFFICE, utc(2026, 11, 27, 19, 0, 0), utc(2026, 11, 30, 7)),  # over the weekend
        (OFFICE, utc(2026, 3, 27, 19, 0, 0), utc(2026, 3, 30, 6)),  # into summer time
        (NIGHT, utc(2026, 11, 28, 5, 0, 0), utc(2026, 12, 4, 21)),
        (SUNDAY, utc(2026, 3, 29, 0, 59, 59), utc(2026, 3, 29, 1)),  # at the jump
        (SUNDAY, utc(2026, 10, 25, 0, 29, 59), utc(2026, 10, 25, 0, 30)),
    ],
)
def test_when_a_window_opens_next(hours, moment, opens):
    assert hours.next_opening(moment) == opens
    assert hours.contains(opens)
    assert not hours.contains(opens - timedelta(microseconds=1))
