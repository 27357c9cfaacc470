"""The checks on an ID token (OpenID Connect Core 1.0, section 3.1.3.7).

Owns: what is looked at before a signature, the signature, and every claim by
name: required, optional, or unchecked with its reason. Pure: keys and `now` are
parameters. Does not own: fetching keys (`adapters`), what a person is called or
which groups they are in (`profile`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from broker.identity.strict_json import MalformedJson, parse_object
from broker.identity.verification_keys import VerificationKey

MAX_TOKEN_BYTES = 16 * 1024
LEEWAY = timedelta(seconds=30)

_MAX_KEY_ID = 512
_MAX_AUDIENCES = 100
_MAX_SUBJECT = 255
# To the standard alphabet; what is only in that one becomes what is in none, and padding too.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_LATEST = 253402300799  # 9999-12-31T23:59:59Z, the last a datetime can hold
# Each would have the token bring its own key.
_FOREIGN_KEY_MEMBERS = frozenset({"jwk", "jku", "x5u", "x5c"})
_HALF_HASH: Mapping[str, Callable[[bytes], bytes]] = {
    "256": lambda data: hashlib.sha256(data).digest(),
    "384": lambda data: hashlib.sha384(data).digest(),
    "512": lambda data: hashlib.sha512(data).digest(),
}


class TokenRejected(Exception):
    """A token is not acceptable. `reason` is a constant sentence; it never quotes the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, repr=False)
class UnverifiedToken:
    """A token in three well-formed parts. Nothing it says may be believed before `verify`."""

    algorithm: str
    key_id: str | None
    unverified_claims: Mapping[str, object]
    signing_input: bytes
    signature: bytes

    @classmethod
    def parse(cls, unverified_token: object, algorithms: frozenset[str]) -> UnverifiedToken:
        """`algorithms` are the provider's as configured; the token chooses among them alone.

        Raises TokenRejected, and nothing else.
        """
        if not isinstance(unverified_token, str) or not unverified_token.isascii():
            raise TokenRejected("it is not ASCII text")
        if len(unverified_token) > MAX_TOKEN_BYTES:
            raise TokenRejected("it is over 16 KiB")
        token = unverified_token.encode("ascii")
        if token.count(b".") != 2:
            raise TokenRejected("it does not have three parts")
        signing_input, _, signature = token.rpartition(b".")
        header, _, claims = signing_input.partition(b".")
        algorithm, key_id = _read_header(header, algorithms)
        return cls(
            algorithm,
            key_id,
            _json(_base64url(claims), "claims"),
            signing_input,
            _base64url(signature),
        )

    def verify(self, key: VerificationKey) -> Mapping[str, object]:
        """The claims, now the issuer's word. Raises TokenRejected for another's signature."""
        if not key.verify(self.signing_input, self.signature, self.algorithm):
            raise TokenRejected("its signature is not the issuer's")
        return self.unverified_claims


@dataclass(frozen=True, slots=True)
class Expected:
    """What the claims of one login must match."""

    issuer: str
    client_id: str
    now: datetime
    algorithm: str  # the token's, for at_hash
    nonce: str = field(repr=False)
    access_token: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class IdTokenClaims:
    """Claims that passed every check. `all` has the unchecked ones too, as parsed JSON."""

    subject: str
    auth_time: datetime | None
    all: Mapping[str, object] = field(repr=False)


def check_claims(claims: Mapping[str, object], expected: Expected) -> IdTokenClaims:
    """Check verified claims by the tables at the end of this module. Raises TokenRejected."""
    for name, check in _REQUIRED.items():
        if name not in claims:
            raise TokenRejected(f"it has no {name}")
        check(claims[name], claims, expected)
    for name, check in _OPTIONAL.items():
        if name in claims:
            check(claims[name], claims, expected)
    auth_time = claims.get("auth_time")
    return IdTokenClaims(
        subject=str(claims["sub"]),
        auth_time=(
            datetime.fromtimestamp(auth_time, UTC) if isinstance(auth_time, int | float) else None
        ),
        all=claims,
    )


@lru_cache(maxsize=256)
def _read_header(part: bytes, algorithms: frozenset[str]) -> tuple[str, str | None]:
    """Of all tokens of one key the header is the same. Refusals are not remembered."""
    return _check_header(_json(_base64url(part), "header"), algorithms)


def _check_header(
    header: Mapping[str, object], algorithms: frozenset[str]
) -> tuple[str, str | None]:
    if _FOREIGN_KEY_MEMBERS & header.keys():
        raise TokenRejected("its header brings a key of its own")
    if "crit" in header or "b64" in header:
        # No extension is understood here, so each critical one must be refused (RFC 7515,
        # section 4.1.11); b64 (RFC 7797) would change what is signed.
        raise TokenRejected("its header has critical extensions")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenRejected("its algorithm is not one configured for the provider")
    key_id = header.get("kid")
    if key_id is None and "kid" not in header:
        return algorithm, None
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_KEY_ID:
        raise TokenRejected("its key id is not a short string")
    return algorithm, key_id


