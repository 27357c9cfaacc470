"""A CI job that was let in: what is kept of it.

Owns: the job's own record of verified facts, which a job token stands for, and
who it is to the rest of the broker. Does not own: verifying its token
(`ci_token`), whose job it is (`trust`), letting it in once (`job_store`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.identity.principal import AuthContext, Principal, PrincipalKind
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
