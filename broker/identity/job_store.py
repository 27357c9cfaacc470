"""Letting a CI job in, once: the values and verbs of its store.

Owns: what must be one transaction. Does not own: whether the token is good
(`ci_token`) and whose job it is (`trust`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.audit.record import Appended, Event
from broker.identity.sessions import Token
from broker.identity.trust import Workload


@dataclass(frozen=True, slots=True)
class Exchange:
    """A verified token that asks to be let in, once. `token_key` (32 bytes) is remembered until
    `token_forgotten_at`; `lifetime` in seconds is the job's. `event` is its ci.exchanged, to
    which the store adds `detail.reused`.
    """

    token_key: bytes
    token_forgotten_at: datetime
    reuse: bool
    principal_id: str
    login_session_id: str
    lifetime: int
    job: str
    job_token: Token | None = field(repr=False)
    ip: str | None
    user_agent: str | None
    event: Event


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Let in, recorded, and known to the database from `began_at` until `ends_at`."""

    began_at: datetime
    ends_at: datetime
    reused: bool
    appended: Appended


@dataclass(frozen=True, slots=True)
class NotExchanged:
    """Nothing was changed or recorded. `reason` is replayed or suspended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The database's clock, and the number of its newest access policy (0: none yet)."""

    now: datetime
    access_version: int


class JobStore(Protocol):
    """Every method raises AuditUnavailable where the database is out."""

    async def standing(self) -> Standing: ...

    async def workload_id(self, workload: Workload) -> str:
        """The principal id of this entry: random, and the same for ever for its name and issuer."""
        ...


class TokenIds(Protocol):
    async def claim_token_id(self, exchange: Exchange) -> Exchanged | NotExchanged:
        """In one transaction: use the token up (with `reuse`, note that it was used before), open
        the job's session and store its token, record the event. Of many at once, over all
        replicas, one succeeds. Raises AuditUnavailable.
        """
        ...
