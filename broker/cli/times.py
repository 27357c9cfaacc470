"""Moments on the command line: read in the person's time zone, shown in theirs and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from broker.cli.failure import WrongUsage
from broker.cli.terminal import clean


def moment(text: str, option: str) -> str:
    """RFC 3339 in UTC, of RFC 3339 or of a local `2026-11-25 14:00`. Raises WrongUsage, also
    where the clocks change and the local time comes twice or not at all.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or ":" not in text:
        raise WrongUsage(
            f"{option}: {text!r} is no time; write '2026-11-25 14:00' (local) "
            "or 2026-11-25T14:00:00Z"
        )
    try:
        if given.tzinfo is None:
            first, second = (given.replace(fold=fold).astimezone() for fold in (0, 1))
            if first.utcoffset() != second.utcoffset():
                raise WrongUsage(
                    f"{option}: the clocks change then, so {text!r} comes twice or not at all; "
                    "write its offset too, as in 2026-10-25T02:30:00+02:00"
                )
            given = first
        return given.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError):
        raise WrongUsage(f"{option}: {text!r} is too far away") from None


def both(value: object) -> str:
    """`2026-11-25T13:00:00Z (2026-11-25 14:00 +0100 here)`; as it came where it is no time."""
    try:
        given = datetime.fromisoformat(str(value))
        return f"{clean(value, 40)} ({given.astimezone():%Y-%m-%d %H:%M %z} here)"
    except (ValueError, OverflowError, OSError):
        return clean(value, 40) if value else "-"


def local(value: object) -> str:
    """In the person's time zone, for a column of a table."""
    try:
        given = datetime.fromisoformat(str(value))
        return f"{given.astimezone():%Y-%m-%d %H:%M %z}"
    except (ValueError, OverflowError, OSError):
        return clean(value, 40) if value else "-"
