"""For how long: every limit by name, and the one that bound.

Owns: the arithmetic of the duration report. Does not own: where the limits come
from (the access policy, the login session, the grant, AWS).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import floor

from broker.access.decide import Ceiling
from broker.access.policy import MAX_DURATION, MIN_DURATION, Role
from broker.errors import DurationTooShort, InvalidRequest

# AWS gives at most this to credentials of a role session that assume another role, and
# refuses, rather than lowers, what asks for more (IAM User Guide, "Role chaining").
CHAINED_MAXIMUM = 3600
# Taken off limits that come from a clock: STS counts from its own now, some seconds later.
CLOCK_MARGIN = 15


@dataclass(frozen=True, slots=True)
class Limit:
    name: str
    seconds: int


@dataclass(frozen=True, slots=True)
class DurationReport:
    """`requested` is None where the role's default was taken. `granted` is the least of `limits`;
    `bound_by` is the first of them that is as low.
    """

    requested: int | None
    granted: int
    bound_by: str
    limits: tuple[Limit, ...]
    chained: bool

    def as_json(self) -> dict[str, object]:
        """The `duration` member of the answer."""
        return {
            "requested": self.requested,
            "granted": self.granted,
            "bound_by": self.bound_by,
            "limits": limits_json(self.limits),
            "chained": self.chained,
        }


def limits_json(limits: tuple[Limit, ...]) -> list[dict[str, object]]:
    return [{"name": limit.name, "seconds": limit.seconds} for limit in limits]


def report(
    role: Role,
    ceiling: Ceiling,
    *,
    requested: int | None,
    organization_maximum: int | None,
    login_session_expires_at: datetime,
    chained: bool,
    now: datetime,
    session_limit: str,
) -> DurationReport:
    """What is granted of `requested` seconds, or of the role's default.

    Above a limit it is lowered. `session_limit` names what `login_session_expires_at` ends: a
    job's session is its time to live. Raises InvalidRequest for a request outside of
    900 to 43200, and DurationTooShort, with `limits`, `bound_by` and
    `chained` in its extra, where less than 900 s remain.
    """
    if requested is not None:
        if isinstance(requested, bool) or not MIN_DURATION <= requested <= MAX_DURATION:
            raise InvalidRequest(f"duration is {MIN_DURATION} to {MAX_DURATION} seconds.")
        limits = [Limit("requested", requested)]
    else:
        limits = [Limit("role_default", role.default_duration)]
    if ceiling.max_duration is not None:
        limits.append(Limit("entitlement", ceiling.max_duration))
    limits.append(Limit("role_maximum", role.role_maximum))
    if organization_maximum is not None:
        limits.append(Limit("organization", organization_maximum))
    if chained:
        limits.append(Limit("role_chaining", CHAINED_MAXIMUM))
    limits.append(_clock(session_limit, login_session_expires_at, now))
    limits.extend(_clock(name, end, now) for name, end in ceiling.ends)

    bound = min(limits, key=lambda limit: limit.seconds)
    if bound.seconds < MIN_DURATION:
        raise DurationTooShort(
            f"{_WORDS.get(bound.name, bound.name)} leaves {bound.seconds} s; "
            f"AWS gives no less than {MIN_DURATION} s.",
            extra={
                "limits": limits_json(tuple(limits)),
                "bound_by": bound.name,
                "chained": chained,
            },
        )
    return DurationReport(requested, bound.seconds, bound.name, tuple(limits), chained)


_WORDS = {
    "entitlement": "The entitlement",
    "role_maximum": "The role's maximum",
    "organization": "The organization's maximum",
    "login_session_remaining": "Your login session (sign in again for a new one)",
    "job_remaining": "The job's time (a new token of its platform begins a new one)",
    "grant_remaining": "Your grant",
    "hours_remaining": "The end of this role's hours",
}


def _clock(name: str, end: datetime, now: datetime) -> Limit:
    return Limit(name, max(0, floor((end - now).total_seconds()) - CLOCK_MARGIN))
