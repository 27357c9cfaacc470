"""Signers for tests, from fixed seeds."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.note import VerifierKey

ORIGIN = "broker.example.com"


class TestSigner:
    """Implements `note.Signer`."""

    __test__ = False

    def __init__(self, name: str = ORIGIN, seed: int = 1) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key = VerifierKey(name, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)
