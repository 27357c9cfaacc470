"""Stopping somebody: what is ended here, and what AWS must be told to deny.

Credentials can't be recalled, only denied. Owns the Deny policy for an IAM role
and the verbs of suspending. While somebody is suspended the policy carries no
time condition, since a chained session could be younger than the suspension;
afterwards it denies what was issued before it was lifted. Does not own: writing
it to IAM, nor who may suspend (`web`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from broker.access.policy import AccessPolicy
from broker.audit.record import Event
from broker.issuance.journal import Issuance

# Of the live issuances, those that are listed one by one; the others are counted.
MAX_LISTED = 200


@dataclass(frozen=True, slots=True)
class LiveRole:
    """An IAM role that credentials still act as. `last_expires_at` is when the last of them
    ends by itself.
    """

    role: str  # its short name when they were issued
    role_arn: str
    account_id: str
    count: int
    last_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Live:
    """What a principal's credentials can still do: `roles` are all of them, `issuances` the
    MAX_LISTED that end last.
    """

    roles: tuple[LiveRole, ...]
    issuances: tuple[Issuance, ...]

    @property
    def count(self) -> int:
        return sum(role.count for role in self.roles)


@dataclass(frozen=True, slots=True)
class Suspension:
    """`newly`: by this act; else it was suspended before, with that time and reason."""

    principal_id: str
    newly: bool
    suspended_at: datetime
    reason: str
    login_sessions: tuple[str, ...]
    grants: tuple[str, ...]
    live: Live


@dataclass(frozen=True, slots=True)
class Reinstatement:
    principal_id: str
    lifted_at: datetime
    live: Live


class SuspensionStore(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def suspend(
        self, principal_id: str, *, policy: AccessPolicy, by: str, reason: str, event: Event
    ) -> Suspension | None:
        """In one transaction: suspended, every login session and token ended, every grant
        revoked. None where there is no such principal.

        `event` is revocation.requested; session.revoked and grant.revoked go with it. Nothing
        is recorded for one who is suspended already. Raises Conflict for the last admin by
        `policy`, PreconditionFailed where that is not the newest version any more, Suspended
        where `by` was suspended meanwhile.
        """
        ...

    async def reinstate(self, principal_id: str, *, by: str, event: Event) -> Reinstatement | None:
        """`event` is revocation.lifted. What was ended stays ended, factors stay. None where
        there is no such principal; raises Conflict for one who is not suspended, Suspended
        where `by` was suspended meanwhile.
        """
        ...

    async def live(self, principal_id: str) -> Live: ...


def deny_policy(principal_id: str, lifted_at: datetime | None = None) -> dict[str, object]:
    """The policy to put on a role: nothing for credentials whose SourceIdentity this is.

    With `lifted_at`: for those issued before it. AWS compares whole seconds, so it is rounded
    up (IAM User Guide, "aws:TokenIssueTime").
    """
    condition: dict[str, object] = {"StringEquals": {"aws:SourceIdentity": principal_id}}
    if lifted_at is not None:
        condition["DateLessThan"] = {"aws:TokenIssueTime": whole_seconds(lifted_at)}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition},
        ],
    }


def policy_name(principal_id: str) -> str:
    """What the inline policy is called on the role: one a principal, so that it is found again."""
    return f"broker-deny-{principal_id}"


def whole_seconds(moment: datetime) -> str:
    """RFC 3339 in UTC, rounded up."""
    up = moment + timedelta(seconds=1) if moment.microsecond else moment
    return up.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
