"""The checks on a CI job's OIDC token, apart from whose job it is.

Owns: every protocol claim by name, required or optional, the bound on a token's
life, and the key by which one token is used once. Pure: keys and `now` are
parameters. Does not own: the signature and what comes before it (`id_token`),
which jobs are meant (`trust`), fetching keys (`adapters/ci_issuers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from broker.identity.id_token import LEEWAY, TokenRejected, UnverifiedToken
from broker.identity.verification_keys import VerificationKey

# What an entry of the access policy may name; the token chooses among them alone.
ALGORITHMS = frozenset({"RS256", "ES256", "PS256"})

_LEEWAY = LEEWAY.total_seconds()
_MAX_ISSUER = 512
_MAX_AUDIENCE = 512
_MAX_TOKEN_ID = 512
_LATEST = 253402300799  # 9999-12-31T23:59:59Z, the last a datetime can hold


class KeysUnavailable(Exception):
    """The issuer's keys can't be had now. `reason` is for the record: no URL query, no body."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IssuerKeys(Protocol):
    """The public keys of configured issuers, fetched within limits."""

    async def key(self, issuer: str, key_id: str | None, algorithm: str) -> VerificationKey:
        """Raises KeysUnavailable, NoSuitableKey."""
        ...

    async def key_after_rotation(
        self, issuer: str, known: VerificationKey, algorithm: str
    ) -> VerificationKey | None:
        """Another key under the same id, where the issuer has changed it in place; else None.

        Raises KeysUnavailable, NoSuitableKey.
        """
        ...


@dataclass(frozen=True, slots=True, repr=False)
class CiToken:
    """A token that is its issuer's word and in force. `key` (32 bytes) names it for ever."""

    issuer: str
    audience: str
    claims: Mapping[str, object]
    key: bytes
    has_id: bool
    exp: int  # seconds since the epoch

    @property
    def forgotten_at(self) -> datetime:
        """From then on it is refused as expired, so that its use need not be remembered."""
        return datetime.fromtimestamp(self.exp, UTC) + LEEWAY


def unverified_issuer(token: UnverifiedToken) -> str:
    """The issuer that the token claims: good for looking it up among those configured, and for
    nothing else. Raises TokenRejected.
    """
    issuer = token.unverified_claims.get("iss")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= _MAX_ISSUER:
        raise TokenRejected("it names no issuer")
    return issuer


def check_ci_token(
    claims: Mapping[str, object],
    *,
    signing_input: bytes,
    issuer: str,
    lifetime: int,
    now: datetime,
) -> CiToken:
    """Every claim of the protocol. `claims` are verified (`UnverifiedToken.verify`), and
    `signing_input` is what was signed; `lifetime` in seconds is the longest that the issuer's
    tokens may live. Raises TokenRejected.
    """
    if claims.get("iss") != issuer:
        raise TokenRejected("it is from another issuer")
    seconds = now.timestamp()
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires <= seconds - _LEEWAY:
        raise TokenRejected("it has expired")
    if issued > seconds + _LEEWAY:
        raise TokenRejected("its iat lies in the future; compare the clocks")
    if "nbf" in claims and _seconds(claims, "nbf") > seconds + _LEEWAY:
        raise TokenRejected("its nbf lies in the future; compare the clocks")
    if not 0 < expires - issued <= lifetime + _LEEWAY:
        raise TokenRejected("it lives longer than this platform's tokens do")
    token_id = claims.get("jti")
    if "jti" in claims and not (isinstance(token_id, str) and 0 < len(token_id) <= _MAX_TOKEN_ID):
        raise TokenRejected("its jti is not a short string")
    return CiToken(
        issuer=issuer,
        audience=_audience(claims.get("aud")),
        claims=claims,
        key=_key(issuer, token_id, signing_input),
        has_id=token_id is not None,
        exp=expires,
    )


def token_sha256(unverified_token: str) -> str:
    """How records name a token."""
    return hashlib.sha256(unverified_token.encode("utf-8", "surrogatepass")).hexdigest()


def _audience(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise TokenRejected("it is for several audiences, or for none")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_AUDIENCE:
        raise TokenRejected("it names no audience")
    return value


def _seconds(claims: Mapping[str, object], name: str) -> int:
    """A NumericDate as an integer; bool is one to Python, fractions invite rounding games."""
    if name not in claims:
        raise TokenRejected(f"it has no {name}")
    value = claims[name]
    if type(value) is not int or not 0 <= value <= _LATEST:
        raise TokenRejected(f"its {name} is not a time in whole seconds")
    return value


def _key(issuer: str, token_id: object, signing_input: bytes) -> bytes:
    """By (issuer, jti). Without a jti by what was signed, and not by the whole token: an ECDSA
    signature has two spellings, and whoever copied the token could write the other.
    """
    if isinstance(token_id, str):
        kind, named = b"jti", token_id.encode("utf-8")
    else:
        kind, named = b"signed", signing_input
    of = issuer.encode("utf-8")
    # The length first: no two pairs of values join to the same bytes.
    return hashlib.sha256(b"%b:%d:%b:%b" % (kind, len(of), of, named)).digest()
