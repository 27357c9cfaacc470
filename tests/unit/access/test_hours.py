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


NO_DAY = "write Mon, Tue, Wed, Thu, Fri, Sat, Sun, Mon-Fri or Mon,Wed"


@pytest.mark.parametrize(
    ("text", "message", "instead"),
    [
        (
            "always",
            "'always' is not days, hours and a time zone",
            "write Mon-Fri 08:00-20:00 Europe/Berlin",
        ),
        (
            "Mon 8:00-20:00 UTC",
            "'Mon 8:00-20:00 UTC' is not days, hours and a time zone",
            "write Mon-Fri 08:00-20:00 Europe/Berlin",
        ),
        (
            "Mon 08:00-20:00",
            "'Mon 08:00-20:00' is not days, hours and a time zone",
            "write Mon-Fri 08:00-20:00 Europe/Berlin",
        ),
        (
            "Monday 08:00-20:00 UTC",
            "'Monday' is no day",
            "write Mon, Tue, Wed, Thu, Fri, Sat, Sun, Mon-Fri or Mon,Wed",
        ),
        ("Fri-Mon 08:00-20:00 UTC", "'Fri-Mon' runs backwards", "write Fri-Sun,Mon-Mon"),
        ("Mon 08:60-20:00 UTC", "08:60 is no time of day", "write 00:00 to 24:00"),
        ("Mon 08:00-24:01 UTC", "24:01 is no time of day", "write 00:00 to 24:00"),
        ("Mon 24:00-08:00 UTC", "24:00 can only close a window", "write 00:00 and the next day"),
        ("Mon 08:00-08:00 UTC", "08:00-08:00 is empty", "write 00:00-24:00 for all day"),
        (
            "Mon 08:00-20:00 Europe/Atlantis",
            "'Europe/Atlantis' is no time zone known here",
            "write one such as Europe/Berlin or UTC",
        ),
        (
            "Mon 08:00-20:00 Europe",
            "'Europe' is no time zone known here",
            "write one such as Europe/Berlin or UTC",
        ),
        ("Mon-Tue-Wed 08:00-20:00 UTC", "'Mon-Tue-Wed' is no day", NO_DAY),
        ("Mon,,Tue 08:00-20:00 UTC", "'' is no day", NO_DAY),
        ("Mon 25:00-20:00 UTC", "25:00 is no time of day", "write 00:00 to 24:00"),
        (
            "Mon 08:00-20:00 a/../../etc/passwd",
            "'Mon 08:00-20:00 a/../../etc/passwd' is not days, hours and a time zone",
            "write Mon-Fri 08:00-20:00 Europe/Berlin",
        ),
    ],
)
def test_what_is_no_window_is_refused_with_its_cure(text, message, instead):
    with pytest.raises(HoursError) as refused:
        Hours.parse([text])
    assert (refused.value.message, refused.value.instead) == (message, instead)
    assert str(refused.value) == f"{message}; {instead}"


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


def test_no_window_and_too_many_are_refused():
    with pytest.raises(HoursError) as refused:
        Hours.parse([])
    assert str(refused.value) == (
        "an empty list is never inside; write Mon-Fri 08:00-20:00 Europe/Berlin"
    )
    many = ["Mon 08:00-20:00 UTC"] * 33
    with pytest.raises(HoursError) as refused:
        Hours.parse(many)
    assert str(refused.value) == "there are 33 windows; write at most 32"
    assert len(Hours.parse(many[1:]).windows) == 32


@pytest.mark.parametrize(
    ("text", "days", "opens", "closes"),
    [
        ("Mon 00:00-24:00 UTC", {0}, 0, 1440),
        ("Sat,Sun,Mon-Wed 08:05-20:59 UTC", {5, 6, 0, 1, 2}, 485, 1259),
        ("Wed-Wed 23:59-00:00 UTC", {2}, 1439, 0),
        ("Mon-Sun 09:00-17:30 UTC", {0, 1, 2, 3, 4, 5, 6}, 540, 1050),
    ],
)
def test_a_window_as_it_is_written(text, days, opens, closes):
    hours = Hours.parse([text])
    (window,) = hours.windows
    assert (window.days, window.opens, window.closes) == (days, opens, closes)
    assert (window.zone.key, str(hours)) == ("UTC", text)


