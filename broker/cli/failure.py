"""Why a command stopped, and the exit code that tells a script.

0 done, 1 refused by the broker, 2 wrong usage, 3 not logged in, 4 broker
unreachable, 5 second factor needed.
"""

from __future__ import annotations

from typing import ClassVar

_SECOND_FACTOR = ("mfa_required", "mfa_stale")


class Failure(Exception):
    """Stops a command. Its text is one line for stderr, without the leading `broker: `."""

    exit_code: ClassVar[int] = 1


class Refused(Failure):
    """The broker said no, in problem+json (RFC 9457)."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        request_id: str | None = None,
        members: dict[str, object] | None = None,
    ) -> None:
        suffix = f" (request {request_id})" if request_id else ""
        super().__init__(f"{code}: {detail}{suffix}")
        self.code = code
        self.members = members or {}


class SecondFactorNeeded(Refused):
    exit_code = 5


class LocalFailure(Failure):
    """Something on this machine is in the way: a file that can't be written, a broken log."""


class WrongUsage(Failure):
    exit_code = 2


class NotLoggedIn(Failure):
    exit_code = 3


class Unreachable(Failure):
    """No broker answered, or what answered is not one."""

    exit_code = 4


def refusal(code: str, detail: str, request_id: str | None, members: dict[str, object]) -> Failure:
    """The failure that a problem's code stands for."""
    if code == "unauthenticated":
        return NotLoggedIn(f"unauthenticated: {detail} Run `broker login`.")
    kind = SecondFactorNeeded if code in _SECOND_FACTOR else Refused
    return kind(code, detail, request_id=request_id, members=members)
