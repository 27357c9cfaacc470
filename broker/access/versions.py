"""Stored versions of the access policy, and the verbs of their store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.audit.record import Event


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The exact text that was applied. `number` counts from 1."""

    number: int
    text: str
    sha256: str
    applied_at: datetime
    applied_by: str


class AccessStore(Protocol):
    async def current_policy(self) -> StoredPolicy | None: ...

    async def apply_policy(
        self,
        text: str,
        *,
        expected: int,
        user_names: frozenset[str],
        applied_by: str,
        event: Event,
    ) -> StoredPolicy:
        """Store the next version in one transaction, with its event (`detail.version` is filled
        in by the store) and the bindings of its `user:` names (`provider/e-mail`): those whose
        person was seen are bound to the principal with that provider and verified e-mail, the
        others are pending until a first login. A binding once made is never moved.

        Raises PreconditionFailed unless the newest version is `expected` (0: none yet).
        """
        ...

    async def pending_user_names(self) -> frozenset[str]: ...
