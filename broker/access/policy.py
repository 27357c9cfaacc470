"""The access policy, parsed: frozen values that can only be valid.

Owns the shapes alone. Reading them from YAML or JSON, with refusals that name
file, line and cure, is `parse`; judging them is `lint` and `decide`.
Durations are integer seconds throughout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from broker.access.hours import Hours
from broker.access.template import PolicyTemplate, TextTemplate

MIN_DURATION = 900
MAX_DURATION = 43200
ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    name: str  # the key in the file
    id: str  # 12 digits
    title: str
    region: str
    partition: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a caller may set. Exactly one of `allowed` and `pattern` (RE2, full match)."""

    name: str
    allowed: tuple[str, ...] | None
    pattern: str | None
    default: str | None


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    description: str
    account: Account
    role_arn: str
    via: tuple[str, ...]
    external_id: str | None = field(repr=False)
    role_maximum: int
    default_duration: int
    max_grant: int
    parameters: Mapping[str, Parameter]
    session_policy: PolicyTemplate | None
    managed_policies: tuple[str, ...]
    tags: Mapping[str, TextTemplate]
    transitive_tags: tuple[str, ...]
    unscoped: bool
    may_chain: bool
    revocable: bool


@dataclass(frozen=True, slots=True)
class User:
    """A `user:` subject: a principal id, or `provider/e-mail`, bound to a principal at apply
    or at the first login with that verified e-mail.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """A `group:` subject, qualified: `corp/sre`."""

    name: str


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    name: str


Subject = User | Group | WorkloadRef


class Mode(StrEnum):
    STANDING = "standing"
    ON_REQUEST = "on_request"


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that are set must hold. `mfa_within` in seconds."""

    mfa_within: int | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    hours: Hours | None = None
    reason: bool = False


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The right of a subject to a role. `line` is where it stands in the file."""

    role: str
    to: Subject
    mode: Mode
    max_duration: int | None
    require: Conditions
    line: int


@dataclass(frozen=True, slots=True)
class Organization:
    maximum_duration: int | None = None
    allowed_accounts: frozenset[str] | None = None
    deny: tuple[Mapping[str, object], ...] = ()  # Deny statements, as parsed JSON


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """One version of the whole file. `number` is the stored version, 0 before it is stored."""

    number: int
    accounts: Mapping[str, Account]
    admins: tuple[Subject, ...]
    auditors: tuple[Subject, ...]
    roles: Mapping[str, Role]
    entitlements: tuple[Entitlement, ...]
    organization: Organization


EMPTY = AccessPolicy(0, {}, (), (), {}, (), Organization())
