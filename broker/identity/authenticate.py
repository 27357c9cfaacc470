"""From what a caller presents to who that is.

Owns: reading the Authorization header and refusing tokens of the wrong kind.
Does not own: the look at the database (`sessions.SessionStore`), cookies
(`web`), what the caller may then do (`principal.AuthContext`, `access`).
"""

from __future__ import annotations

import re

from broker.errors import Unauthenticated
from broker.identity.sessions import Authenticated, SessionStore, Token, TokenKind

# Where each kind of token reaches. Kinds never overlap: a stolen CI token opens no page, and a
# stolen cookie drives no API.
API = frozenset({TokenKind.ACCESS})
BROWSER = frozenset({TokenKind.BROWSER})
CONTAINER = frozenset({TokenKind.CONTAINER, TokenKind.JOB})
CREDENTIALS = frozenset({TokenKind.ACCESS, TokenKind.JOB})
# A policy repository's CI applies what was merged: the one place where a job administers.
ACCESS_POLICY = frozenset({TokenKind.ACCESS, TokenKind.JOB})

_BEARER = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)


def bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750 section 2.1), else None."""
    match = _BEARER.fullmatch(authorization or "")
    return match[1] if match else None


async def authenticate(
    store: SessionStore, presented: str | None, accept: frozenset[TokenKind]
) -> Authenticated:
    """Who is behind the token text `presented`.

    Raises Unauthenticated where it is absent, malformed, of a kind not in `accept`, or not
    live; all of these look the same to the caller. Raises Suspended for a suspended principal.
    """
    token = Token.parse(presented) if presented else None
    if token is None or token.kind not in accept:
        raise Unauthenticated
    authenticated = await store.authenticate(token)
    if authenticated is None:
        raise Unauthenticated
    return authenticated
