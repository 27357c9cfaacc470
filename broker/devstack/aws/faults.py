"""What a test can make STS do wrong, and the record of what STS was asked.

Owns the plan of faults and the list of calls; server.py and sts_service.py act
on them. Nothing here is on unless a test asks for it.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


class Fault(enum.Enum):
    """One kind of misbehaviour of an STS call."""

    DELAY = "issues, waits `seconds`, then answers rightly"
    HANG = "issues, then does not answer for `seconds` (or until the plan is cleared); then closes"
    THROTTLE = "400 Throttling, Rate exceeded"
    SERVER_ERROR = "`status` (500 or 503) with a Receiver error"
    DROP_BEFORE = "closes the connection without acting"
    DROP_AFTER = "issues, then closes the connection without answering"
    MALFORMED_XML = "issues, then answers with XML that breaks off"
    NO_NAMESPACE = "answers rightly, without AWS's XML namespace"
    EMPTY_MESSAGE = "403 AccessDenied with an empty Message"
    EXPIRED = "answers with an Expiration in the past"
    OTHER_ROLE = "answers with another role's ARN"
    OTHER_ACCOUNT = "answers with another account's ARN"
    OTHER_SESSION_NAME = "answers with another session's name"
    OTHER_SOURCE_IDENTITY = "answers with another SourceIdentity"
    NO_CREDENTIALS = "answers 200 without Credentials"
    HUGE_BODY = "answers with a body of `size` bytes"
    REGION_DISABLED = "403 RegionDisabledException"
    OTHER_KEY = "KMS: answers by, or of, another key"


@dataclass(frozen=True, slots=True)
class Planned:
    fault: Fault
    seconds: float = 0.0
    status: int = 503
    size: int = 8 * 1024 * 1024
    action: str | None = "AssumeRole"  # None: any STS call


@dataclass(slots=True)
class _Entry:
    planned: Planned
    left: int | None  # None: until cleared


class Faults:
    """The plan: entries are used up in the order they were added. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._released = threading.Event()
        self._clock_offset = 0.0

    def add(
        self,
        fault: Fault,
        *,
        times: int | None = 1,
        seconds: float = 0.0,
        status: int = 503,
        size: int = 8 * 1024 * 1024,
        action: str | None = "AssumeRole",
    ) -> None:
        """Let the next `times` calls of `action` go wrong (None: all, until cleared)."""
        planned = Planned(fault, seconds, status, size, action)
        with self._lock:
            self._entries.append(_Entry(planned, times))
            self._released.clear()

    def clear(self) -> None:
        """Forget the plan, let go of hanging and delayed calls, set the clock right."""
        with self._lock:
            self._entries.clear()
            self._clock_offset = 0.0
            self._released.set()

    def take(self, action: str) -> Planned | None:
        """The fault for a call that is about to be served."""
        with self._lock:
            for entry in self._entries:
                if entry.planned.action not in (None, action):
                    continue
                if entry.left is not None:
                    entry.left -= 1
                    if entry.left == 0:
                        self._entries.remove(entry)
                return entry.planned
        return None

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the plan is cleared."""
        self._released.wait(seconds)

    @property
    def clock_offset(self) -> float:
        """Seconds that the stand-in's clock is ahead of the machine's."""
        return self._clock_offset

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        self._clock_offset = seconds


@dataclass(frozen=True, slots=True)
class StsCall:
    """One STS call that arrived, whatever became of it."""

    action: str
    access_key_id: str | None
    parameters: Mapping[str, str] = field(repr=False)
    outcome: str  # "ok" or the error's code; "ok" also when a fault kept the answer back
    fault: Fault | None
    issued_key_id: str | None


class Calls:
    """The STS calls seen so far, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: list[StsCall] = []

    def append(self, call: StsCall) -> None:
        with self._condition:
            self._calls.append(call)
            self._condition.notify_all()

    def of(self, action: str) -> list[StsCall]:
        return [call for call in self if call.action == action]

    def clear(self) -> None:
        with self._condition:
            self._calls.clear()

    def wait_for(self, count: int, *, timeout: float = 10.0) -> bool:
        """Wait until at least `count` calls were recorded; false when the time runs out."""
        with self._condition:
            return self._condition.wait_for(lambda: len(self._calls) >= count, timeout)

    def __len__(self) -> int:
        with self._condition:
            return len(self._calls)

    def __iter__(self) -> Iterator[StsCall]:
        with self._condition:
            return iter(list(self._calls))

    def __getitem__(self, index: int) -> StsCall:
        with self._condition:
            return self._calls[index]
