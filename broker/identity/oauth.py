"""The broker as an OAuth 2.0 server for its own clients (RFC 6749, 7636, 8252, 7009).

Owns: the known clients, what an authorization request may say, PKCE, and the
verbs that create and redeem codes. Does not own: HTTP and the consent page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from broker.audit.record import Event
from broker.identity.sessions import LoginSession, Token

CLI_CLIENT_ID = "broker-cli"
CODE_LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class CodeGrant:
    """What an authorization code stands for; the code itself is stored as SHA-256."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    login_session_id: str  # the browser session whose person clicked


class Redeemed(StrEnum):
    OK = "ok"
    REFUSED = "refused"  # unknown, expired, or not this client's, redirect's or verifier's
    REUSED = "reused"  # the session made from it was ended (RFC 6749 section 4.1.2)


class CodeStore(Protocol):
    async def create_code(self, code_hash: bytes, grant: CodeGrant) -> None: ...

    async def redeem_code(
        self,
        code_hash: bytes,
        *,
        client_id: str,
        redirect_uri: str,
        code_challenge: str,
        access: Token,
        refresh: Token,
        ip: str | None,
        user_agent: str | None,
        event: Event,
        reuse_event: Event,
    ) -> tuple[Redeemed, LoginSession | None]:
        """One transaction, one winner: spend the code, open a `cli` login session that inherits
        the browser session's auth_time, mfa_time and expires_at, store both tokens, append.

        A wrong client, redirect or challenge spends the code too. A code whose browser session
        ended meanwhile is REFUSED.
        """
        ...
