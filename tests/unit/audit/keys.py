"""Signers for tests, from fixed seeds."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.cosignature import CosignerKey, message
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


class TestWitness:
    """A witness's key, and the lines that it gives."""

    __test__ = False

    def __init__(self, name: str, seed: int) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key = CosignerKey(name, self._private.public_key().public_bytes_raw())

    def cosign(
        self,
        text: str,
        seconds: int,
        *,
        written: int | None = None,
        as_of: TestWitness | None = None,
        cut: int = 0,
    ) -> str:
        """Its line for a checkpoint's text. `written`: the time that the line claims; `as_of`:
        whose key it claims to be of; `cut`: bytes missing at the end.
        """
        key = self.key if as_of is None else as_of.key
        signature = self._private.sign(message(text, seconds))
        claimed = (seconds if written is None else written).to_bytes(8, "big")
        blob = key.key_id + claimed + signature[: 64 - cut]
        return f"— {key.name} {base64.b64encode(blob).decode()}\n"
