"""What happened, as a fact (`Event`), and as its canonical bytes in the log.

Owns the list of event types and the record's format, version 1. The bytes are
RFC 8785 canonical JSON by construction: only ASCII keys, strings, booleans,
null, lists, objects and integers below 2^53 are admitted, for which sorted
msgspec output is the canonical form (the test oracle is `rfc8785`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

FORMAT_VERSION = 1
MAX_RECORD_BYTES = 60 * 1024
_MAX_SAFE_INTEGER = 2**53 - 1


class EventType(StrEnum):
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    MFA_ENROLLED = "mfa.enrolled"
    MFA_VERIFIED = "mfa.verified"
    MFA_FAILED = "mfa.failed"
    MFA_LOCKED = "mfa.locked"
    MFA_RESET = "mfa.reset"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REVOKED = "session.revoked"
    ISSUANCE_REQUESTED = "issuance.requested"
    ISSUANCE_ISSUED = "issuance.issued"
    ISSUANCE_FAILED = "issuance.failed"
    ISSUANCE_WITHHELD = "issuance.withheld"
    ISSUANCE_DENIED = "issuance.denied"
    ISSUANCE_ORPHANED = "issuance.orphaned"
    AUDIT_SUPPRESSED = "audit.suppressed"
    ACCESS_APPLIED = "access.applied"
    ENROLMENT_CODE_CREATED = "enrolment_code.created"
    ADMIN_BOOTSTRAPPED = "admin.bootstrapped"
    KEYS_ROTATED = "keys.rotated"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted. `id` is a principal id, or "anonymous", or "system" for the broker itself."""

    id: str
    kind: str  # person, workload, anonymous, system
    handle: str | None = None
    ip: str | None = None
    user_agent: str | None = None


SYSTEM = Actor("system", "system")


@dataclass(frozen=True, slots=True)
class Event:
    """A fact to be recorded. `seq` and `time` are given by the log when it is appended.

    `subject` and `detail` are JSON-ready; what is too large for one record is
    stored beside it by the log and named by its hash.
    """

    type: EventType
    actor: Actor
    outcome: Outcome
    subject: Mapping[str, object] = field(default_factory=dict)
    detail: Mapping[str, object] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event went: its sequence number (from 1) and leaf hash (32 bytes)."""

    seq: int
    leaf: bytes


def rfc3339(moment: datetime) -> str:
    """UTC with `Z` and microseconds: `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