def _base64url(part: bytes) -> bytes:
    """Strict and canonical (RFC 7515 section 2): of each value, exactly one spelling."""
    if not part:
        raise TokenRejected("a part is empty")
    encoded = part.translate(_TO_STANDARD) + b"=" * (-len(part) % 4)
    try:
        decoded = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise TokenRejected("a part is not base64url") from None
    # Strict mode lets the bits pass that the last character has beyond the value's.
    tail = len(decoded) % 3
    if tail and binascii.b2a_base64(decoded[-tail:], newline=False) != encoded[-4:]:
        raise TokenRejected("a part is not canonical base64url")
    return decoded


def _json(document: bytes, part: str) -> Mapping[str, object]:
    try:
        return parse_object(document)
    except MalformedJson as error:
        raise TokenRejected(f"its {part} is malformed: {error}") from None


def _check_iss(value: object, _: Mapping[str, object], expected: Expected) -> None:
    if value != expected.issuer:
        raise TokenRejected("it is from another issuer")


def _check_aud(value: object, claims: Mapping[str, object], expected: Expected) -> None:
    audiences = value if isinstance(value, list) else [value]
    if not 0 < len(audiences) <= _MAX_AUDIENCES or not all(
        isinstance(audience, str) for audience in audiences
    ):
        raise TokenRejected("its audience is malformed")
    if expected.client_id not in audiences:
        raise TokenRejected("it is for another client")
    if len(audiences) > 1 and "azp" not in claims:
        raise TokenRejected("it has several audiences and does not say which one asked")


def _check_azp(value: object, _: Mapping[str, object], expected: Expected) -> None:
    if value != expected.client_id:
        raise TokenRejected("another client asked for it")


def _check_sub(value: object, _: Mapping[str, object], __: Expected) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_SUBJECT:
        raise TokenRejected("its subject is not a string of 1 to 255 characters")
    if not (value.isascii() and value.isprintable()):
        raise TokenRejected("its subject is not printable ASCII")


def _check_exp(value: object, _: Mapping[str, object], expected: Expected) -> None:
    if _seconds(value, "exp") <= (expected.now - LEEWAY).timestamp():
        raise TokenRejected("it has expired")


def _check_not_later(name: str) -> Check:
    def check(value: object, _: Mapping[str, object], expected: Expected) -> None:
        if _seconds(value, name) > (expected.now + LEEWAY).timestamp():
            raise TokenRejected(f"its {name} lies in the future; compare the clocks")

    return check


def _check_auth_time(value: object, _: Mapping[str, object], expected: Expected) -> None:
    # Some providers write fractions here, though not in the other times.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise TokenRejected("its auth_time is not a time")
    if value > (expected.now + LEEWAY).timestamp():
        raise TokenRejected("its auth_time lies in the future; compare the clocks")


def _check_nonce(value: object, _: Mapping[str, object], expected: Expected) -> None:
    presented = value.encode("utf-8") if isinstance(value, str) else b""
    if not hmac.compare_digest(presented, expected.nonce.encode("utf-8")):
        raise TokenRejected("its nonce is not this login's")


def _check_at_hash(value: object, _: Mapping[str, object], expected: Expected) -> None:
    """OpenID Connect Core, section 3.1.3.6: the left half of the access token's hash."""
    if expected.access_token is None:
        return
    # Ed25519 hashes with SHA-512.
    digest = _HALF_HASH.get(expected.algorithm[-3:], _HALF_HASH["512"])
    hashed = digest(expected.access_token.encode("utf-8", "surrogatepass"))
    half = base64.urlsafe_b64encode(hashed[: len(hashed) // 2]).rstrip(b"=")
    presented = value.encode("utf-8") if isinstance(value, str) else b""
    if not hmac.compare_digest(presented, half):
        raise TokenRejected("its at_hash is another access token's")


def _seconds(value: object, name: str) -> int:
    """A NumericDate as an integer; bool is one to Python, fractions invite rounding games."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LATEST:
        raise TokenRejected(f"its {name} is not a time in whole seconds")
    return value


Check = Callable[[object, Mapping[str, object], Expected], None]

_REQUIRED: Mapping[str, Check] = {
    "iss": _check_iss,
    "aud": _check_aud,
    "exp": _check_exp,
    "iat": _check_not_later("iat"),
    "nonce": _check_nonce,
    "sub": _check_sub,
}
_OPTIONAL: Mapping[str, Check] = {
    "nbf": _check_not_later("nbf"),
    "azp": _check_azp,
    "at_hash": _check_at_hash,
    "auth_time": _check_auth_time,
}
UNCHECKED: Mapping[str, str] = {
    "acr": "the broker has a second factor of its own and asks for no class",
    "amr": "as acr",
    "c_hash": "the code came by the token endpoint's client, not through the front channel",
    "s_hash": "as c_hash",
    "jti": "the nonce makes the token single-use",
    "sid": "the broker's login sessions are its own",
    "session_state": "as sid",
}
# Members of the protocol, as opposed to facts about the person.
PROTOCOL_CLAIMS = frozenset({*_REQUIRED, *_OPTIONAL, *UNCHECKED})
