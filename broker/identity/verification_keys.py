"""An issuer's public keys: which ones may verify, and which one does (RFC 7517).

Owns: reading a JWK Set defensively, and choosing one key for a token's header.
Does not own: fetching and caching the set (`adapters/issuer_documents`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

# What a provider may sign with. No HMAC: with a shared secret the relying party could forge,
# and a verifier that takes both can be made to use a public key as the secret. No "none".
KEY_TYPE_OF_ALGORITHM: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}

_MAX_KEYS = 100
_MAX_KEY_ID = 512
# NIST SP 800-131A's least, and what an 8192-bit key costs to verify with is the most we pay.
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class NoSuitableKey(Exception):
    """No key of the set, or more than one, fits the token's header. `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One usable public key. `curve` is None for RSA; `algorithm` what the set limits it to."""

    key_id: str | None
    key_type: str
    curve: str | None
    algorithm: str | None
    key: Key

    def fits(self, algorithm: str) -> bool:
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        return KEY_TYPE_OF_ALGORITHM.get(algorithm) == (self.key_type, self.curve)

    def verify(self, signing_input: bytes, signature: bytes, algorithm: str) -> bool:
        """Whether `signature` is this key's, by `algorithm`, which must fit."""
        if not self.fits(algorithm):
            return False
        model = JWSRegistry.algorithms[algorithm]
        try:
            model.check_key(self.key)
            return model.verify(signing_input, signature, self.key)
        except (JoseError, ValueError):
            return False


@dataclass(frozen=True, slots=True)
class VerificationKeys:
    """The usable keys of one issuer's set. May be empty."""

    keys: tuple[VerificationKey, ...]

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> VerificationKeys:
        """The keys of a JWK Set that may verify signatures; others are left out, as RFC 7517
        section 5 asks: unknown types, encryption keys, symmetric or published private keys,
        RSA keys outside 2048 to 8192 bits, malformed ones.

        Raises NoSuitableKey where `keys` is not a list, or a list of over 100.
        """
        entries = document.get("keys")
        if not isinstance(entries, list):
            raise NoSuitableKey("the key set has no list of keys")
        if len(entries) > _MAX_KEYS:
            raise NoSuitableKey(f"the key set has over {_MAX_KEYS} keys")
        parsed = (_parse_key(entry) for entry in entries if isinstance(entry, dict))
        return cls(tuple(key for key in parsed if key is not None))

    def select(self, key_id: str | None, algorithm: str) -> VerificationKey:
        """The one key for a header's `kid` and `alg`.

        Without a kid the choice must be unambiguous. Raises NoSuitableKey.
        """
        candidates = [key for key in self.keys if key.fits(algorithm)]
        if key_id is not None:
            candidates = [key for key in candidates if key.key_id == key_id]
        if not candidates:
            raise NoSuitableKey("no key of the issuer fits the token's header")
        if len(candidates) > 1:
            raise NoSuitableKey("several keys of the issuer fit the token's header")
        return candidates[0]


def _parse_key(entry: Mapping[str, object]) -> VerificationKey | None:
    if _PRIVATE_MEMBERS & entry.keys() or not _may_verify(entry):
        return None
    key_id, algorithm = entry.get("kid"), entry.get("alg")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= _MAX_KEY_ID):
        return None
    if algorithm is not None and not isinstance(algorithm, str):
        return None
    key_type = entry.get("kty")
    if not isinstance(key_type, str) or key_type not in _PUBLIC_MEMBERS:
        return None
    # The public numbers alone: certificate members say nothing here and are never followed.
    material = {name: entry.get(name) for name in _PUBLIC_MEMBERS[key_type]}
    if not all(isinstance(value, str) for value in material.values()):
        return None
    key = _import(key_type, {name: str(value) for name, value in material.items()})
    if key is None:
        return None
    curve = None if key_type == "RSA" else str(material["crv"])
    return VerificationKey(key_id, key_type, curve, algorithm, key)


def _may_verify(entry: Mapping[str, object]) -> bool:
    if entry.get("use", "sig") != "sig":
        return False
    operations = entry.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _import(key_type: str, material: dict[str, str]) -> Key | None:
    try:
        match key_type:
            case "RSA":
                # Measured first: importing a huge or a weak one costs time, or only warns.
                bits = int.from_bytes(_decode(material["n"]), "big").bit_length()
                if not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
                    return None
                return RSAKey.import_key({"kty": key_type, **material})
            case "EC":
                return ECKey.import_key({"kty": key_type, **material})
            case _:
                return OKPKey.import_key({"kty": key_type, **material})
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b""
