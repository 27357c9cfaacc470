"""A CI job that was let in: what is kept of it, and the verbs of its store.

Owns: the job's own record of verified facts, which a job token stands for, and
exchanging a CI token for it once. Does not own: verifying the token
(`ci_token`) and whose job it is (`trust`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.audit.record import Appended, Event
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.identity.sessions import Token
from broker.identity.trust import Scalar, Workload, job_handle, placeholders

PROVIDER = "ci"
# Workloads' principals have an issuer that no OpenID provider can have, so that nobody's `sub`
# can ever be taken for an entry's name.
WORKLOAD_ISSUER = "urn:broker:workload"
METHODS = frozenset({"ci"})


@dataclass(frozen=True, slots=True)
class Job:
    """What one verified token said: the entry it was let in by, and its facts."""

    workload: str
    issuer: str
    audience: str
    facts: Mapping[str, Scalar]

    def as_text(self) -> str:
        return json.dumps(
            {
                "workload": self.workload,
                "issuer": self.issuer,
                "audience": self.audience,
                "facts": dict(self.facts),
            },
            separators=(",", ":"),
            sort_keys=True,
        )

    @classmethod
    def from_text(cls, text: str) -> Job:
        """`text` is the store's own, from `as_text`."""
        stored = json.loads(text)
        return cls(stored["workload"], stored["issuer"], stored["audience"], stored["facts"])

    def principal(self, principal_id: str, workload: Workload) -> Principal:
        return Principal(
            id=principal_id,
            kind=PrincipalKind.WORKLOAD,
            issuer=WORKLOAD_ISSUER,
            subject=workload.subject,
            provider=PROVIDER,
            handle=job_handle(self.workload, self.facts, workload.preset),
            claims=placeholders(self.facts, workload.preset),
        )


def job_context(
    principal: Principal, *, login_session_id: str, began_at: datetime, ends_at: datetime
) -> AuthContext:
    """A job shows no second factor, and is never asked for one."""
    return AuthContext(
        principal=principal,
        login_session_id=login_session_id,
        auth_time=began_at,
        mfa_time=None,
        login_session_expires_at=ends_at,
        methods=METHODS,
    )


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
