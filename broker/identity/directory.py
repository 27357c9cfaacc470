"""Who is known here, for those who administer people: lists, login sessions, ending them.

Owns the values and the store's verbs. Does not own: who may ask (`web`), factors
(`totp`), suspending (`issuance.revoke`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.audit.record import Event
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.sessions import LoginSession

MAX_DIRECTORY_PAGE = 1000


@dataclass(frozen=True, slots=True)
class KnownPrincipal:
    """A principal as an admin sees it. Groups, handle and address are of its last login;
    `live_sessions` counts the login sessions that are not over.
    """

    principal: Principal
    email_verified: bool
    pinned_admin: bool
    has_confirmed_factor: bool
    live_sessions: int
    created_at: datetime
    last_login_at: datetime | None
    suspended_reason: str | None


class Directory(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def known_principal(self, principal_id: str) -> KnownPrincipal | None: ...

    async def known_principals(
        self,
        *,
        kind: PrincipalKind,
        group: str | None = None,
        text: str | None = None,
        suspended: bool | None = None,
        has_confirmed_factor: bool | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[KnownPrincipal, ...]:
        """By handle. `text` is part of the handle or address, in any case, or the whole id.

        `after` is the id of the last one of the page before; an unknown one gives an empty
        page. `limit` is at most MAX_DIRECTORY_PAGE.
        """
        ...

    async def live_sessions(
        self, principal_id: str, *, after: str | None = None, limit: int = 100
    ) -> tuple[LoginSession, ...]:
        """Those that are not over, newest first. `after` as above."""
        ...

    async def end_login_sessions(
        self,
        principal_id: str,
        event: Event,
        *,
        only: str | None = None,
        but: str | None = None,
    ) -> tuple[str, ...]:
        """End the principal's sessions, `only` this one or all `but` one, with their tokens; the
        ids of those that ended.

        `event` is session.revoked; the store adds the principal to its subject and the ids to
        its detail. Nothing is recorded where none was live.
        """
        ...
