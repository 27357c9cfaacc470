"""The authenticated actor and what is known of how it was authenticated."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from broker.errors import MfaRequired, MfaStale

# A factor this young in the same login session counts as fresh (design: admin mutations).
FRESH = timedelta(minutes=5)

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


class PrincipalKind(StrEnum):
    PERSON = "person"
    WORKLOAD = "workload"


def new_principal_id(kind: PrincipalKind) -> str:
    """A random id, never re-used, that is also a legal STS SourceIdentity: `p-` and 16 base32."""
    prefix = "p" if kind is PrincipalKind.PERSON else "w"
    return f"{prefix}-{''.join(secrets.choice(_BASE32) for _ in range(16))}"


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or workload, keyed (issuer, subject); never by e-mail or handle.

    `groups` are qualified by provider (`corp/sre`). `claims` are the ID-token
    claims kept for `{{principal.claims.NAME}}` in templates: strings only.
    `user_names` are the `user:` names of the access policy bound to this
    principal (`corp/grace@example.com`): bound by the store, once, never by
    comparing e-mail addresses at decision time.
    """

    id: str
    kind: PrincipalKind
    issuer: str
    subject: str
    provider: str
    handle: str
    email: str | None = None
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, str] = field(default_factory=dict)
    user_names: frozenset[str] = frozenset()
    suspended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuthContext:
    """A principal within one login session, with the times its factors were shown."""

    principal: Principal
    login_session_id: str
    auth_time: datetime
    mfa_time: datetime | None
    login_session_expires_at: datetime
    methods: frozenset[str] = frozenset()

    @property
    def lacks_second_factor(self) -> bool:
        """A job has none to show: its token is all there is of it. Everybody else must."""
        return self.mfa_time is None and self.principal.kind is not PrincipalKind.WORKLOAD

    def require_second_factor(self) -> None:
        """Raises MfaRequired while the second factor is pending."""
        if self.lacks_second_factor:
            raise MfaRequired

    def require_fresh_factor(self, now: datetime, within: timedelta = FRESH) -> None:
        """Raises MfaRequired or MfaStale unless a factor was shown less than `within` ago.

        A job's token counts as one as long as the job lives: it is taken in few places
        (`authenticate.ACCESS_POLICY`).
        """
        if self.principal.kind is PrincipalKind.WORKLOAD:
            return
        if self.mfa_time is None:
            raise MfaRequired
        if now - self.mfa_time >= within:
            raise MfaStale(f"Verify your second factor: the last one is over {within} old.")
