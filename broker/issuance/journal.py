"""The durable record of every issuance: intent before STS, outcome after.

Owns the values and the Protocol. Implemented by the group-committing appender
of the store: many callers, one transaction, one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.audit.receipt import Receipt
from broker.audit.record import Actor, Appended, Event


class State(StrEnum):
    """An issuance is requested, then in exactly one of the others."""

    REQUESTED = "requested"
    ISSUED = "issued"
    FAILED = "failed"
    WITHHELD = "withheld"
    ORPHANED = "orphaned"


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be asked of STS. `event` is its issuance.requested."""

    id: str
    principal_id: str
    login_session_id: str
    grant_id: str | None
    role: str
    role_arn: str
    account_id: str
    session_name: str
    source_identity: str
    duration_seconds: int
    policy_sha256: str | None
    event: Event


@dataclass(frozen=True, slots=True)
class Outcome:
    """STS gave credentials. `event` is issuance.issued; the journal turns it into
    issuance.withheld, same subject and detail plus `detail.reason`, where it must.
    """

    intent: Intent
    access_key_id: str
    expires_at: datetime
    assumed_role_arn: str
    assumed_role_id: str
    sts_request_id: str | None
    event: Event


@dataclass(frozen=True, slots=True)
class Concluded:
    """`state` is ISSUED, or WITHHELD with `reason` (suspended, session_ended, grant_revoked,
    grant_expired, late): then nothing may be returned to the caller. `receipt`: for ISSUED,
    where the log is signed.
    """

    state: State
    reason: str | None
    appended: Appended
    receipt: Receipt | None = None


class Journal(Protocol):
    """Every method raises AuditUnavailable when its record could not be made durable."""

    async def request(self, intent: Intent) -> Appended: ...

    async def conclude(self, outcome: Outcome) -> Concluded: ...

    async def fail(self, intent: Intent, event: Event) -> Appended:
        """Move the issuance to FAILED with its issuance.failed."""
        ...

    async def deny(self, event: Event) -> None:
        """An issuance.denied: the first of each (actor or source, role, code, minute) is
        appended, the rest are counted in audit.suppressed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Issuance:
    """A stored issuance, for lists and for revoking. Never holds secrets."""

    id: str
    principal_id: str
    role: str
    role_arn: str
    account_id: str
    state: State
    session_name: str
    source_identity: str
    requested_at: datetime
    duration_seconds: int
    access_key_id: str | None
    expires_at: datetime | None
    assumed_role_arn: str | None
    assumed_role_id: str | None
    grant_id: str | None
    detail: Mapping[str, object]


SYSTEM_ACTOR = Actor("system", "system")
