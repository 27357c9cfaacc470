"""Login sessions and the opaque tokens that stand for them.

Owns: token kinds, lifetimes, what a login session is, and the verbs its store
must have. Does not own: how a person logs in (`login`), the OAuth grants that
make tokens for the CLI (`oauth`).

A token is a typed prefix and 256 random bits; the store keeps its SHA-256, so a
stolen database opens nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from broker.audit.record import Event
from broker.identity.job import Job
from broker.identity.principal import AuthContext

LOGIN_SESSION_LIFETIME = timedelta(hours=12)
ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
# A reply may be lost: the rotated-out refresh token stays good this long, or until its
# successor is used. Later use means that two parties hold the family, and ends it.
REFRESH_GRACE = timedelta(seconds=60)

# The client of sessions that a person approved for a machine elsewhere (`device`).
DEVICE_CLIENT = "device"

_TOKEN = re.compile(r"bk[abrcj]_[A-Za-z0-9_-]{43}", re.ASCII)


class TokenKind(StrEnum):
    """The prefix of a token says where it may be shown."""

    ACCESS = "bka"
    BROWSER = "bkb"
    REFRESH = "bkr"
    CONTAINER = "bkc"
    JOB = "bkj"


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A bearer token. The text is handed out once; `hash` (32 bytes) is what is stored."""

    kind: TokenKind
    text: str

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.text.encode("ascii")).digest()

    def __repr__(self) -> str:
        return f"Token({self.kind.value}_…)"

    @classmethod
    def new(cls, kind: TokenKind) -> Token:
        return cls(kind, f"{kind.value}_{secrets.token_urlsafe(32)}")

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """The token in `text`, or None where it does not have a token's exact shape."""
        if not _TOKEN.fullmatch(text):
            return None
        return cls(TokenKind(text[:3]), text)


def new_login_session_id() -> str:
    """Names a login session in records and lists; not a secret."""
    return f"ls-{secrets.token_hex(10)}"


@dataclass(frozen=True, slots=True)
class LoginSession:
    """One login of one principal through one client. Times are the database's, UTC."""

    id: str
    principal_id: str
    client: str  # "browser", "cli", "device" or "ci"
    auth_time: datetime
    mfa_time: datetime | None
    expires_at: datetime
    created_at: datetime
    ip: str | None
    user_agent: str | None
    may_enrol_until: datetime | None  # a fresh enrolment or recovery code was shown
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Authenticated:
    """What one look at the database says of a presented token, with the database's clock."""

    context: AuthContext
    token_kind: TokenKind
    token_hash: bytes
    role: str | None  # the one role of a container token
    has_confirmed_factor: bool
    pinned_admin: bool
    may_enrol_until: datetime | None
    access_version: int  # newest version of the access policy; 0 before the first
    now: datetime
    client: str  # of the login session, as in LoginSession
    job: Job | None = None  # of a job token: what let the job in
    has_grants: bool = False  # in force or to come

    @property
    def is_device(self) -> bool:
        """Whether a code approved this login from elsewhere: it may have been another's code."""
        return self.client == DEVICE_CLIENT


class Refreshed(StrEnum):
    ROTATED = "rotated"
    REUSED = "reused"  # the family was ended
    REFUSED = "refused"  # unknown, expired or revoked


class SessionStore(Protocol):
    async def authenticate(self, token: Token) -> Authenticated | None:
        """The live session behind a live token: unexpired, unrevoked, principal not suspended.

        Raises Suspended where only the suspension stands in the way.
        """
        ...

    async def end_login_session(self, login_session_id: str, event: Event) -> bool:
        """Revoke the session and its tokens; False where it was over already (no event then)."""
        ...

    async def rotate_refresh_token(
        self, presented: Token, refresh: Token, access: Token, event: Event, reuse_event: Event
    ) -> tuple[Refreshed, LoginSession | None]:
        """Redeem `presented` for the new pair in one transaction, by the rules of REFRESH_GRACE.

        `event` is session.refreshed, `reuse_event` session.revoked; the store puts the
        principal's id, kind and handle into their anonymous actor, and principal and login
        session into their subject.
        """
        ...

    async def revoke_token(self, token: Token, event: Event) -> None:
        """RFC 7009: a refresh or job token ends its login session; an access token ends itself.

        Nothing happens for a token that is not live. `event` (session.revoked) is filled in as
        in `rotate_refresh_token`.
        """
        ...