def test_several_windows_are_told_in_one_line():
    hours = Hours.parse(["Mon 08:00-12:00 UTC", "Tue 08:00-12:00 UTC"])
    assert str(hours) == "Mon 08:00-12:00 UTC, Tue 08:00-12:00 UTC"


ROUND_THE_CLOCK = Hours.parse(["Mon-Sun 00:00-24:00 UTC"])


@pytest.mark.parametrize(
    ("hours", "moment", "remaining"),
    [
        # Two days ahead, and to the end of the window that holds that moment.
        (ROUND_THE_CLOCK, utc(2026, 11, 24), 2 * 86400),
        (ROUND_THE_CLOCK, utc(2026, 11, 24, 0, 0, 1), 3 * 86400 - 1),
        (ROUND_THE_CLOCK, utc(2026, 11, 24, 23, 59, 59), 2 * 86400 + 1),
        # Of windows that hold the moment the one that closes last.
        (
            Hours.parse(["Tue 08:00-10:00 UTC", "Tue 07:00-09:00 UTC"]),
            utc(2026, 11, 24, 8, 30),
            5400,
        ),
        (
            Hours.parse(["Tue 07:00-09:00 UTC", "Tue 08:00-10:00 UTC"]),
            utc(2026, 11, 24, 8, 30),
            5400,
        ),
        # Over midnight, closing at the very minute at which it opened is refused; a minute before.
        (Hours.parse(["Mon 08:00-07:59 UTC"]), utc(2026, 11, 24, 7, 58, 59), 1),
        (Hours.parse(["Mon 22:00-24:00 UTC"]), utc(2026, 11, 23, 23, 59, 59), 1),
        (Hours.parse(["Mon 22:00-24:00 UTC"]), utc(2026, 11, 24), 0),
        # A zone far ahead: its Tuesday began long before.
        (Hours.parse(["Wed 00:00-06:00 Pacific/Kiritimati"]), utc(2026, 11, 24, 10), 6 * 3600),
        (Hours.parse(["Mon 18:00-24:00 Pacific/Pago_Pago"]), utc(2026, 11, 24, 10, 59, 59), 1),
    ],
)
def test_how_long_it_stays_open(hours, moment, remaining):
    assert hours.remaining(moment) == remaining
    assert hours.contains(moment) is (remaining > 0)


def test_a_day_that_a_zone_skipped_has_no_window_of_its_own():
    """Samoa went from the 29th to the 31st of December 2011, at 10:00 UTC on the 30th."""
    friday = Hours.parse(["Fri 08:00-20:00 Pacific/Apia"])
    jump = utc(2011, 12, 30, 10)
    assert (
        friday.next_opening(utc(2011, 12, 29)) == jump
    )  # the moment of the jump, and nothing in it
    assert not friday.contains(jump)
    night = Hours.parse(["Thu 20:00-06:00 Pacific/Apia"])
    assert night.remaining(utc(2011, 12, 30, 6)) == 4 * 3600
    assert night.contains(jump - timedelta(seconds=1))
    assert not night.contains(jump)


def test_the_next_opening_is_of_any_window_and_within_eight_days():
    hours = Hours.parse(["Fri 08:00-09:00 UTC", "Wed 08:00-09:00 UTC", "Tue 12:00-13:00 UTC"])
    assert hours.next_opening(utc(2026, 11, 24, 12)) == utc(2026, 11, 25, 8)
    assert hours.next_opening(utc(2026, 11, 24, 11, 59)) == utc(2026, 11, 24, 12)
    weekly = Hours.parse(["Tue 12:00-13:00 UTC"])
    assert weekly.next_opening(utc(2026, 11, 24, 12)) == utc(2026, 12, 1, 12)
    assert Hours((), ()).next_opening(utc(2026, 11, 24)) is None
