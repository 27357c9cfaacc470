"""Hours of the week in which an entitlement applies: `Mon-Fri 08:00-20:00 Europe/Berlin`.

Owns: the text form, whether a moment is inside, how long the window stays open,
and when the next one opens. A window belongs to the day on which it opens, so
`Fri 22:00-06:00` closes on Saturday. Where clocks go back, a time that occurs
twice means its first occurrence; where they go forward, a time that is skipped
means the moment of the jump. So a window is always one unbroken stretch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EXAMPLE = "Mon-Fri 08:00-20:00 Europe/Berlin"

# Adjacent windows are followed no further: no credential lives as long.
_HORIZON = timedelta(days=2)
_MAX_WINDOWS = 32
_TEXT = re.compile(
    r"(?P<days>[A-Za-z,-]+) (?P<opens>[0-9]{2}:[0-9]{2})-(?P<closes>[0-9]{2}:[0-9]{2}) "
    r"(?P<zone>[A-Za-z][A-Za-z0-9_+/-]{0,63})"
)


class HoursError(ValueError):
    """The text does not name hours. `instead` says what to write."""

    def __init__(self, message: str, instead: str) -> None:
        super().__init__(f"{message}; {instead}")
        self.message = message
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch on each of `days` (0 is Monday). Minutes from midnight; closing at or before
    opening means the next day; 1440 is midnight at the day's end.
    """

    days: frozenset[int]
    opens: int
    closes: int
    zone: ZoneInfo

    def occurrence(self, day: date) -> tuple[datetime, datetime]:
        """When the window that opens on `day` opens and closes, in UTC."""
        closing_day = day if self.closes > self.opens else day + timedelta(days=1)
        return _instant(day, self.opens, self.zone), _instant(closing_day, self.closes, self.zone)


@dataclass(frozen=True, slots=True)
class Hours:
    """One or several windows; inside any of them is inside. `texts` is how they were written."""

    texts: tuple[str, ...]
    windows: tuple[Window, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Hours:
        """Raises HoursError."""
        if not texts:
            raise HoursError("an empty list is never inside", f"write {EXAMPLE}")
        if len(texts) > _MAX_WINDOWS:
            raise HoursError(f"there are {len(texts)} windows", f"write at most {_MAX_WINDOWS}")
        return cls(tuple(texts), tuple(_window(text) for text in texts))

    def __str__(self) -> str:
        return ", ".join(self.texts)

    def contains(self, now: datetime) -> bool:
        return self._closes(now) is not None

    def remaining(self, now: datetime) -> int:
        """Whole seconds until outside, windows that touch counted as one; 0 outside.

        Looks two days ahead: round-the-clock hours give somewhat more than 172800.
        """
        end = now
        while end - now < _HORIZON and (closes := self._closes(end)) is not None:
            end = closes
        return int((end - now).total_seconds())

    def next_opening(self, now: datetime) -> datetime | None:
        """The first moment after `now` at which a window opens; None where none does within
        eight days (a zone may skip a day).
        """
        return min((opens for opens in self._openings(now) if opens > now), default=None)

    def _openings(self, now: datetime) -> Iterator[datetime]:
        for window in self.windows:
            today = now.astimezone(window.zone).date()
            for day in (today + timedelta(days=ahead) for ahead in range(-1, 9)):
                if day.weekday() in window.days:
                    yield window.occurrence(day)[0]

    def _closes(self, moment: datetime) -> datetime | None:
        """The latest closing of the windows that hold `moment`."""
        latest: datetime | None = None
        for window in self.windows:
            today = moment.astimezone(window.zone).date()
            # Two days back: a window over midnight in a zone that skipped a whole day.
            for day in (today - timedelta(days=back) for back in range(3)):
                if day.weekday() not in window.days:
                    continue
                opens, closes = window.occurrence(day)
                if opens <= moment < closes and (latest is None or closes > latest):
                    latest = closes
        return latest


def _instant(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """The first moment, in UTC, at which clocks in `zone` show this time or a later one."""
    if minutes == 24 * 60:
        day, minutes = day + timedelta(days=1), 0
    wall = datetime.combine(day, time(minutes // 60, minutes % 60))
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    # PEP 495: in a gap fold=0 reckons with the offset before it, fold=1 with the one after;
    # the jump lies between the two moments.
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).replace(tzinfo=None) >= wall:
            after = middle
        else:
            before = middle
    return after


def _window(text: str) -> Window:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise HoursError(f"{text[:80]!r} is not days, hours and a time zone", f"write {EXAMPLE}")
    opens, closes = _minutes(match["opens"]), _minutes(match["closes"])
    if opens == 24 * 60:
        raise HoursError("24:00 can only close a window", "write 00:00 and the next day")
    if opens == closes:
        raise HoursError(
            f"{match['opens']}-{match['closes']} is empty", "write 00:00-24:00 for all day"
        )
    return Window(_days(match["days"]), opens, closes, _zone(match["zone"]))


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or any(end not in DAYS for end in ends):
            raise HoursError(
                f"{part[:40]!r} is no day", f"write {', '.join(DAYS)}, Mon-Fri or Mon,Wed"
            )
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        if first > last:
            raise HoursError(f"{part!r} runs backwards", f"write {ends[0]}-Sun,Mon-{ends[-1]}")
        days.update(range(first, last + 1))
    return frozenset(days)


def _minutes(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise HoursError(f"{text} is no time of day", "write 00:00 to 24:00")
    return hour * 60 + minute


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise HoursError(
            f"{name!r} is no time zone known here", "write one such as Europe/Berlin or UTC"
        ) from error
