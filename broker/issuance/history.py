"""Reading what was issued."""

from __future__ import annotations

from typing import Protocol

from broker.issuance.journal import Issuance

MAX_PAGE = 1000


class IssuanceReader(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def issuances(
        self, principal_id: str | None, *, after: str | None = None, limit: int = 100
    ) -> tuple[Issuance, ...]:
        """Newest first: those of one principal, or of all with None.

        `after` is the id of the last one of the page before; an id that is not on this list
        gives an empty page. `limit` is at most MAX_PAGE.
        """
        ...

    async def issuance(self, issuance_id: str) -> Issuance | None: ...
