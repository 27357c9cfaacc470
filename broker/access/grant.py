"""The time-boxed right of a person to a role, given by someone else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


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


class GrantReader(Protocol):
    async def active_grants(self, principal_id: str) -> tuple[Grant, ...]:
        """Those in force by the database's clock, the longest first.

        Raises AuditUnavailable where the database is out.
        """
        ...
