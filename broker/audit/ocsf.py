"""What each record is in the Open Cybersecurity Schema Framework: its class and activity.

Owns the mapping from event types to OCSF 1.5.0 classes (schema.ocsf.io), which
is total: a type that is not known here, from a later version of the broker, is
API activity of kind Other. Does not own the OCSF objects themselves
(`broker.adapters.sinks.ocsf`).

Three classes are used. Authentication: who came in, stayed in or left. Account
Change: what an account may do, and by which factor it is known. API Activity:
what was asked of the broker and of AWS, and what became of the log itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from broker.audit.record import EventType

SCHEMA_VERSION = "1.5.0"


class OcsfClass(IntEnum):
    """`class_uid`. The thousands are the category."""

    ACCOUNT_CHANGE = 3001
    AUTHENTICATION = 3002
    API_ACTIVITY = 6003

    @property
    def caption(self) -> str:
        return _CAPTIONS[self]

    @property
    def category(self) -> tuple[int, str]:
        """`category_uid` and `category_name`."""
        uid = self // 1000
        return uid, {3: "Identity & Access Management", 6: "Application Activity"}[uid]


_CAPTIONS = {
    OcsfClass.ACCOUNT_CHANGE: "Account Change",
    OcsfClass.AUTHENTICATION: "Authentication",
    OcsfClass.API_ACTIVITY: "API Activity",
}

OTHER = 99
# The activities of each class that are used here, by the schema's own captions.
_ACTIVITIES: Mapping[OcsfClass, Mapping[str, int]] = {
    OcsfClass.ACCOUNT_CHANGE: {
        "Enable": 2,
        "Disable": 5,
        "Attach Policy": 7,
        "Detach Policy": 8,
        "Lock": 9,
        "MFA Factor Enable": 10,
        "MFA Factor Disable": 11,
    },
    OcsfClass.AUTHENTICATION: {"Logon": 1, "Logoff": 2},
    OcsfClass.API_ACTIVITY: {"Create": 1, "Read": 2, "Update": 3, "Delete": 4},
}


class Severity(IntEnum):
    """`severity_id`: how much an operator should care."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4


@dataclass(frozen=True, slots=True)
class Activity:
    """`name` is the schema's caption, or the broker's own word where `id` is 99 (Other).
    `severity` is of the event where it succeeded as well as where it did not.
    """

    ocsf_class: OcsfClass
    name: str
    severity: Severity = Severity.INFORMATIONAL

    @property
    def id(self) -> int:
        """`activity_id`."""
        return _ACTIVITIES[self.ocsf_class].get(self.name, OTHER)

    @property
    def type_uid(self) -> int:
        return self.ocsf_class * 100 + self.id


_LOGIN, _ACCOUNT, _API = (
    OcsfClass.AUTHENTICATION,
    OcsfClass.ACCOUNT_CHANGE,
    OcsfClass.API_ACTIVITY,
)
_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH

ACTIVITIES: Mapping[EventType, Activity] = MappingProxyType(
    {
        EventType.LOGIN_SUCCEEDED: Activity(_LOGIN, "Logon"),
        EventType.LOGIN_FAILED: Activity(_LOGIN, "Logon", _LOW),
        EventType.DEVICE_APPROVED: Activity(_LOGIN, "Device Approve"),
        EventType.DEVICE_DENIED: Activity(_LOGIN, "Device Deny", _LOW),
        EventType.MFA_ENROLLED: Activity(_ACCOUNT, "MFA Factor Enable"),
        EventType.MFA_VERIFIED: Activity(_LOGIN, "Second Factor"),
        EventType.MFA_FAILED: Activity(_LOGIN, "Second Factor", _LOW),
        EventType.MFA_LOCKED: Activity(_ACCOUNT, "Lock", _MEDIUM),
        EventType.MFA_RESET: Activity(_ACCOUNT, "MFA Factor Disable", _MEDIUM),
        EventType.SESSION_REFRESHED: Activity(_LOGIN, "Session Refresh"),
        EventType.SESSION_REVOKED: Activity(_LOGIN, "Logoff"),
        EventType.CI_EXCHANGED: Activity(_LOGIN, "Logon"),
        EventType.CI_OBSERVED: Activity(_LOGIN, "Observe"),
        EventType.CI_REJECTED: Activity(_LOGIN, "Logon", _LOW),
        EventType.ISSUANCE_REQUESTED: Activity(_API, "Create"),
        EventType.ISSUANCE_ISSUED: Activity(_API, "Create"),
        EventType.ISSUANCE_FAILED: Activity(_API, "Create", _LOW),
        EventType.ISSUANCE_WITHHELD: Activity(_API, "Create", _MEDIUM),
        EventType.ISSUANCE_DENIED: Activity(_API, "Create", _LOW),
        EventType.ISSUANCE_ORPHANED: Activity(_API, "Create", _MEDIUM),
        EventType.AUDIT_SUPPRESSED: Activity(_API, "Suppress", _MEDIUM),
        EventType.AUDIT_CHECKPOINT: Activity(_API, "Create"),
        EventType.AUDIT_ROLLBACK_ACCEPTED: Activity(_API, "Update", _HIGH),
        EventType.AUDIT_SINKS_CHANGED: Activity(_API, "Update", _MEDIUM),
        EventType.ACCESS_APPLIED: Activity(_API, "Update", _LOW),
        EventType.ACCESS_PROPOSED: Activity(_API, "Create"),
        EventType.ACCESS_APPROVED: Activity(_API, "Update", _LOW),
        EventType.ACCESS_WITHDRAWN: Activity(_API, "Delete"),
        EventType.GRANT_CREATED: Activity(_ACCOUNT, "Attach Policy", _LOW),
        EventType.GRANT_REVOKED: Activity(_ACCOUNT, "Detach Policy"),
        EventType.GRANT_EXPIRED: Activity(_ACCOUNT, "Detach Policy"),
        EventType.REVOCATION_REQUESTED: Activity(_ACCOUNT, "Disable", _MEDIUM),
        EventType.REVOCATION_LIFTED: Activity(_ACCOUNT, "Enable", _LOW),
        EventType.ENROLMENT_CODE_CREATED: Activity(_ACCOUNT, "Enrolment Code Create", _LOW),
        EventType.ADMIN_BOOTSTRAPPED: Activity(_ACCOUNT, "Attach Policy", _HIGH),
        EventType.KEYS_ROTATED: Activity(_API, "Update", _LOW),
        EventType.KEYS_RESEALED: Activity(_API, "Update"),
    }
)
# Nobody may lose sight of what a newer broker recorded during a rolling upgrade.
_UNKNOWN = Activity(_API, "Other")


def activity(event_type: str) -> Activity:
    """Of a record's `type`, whatever it is."""
    try:
        return ACTIVITIES.get(EventType(event_type), _UNKNOWN)
    except ValueError:
        return _UNKNOWN
