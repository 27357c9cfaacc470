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
from broker.identity.trust import Workload

MIN_DURATION = 900
MAX_DURATION = 43200
MAX_HOPS = 3
MAX_QUORUM = 5
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
    """`via` are the role ARNs to pass through before `role_arn`, at most MAX_HOPS. A role that
    `generates_external_id` has none in its file: the store makes one for its ARN, once.
    """

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
    generates_external_id: bool = False


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
    """A `workload:` subject: an entry's name, and the issuer it trusts in this policy."""

    name: str
    issuer: str


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
class Approval:
    """Who decides on a request, and how many of them must say yes."""

    approvers: Subject
    quorum: int


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The right of a subject to a role. `line` is where it stands in the file.

    Only one that is on request has the last three: the longest grant in seconds, who decides
    (None: admins), and whether an emergency goes without.
    """

    role: str
    to: Subject
    mode: Mode
    max_duration: int | None
    require: Conditions
    line: int
    max_grant: int | None = None
    approval: Approval | None = None
    break_glass: bool = False


@dataclass(frozen=True, slots=True)
class DelegatedAdmin:
    """May give grants of these roles, by name or by their account's name in the file, to others."""

    to: Subject
    accounts: frozenset[str]
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Organization:
    maximum_duration: int | None = None
    allowed_accounts: frozenset[str] | None = None
    deny: tuple[Mapping[str, object], ...] = ()  # Deny statements, as parsed JSON


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """One version of the whole file. `number` is the stored version, 0 before it is stored.
    `admins` administer without limits; the `delegated` ones within theirs.
    """

    number: int
    accounts: Mapping[str, Account]
    admins: tuple[Subject, ...]
    auditors: tuple[Subject, ...]
    roles: Mapping[str, Role]
    entitlements: tuple[Entitlement, ...]
    organization: Organization
    delegated: tuple[DelegatedAdmin, ...] = ()
    workloads: Mapping[str, Workload] = field(default_factory=dict)


EMPTY = AccessPolicy(0, {}, (), (), {}, (), Organization())
