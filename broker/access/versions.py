"""Stored versions of the access policy, changes that wait, and the verbs of their stores."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from broker.access.four_eyes import Alone
from broker.access.policy import AccessPolicy
from broker.audit.record import Event

# How long a change waits for another admin.
CHANGE_LIFETIME = timedelta(days=7)
# Of one author at a time: texts are up to a megabyte.
MAX_PENDING = 20
MAX_CHANGES_PAGE = 1000


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The exact text that was applied. `number` counts from 1. `external_ids` are the generated
    ones, by role ARN.
    """

    number: int
    text: str
    sha256: str
    applied_at: datetime
    applied_by: str
    external_ids: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class NewPolicy:
    """A text that was judged, and what the store does beside keeping it.

    Its `user_names` (`provider/e-mail`) are bound: those whose person was seen to the principal
    with that provider and verified e-mail, the others are pending until a first login; a binding
    once made is never moved. Its `workloads` (an entry's name, and the issuer it trusts) become
    principals. For each role ARN of `external_ids_for` an external id is made,
    unless there is one: it never changes.
    """

    text: str
    user_names: frozenset[str]
    external_ids_for: frozenset[str] = frozenset()
    workloads: frozenset[tuple[str, str]] = frozenset()


class ChangeState(StrEnum):
    """A change is pending, then in exactly one of the others."""

    PENDING = "pending"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy that waits, or waited, for another admin. `gains` is why; `changes` is what it
    changes in the version it was planned on, as `diff` writes it for the API.
    """

    id: str
    state: ChangeState
    base_version: int
    text: str
    sha256: str
    author: str
    gains: tuple[str, ...]
    changes: tuple[Mapping[str, object], ...]
    created_at: datetime
    expires_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    applied_version: int | None


def new_change_id() -> str:
    return "chg-" + base64.b32encode(secrets.token_bytes(17)).decode("ascii").lower()[:26]


def new_external_id() -> str:
    """160 random bits, in characters that STS and every trust policy take."""
    return "broker-" + base64.b32encode(secrets.token_bytes(20)).decode("ascii").lower()


def with_external_ids(policy: AccessPolicy, external_ids: Mapping[str, str]) -> AccessPolicy:
    """The policy with the generated external ids where its file asks for them."""
    roles = {
        name: replace(role, external_id=external_ids.get(role.role_arn))
        if role.generates_external_id
        else role
        for name, role in policy.roles.items()
    }
    return replace(policy, roles=roles)


class AccessStore(Protocol):
    async def current_policy(self) -> StoredPolicy | None: ...

    async def apply_policy(
        self,
        new: NewPolicy,
        *,
        expected: int,
        applied_by: str,
        event: Event,
        alone: Alone | None = None,
    ) -> StoredPolicy:
        """Store the next version in one transaction, with its event (`detail.version` is filled
        in by the store).

        Raises PreconditionFailed unless the newest version is `expected` (0: none yet), and where
        `alone` holds no longer: another admin may have signed in since it was judged. Raises
        Suspended where `applied_by` was suspended since they were let in.
        """
        ...

    async def pending_user_names(self) -> frozenset[str]: ...


class ChangeStore(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def propose_change(
        self,
        new: NewPolicy,
        *,
        expected: int,
        author: str,
        gains: Sequence[str],
        changes: Sequence[Mapping[str, object]],
        event: Event,
    ) -> PolicyChange:
        """Keep a change for CHANGE_LIFETIME (`subject.change` is filled in by the store).

        Raises PreconditionFailed and Suspended as `apply_policy` does, and Conflict where the
        author has MAX_PENDING of them.
        """
        ...

    async def approve_change(
        self, change_id: str, new: NewPolicy, *, approver: str, approved: Event, applied: Event
    ) -> StoredPolicy:
        """Put it in force as the author's, with both events. `new` is of the change's text.

        Raises NotFound, SelfApproval for the author, Conflict unless it is pending, Suspended for
        an approver who was suspended since they were let in, and PreconditionFailed where the
        version it was planned on is no longer the newest: then it stays as it is.
        """
        ...

    async def withdraw_change(self, change_id: str, *, by: str, event: Event) -> PolicyChange:
        """Raises NotFound, or Conflict unless it is pending."""
        ...

    async def changes(self, *, after: str | None = None, limit: int) -> tuple[PolicyChange, ...]:
        """Newest first. `after` is the id of the last one of the page before; an id that is not
        on the list gives an empty page. `limit` is at most MAX_CHANGES_PAGE.
        """
        ...

    async def change(self, change_id: str) -> PolicyChange | None: ...
