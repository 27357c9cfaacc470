"""One finding, and how a check is held to its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime

from broker.issuance.trust_judgement import Level

SLIGHT_SKEW = 60.0  # seconds: TOTP codes are of 30 s, and clocks are compared in whole seconds
# AWS refuses a signature older or newer than this, identity providers' tokens are refused alike.
GREAT_SKEW = 300.0
_STATUS = {Level.OK: "ok", Level.WARN: "warning", Level.FAIL: "failed"}


@dataclass(frozen=True, slots=True)
class Check:
    """`cure` says what to do; None where all is well. `role` is the one that it is about."""

    name: str
    level: Level
    message: str
    cure: str | None = None
    role: str | None = None

    def as_json(self) -> dict[str, object]:
        """For programs: these keys and statuses stay."""
        return {
            "check": self.name,
            "status": _STATUS[self.level],
            "detail": self.message,
            "cure": self.cure,
            "role": self.role,
        }


def ok(name: str, message: str) -> Check:
    return Check(name, Level.OK, message)


def warn(name: str, message: str, cure: str) -> Check:
    return Check(name, Level.WARN, message, cure)


def fail(name: str, message: str, cure: str) -> Check:
    return Check(name, Level.FAIL, message, cure)


async def within(
    seconds: float, name: str, checks: Awaitable[list[Check]], *, cure: str
) -> list[Check]:
    """The checks, or one failure where they take longer. `cure` is for that."""
    try:
        async with asyncio.timeout(seconds):
            return await checks
    except TimeoutError:
        return [fail(name, f"no answer within {seconds:.0f} s", cure)]
    except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
        return [
            fail(
                name,
                f"this could not be checked: {type(error).__name__}: {error}",
                "report this as a fault of the broker's",
            )
        ]


def clock(name: str, whose: str, theirs: datetime, ours: datetime) -> Check:
    """`theirs` may be whole seconds; `ours` is this host's, at the same time."""
    ahead = (ours - theirs).total_seconds()
    if abs(ahead) <= SLIGHT_SKEW:
        return ok(name, f"agrees with {whose} within a minute")
    side = "ahead of" if ahead > 0 else "behind"
    message = f"this host is {abs(ahead):.0f} s {side} {whose}"
    cure = "set the clock that is wrong, and let NTP keep it"
    return (fail if abs(ahead) > GREAT_SKEW else warn)(name, message, cure)
