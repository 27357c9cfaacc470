"""What is kept of a flood of refusals: the first of each kind in a minute, and counts.

Owns the rule and its bounds. A kind is (event type, source, role, code), where
the source is the actor, or for nobody in particular the network address (an
IPv6 /64, since one host has all of it). The first of a kind in a minute is a
record of its own; the rest are counted in one audit.suppressed each.

A hostile source can make up kinds without end (roles that don't exist, many
addresses). So kinds are bounded per source and per event type; beyond that
they are counted together: in the source's own overflow as long as its type has
room, else in the type's. One source's flood never hides another's probe, and
what anybody can cause never hides what only authenticated actors can.

Pure: `now` is a parameter. Counts are lost with the process that holds them,
which is at most the current minute's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from broker.audit.record import SYSTEM, Event, EventType, Outcome, rfc3339

MAX_KINDS_PER_SOURCE = 32
MAX_KINDS_PER_TYPE = 512
# Over this, counts of minutes past that could not be appended yet are dropped and said so.
MAX_WAITING = 8192

_MINUTE = timedelta(minutes=1)
_OVERFLOW = "*"
_MAX_TEXT = 128


@dataclass(frozen=True, slots=True)
class _Kind:
    type: EventType
    source: str
    role: str
    code: str


@dataclass(slots=True)
class _Tally:
    principal: str | None
    first_stored: bool = True
    suppressed: int = 0


class DenialWindow:
    """Counts the current minute. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self._minute: datetime | None = None
        self._tallies: dict[_Kind, _Tally] = {}
        self._kinds_of_source: dict[tuple[EventType, str], int] = {}
        self._kinds_of_type: dict[EventType, int] = {}
        self._waiting: list[Event] = []
        self._dropped = 0

    def admit(self, event: Event, now: datetime) -> bool:
        """True: append this event, the first of its kind. False: it was counted."""
        self._turn(now)
        kind = _kind(event)
        tally = self._tallies.get(kind)
        if tally is None and self._has_room(kind):
            self._kinds_of_source[kind.type, kind.source] += 1
            self._kinds_of_type[kind.type] += 1
            self._tallies[kind] = _Tally(_principal(event))
            return True
        if tally is None:
            tally = self._overflow(kind, event)
        if not tally.first_stored:
            tally.first_stored = True
            return True
        tally.suppressed += 1
        return False

    def retract(self, event: Event) -> None:
        """The admitted event could not be appended: let the next of its kind pass instead."""
        tally = self._tallies.get(_kind(event))
        if tally is not None:
            tally.first_stored = False

    def take_due(self, now: datetime) -> tuple[Event, ...]:
        """The audit.suppressed events of minutes that are over, each handed out once."""
        self._turn(now)
        return self._take()

    def take_all(self) -> tuple[Event, ...]:
        """The same at the end, the unfinished minute included."""
        self._close_minute()
        return self._take()

    def _has_room(self, kind: _Kind) -> bool:
        of_source = self._kinds_of_source.setdefault((kind.type, kind.source), 0)
        of_type = self._kinds_of_type.setdefault(kind.type, 0)
        if of_type >= MAX_KINDS_PER_TYPE and of_source == 0:
            # Sources beyond the bound must not take up memory either.
            del self._kinds_of_source[kind.type, kind.source]
        return of_source < MAX_KINDS_PER_SOURCE and of_type < MAX_KINDS_PER_TYPE

    def _overflow(self, kind: _Kind, event: Event) -> _Tally:
        """Where kinds without room are counted. At most one a known source, and one a type."""
        known = (kind.type, kind.source) in self._kinds_of_source
        source = kind.source if known else _OVERFLOW
        principal = _principal(event) if known else None
        return self._tallies.setdefault(
            _Kind(kind.type, source, _OVERFLOW, _OVERFLOW), _Tally(principal)
        )

    def _turn(self, now: datetime) -> None:
        minute = now.replace(second=0, microsecond=0)
        # A clock that is set back stays in the minute it was in.
        if self._minute is None or minute >= self._minute + _MINUTE:
            self._close_minute()
            self._minute = minute

    def _close_minute(self) -> None:
        for kind, tally in self._tallies.items():
            if tally.suppressed == 0 or self._minute is None:
                continue
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(_suppressed(kind, tally, self._minute))
            else:
                self._dropped += tally.suppressed
        self._tallies.clear()
        self._kinds_of_source.clear()
        self._kinds_of_type.clear()

    def _take(self) -> tuple[Event, ...]:
        due = tuple(self._waiting)
        if self._dropped:
            due += (_uncounted(self._dropped),)
        self._waiting.clear()
        self._dropped = 0
        return due


def _kind(event: Event) -> _Kind:
    # Of a CI token the code is always the same; its reason is a constant sentence.
    of_ci = event.type is EventType.CI_REJECTED
    code = event.detail.get("reason" if of_ci else "code", event.detail.get("reason"))
    return _Kind(event.type, _source(event), _text(event.subject.get("role")), _text(code))


def _source(event: Event) -> str:
    actor = event.actor
    if _principal(event) is not None:
        return actor.id
    if actor.ip is None:
        return "unknown"
    try:
        address = ip_address(actor.ip)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)


def _principal(event: Event) -> str | None:
    return event.actor.id if event.actor.kind in ("person", "workload") else None


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _suppressed(kind: _Kind, tally: _Tally, minute: datetime) -> Event:
    subject: dict[str, object] = {"type": kind.type.value, "source": kind.source}
    if tally.principal is not None:
        subject["principal"] = tally.principal
    if kind.role:
        subject["role"] = kind.role
    return Event(
        EventType.AUDIT_SUPPRESSED,
        SYSTEM,
        Outcome.DENIED,
        subject=subject,
        detail={
            "code": kind.code,
            "count": tally.suppressed,
            "minute": rfc3339(minute),
            "various": kind.code == _OVERFLOW,
        },
    )


def _uncounted(dropped: int) -> Event:
    return Event(
        EventType.AUDIT_SUPPRESSED,
        SYSTEM,
        Outcome.DENIED,
        subject={"source": _OVERFLOW},
        detail={"code": _OVERFLOW, "count": dropped, "various": True},
    )
