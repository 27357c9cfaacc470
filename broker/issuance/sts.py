"""What the broker asks of STS, and what comes back.

Owns the values and the Protocol. The limits are AWS's (AssumeRole, API
reference): they are checked by `scope` before a value of these types exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.errors import BrokerError


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The hop whose credentials a call is made with: its role, and the source identity that its
    session carries on.
    """

    role_arn: str
    source_identity: str


@dataclass(frozen=True, slots=True)
class AssumeRole:
    """The exact input of one sts:AssumeRole call. `after` is None for what the broker's own
    credentials ask; otherwise `source_identity` is None, for the session carries one already.
    """

    partition: str
    region: str
    role_arn: str
    role_session_name: str
    duration_seconds: int
    policy: str | None
    policy_arns: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    transitive_tag_keys: tuple[str, ...]
    source_identity: str | None
    external_id: str | None = field(repr=False, default=None)
    after: Predecessor | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The secret triple. Never stored, logged or shown by repr."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: datetime

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id}, expires {self.expiration:%FT%TZ})"


@dataclass(frozen=True, slots=True)
class Minted:
    """STS's answer, already checked to be about the role and session that were asked for."""

    credentials: Credentials
    assumed_role_arn: str
    assumed_role_id: str  # AROA…:session-name
    request_id: str | None
    packed_policy_percent: int | None  # SessionTokenUtilization, or PackedPolicySize before it


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """Who the broker's own credentials belong to. `account` is 12 digits. `answered_at` is AWS's
    clock at the time, in whole seconds.
    """

    account: str
    arn: str
    answered_at: datetime | None = field(default=None, compare=False)

    @property
    def is_root(self) -> bool:
        return self.arn.endswith(":root")

    @property
    def is_role_session(self) -> bool:
        return ":assumed-role/" in self.arn or ":federated-user/" in self.arn

    @property
    def is_user(self) -> bool:
        return ":user/" in self.arn


class StsFailure(Exception):
    """An AssumeRole that gave no credentials, with what the log should say of it.

    `outcome_unknown`: the line broke after the request was sent, or the answer was a 200 that is
    not to be trusted, so STS may have minted.
    `alarm`: the answer was odd (another role's, malformed, already expired), not a refusal.
    """

    def __init__(
        self,
        error: BrokerError,
        *,
        sts_code: str | None = None,
        sts_message: str | None = None,
        request_id: str | None = None,
        outcome_unknown: bool = False,
        alarm: bool = False,
    ) -> None:
        super().__init__(sts_code or error.code)
        self.error = error
        self.sts_code = sts_code
        self.sts_message = sts_message
        self.request_id = request_id
        self.outcome_unknown = outcome_unknown
        self.alarm = alarm


class Sts(Protocol):
    def chained(self, partition: str) -> bool:
        """Whether the base credentials are a role session's: STS then gives 3600 s at most."""
        ...

    async def identify(self, partition: str) -> CallerIdentity:
        """Whose the base credentials are, asked of AWS now. Raises StsFailure."""
        ...

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        """With the broker's own credentials, or with a hop's. Raises StsFailure."""
        ...
