"""The time-boxed right of a person to a role, given by someone else.

Owns what a grant is, from when until when it may last, and the verbs of its
store. Does not own: who may give one (`rights`), nor what it allows (`decide`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from broker.audit.record import Event
from broker.errors import InvalidRequest

MAX_GRANTS_PAGE = 1000
# The most that may lie between giving a grant and its beginning.
MAX_AHEAD = timedelta(days=366)
SHORTEST_GRANT = timedelta(seconds=60)
# A caller's clock may be behind ours, and its request takes time: "from now on" is meant.
PAST_TOLERANCE = timedelta(minutes=5)
IDEMPOTENCY_LIFETIME = timedelta(hours=24)

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def new_grant_id() -> str:
    """`g-` and 26 base32 characters."""
    return f"g-{''.join(secrets.choice(_BASE32) for _ in range(26))}"


@dataclass(frozen=True, slots=True)
class Grant:
    """In force from `not_before` until `expires_at`, unless revoked; nothing issued outlives it."""

    id: str
    principal_id: str
    role: str
    not_before: datetime
    expires_at: datetime
    granted_by: str
    reason: str


class GrantState(StrEnum):
    UPCOMING = "upcoming"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant with what became of it. `state` is by the database's clock when it was read."""

    grant: Grant
    state: GrantState
    handle: str  # of the person who has it
    created_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_reason: str | None


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a grant is in force."""

    not_before: datetime
    expires_at: datetime


def validity(
    *,
    now: datetime,
    not_before: datetime | None,
    expires_at: datetime | None,
    duration: int | None,
    longest: int,
) -> Validity:
    """When a grant begins and ends; from `now` on where `not_before` is None.

    Exactly one of `expires_at` and `duration` (seconds) is given. `longest` is the role's
    max_grant in seconds. Raises InvalidRequest, with `max_grant` in its extra where that is
    what it breaks.
    """
    begins = now if not_before is None else not_before
    if begins < now - PAST_TOLERANCE:
        raise InvalidRequest("not_before is in the past.")
    begins = max(begins, now)
    if begins - now > MAX_AHEAD:
        raise InvalidRequest("not_before is over a year away.")
    if (expires_at is None) == (duration is None):
        raise InvalidRequest("Give expires_at or duration, one of them.")
    ends = begins + timedelta(seconds=duration) if duration is not None else expires_at
    if ends is None or ends - begins < SHORTEST_GRANT:
        raise InvalidRequest(
            f"A grant ends at least {int(SHORTEST_GRANT.total_seconds())} s after it begins."
        )
    if ends - begins > timedelta(seconds=longest):
        raise InvalidRequest(
            f"A grant of this role lasts at most {longest} s.", extra={"max_grant": longest}
        )
    return Validity(begins, ends)


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant to be stored."""

    principal_id: str
    role: str
    validity: Validity
    granted_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request that may be sent again because its answer was lost: the caller's key, and what
    was asked, both as SHA-256 (32 bytes).
    """

    key_hash: bytes
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class SeenBy:
    """Whose list it is: those they have or gave, and those of the roles they administer."""

    principal_id: str
    roles: frozenset[str] = frozenset()

    def sees(self, grant: Grant) -> bool:
        mine = self.principal_id in (grant.principal_id, grant.granted_by)
        return mine or grant.role in self.roles


class GrantStore(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def current_grants(self, principal_id: str) -> tuple[Grant, ...]:
        """Those in force or to come by the database's clock, the one that ends last first."""
        ...

    async def create_grant(
        self, new: NewGrant, event: Event, *, repeatable: Repeatable | None
    ) -> StoredGrant:
        """`event` is grant.created; the store adds principal, grant and role to its subject.

        A repeated request gets the grant that the first one made, and no record. Raises
        NotFound for no such person, Conflict for a suspended one, and where the key was used
        for another request; Suspended where the giver was suspended since they were let in.
        """
        ...

    async def revoke_grant(self, grant_id: str, *, by: str, reason: str, event: Event) -> bool:
        """False where it was over already, or is not there: then nothing is recorded."""
        ...

    async def grant(self, grant_id: str) -> StoredGrant | None: ...

    async def grants(
        self,
        *,
        seen_by: SeenBy | None,
        principal_id: str | None = None,
        role: str | None = None,
        active: bool | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[StoredGrant, ...]:
        """Newest first; all of them with `seen_by` None. `active`: in force now, or not.

        `after` is the id of the last one of the page before; an id that is not on this list
        gives an empty page. `limit` is at most MAX_GRANTS_PAGE.
        """
        ...
