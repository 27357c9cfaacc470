"""AWS KMS: the few calls that the broker's keys need, on one key.

Owns the client with its time-outs, and that an answer is about the key that was
asked. Does not own what the keys are for (`kms_signing`, `kms_sealing`).

Every method blocks: call it in a thread. Credentials are found as botocore finds
them, or by the profile that the settings give for the key's partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broker.adapters.key_place import KmsReference

DATA_KEY_BYTES = 32
_ED25519 = "ED25519_SHA_512"
# Sign takes messages of up to 4096 bytes as they are; what is signed here is far below.
_MAX_MESSAGE = 4096


class KmsFault(Exception):
    """KMS refused, can't be reached, or answered what can't be used. Says which, and for which
    key; never holds key material.
    """


@dataclass(frozen=True, slots=True)
class KmsKey:
    """One key in KMS. `open` makes the client and asks nothing yet."""

    reference: KmsReference
    _client: Any = field(repr=False)

    @classmethod
    def open(cls, reference: KmsReference, *, profile: str | None = None) -> KmsKey:
        """Raises KmsFault where the profile is not there."""
        config = Config(
            connect_timeout=3,
            read_timeout=5,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        with _as_fault("client", reference.arn):
            session = boto3.session.Session(profile_name=profile, region_name=reference.region)
            return cls(reference, session.client("kms", config=config))

    # --- Signing -------------------------------------------------------------------------

    def public_key(self) -> bytes:
        """The Ed25519 public key (32 bytes). Raises KmsFault for a key of another kind."""
        answer = self._ask("GetPublicKey", {})
        spec, usage = answer.get("KeySpec"), answer.get("KeyUsage")
        if spec != "ECC_NIST_EDWARDS25519" or usage != "SIGN_VERIFY":
            raise self._fault(
                "GetPublicKey",
                f"it is a key of spec {spec} for {usage}; the log needs one made with "
                "--key-spec ECC_NIST_EDWARDS25519 --key-usage SIGN_VERIFY",
            )
        try:
            key = load_der_public_key(answer["PublicKey"])
        except (ValueError, KeyError, TypeError, UnsupportedAlgorithm):
            raise self._fault("GetPublicKey", "its public key does not read") from None
        if not isinstance(key, Ed25519PublicKey):
            raise self._fault("GetPublicKey", "its public key is not Ed25519")
        return key.public_bytes_raw()

    def sign(self, message: bytes, public_key: bytes) -> bytes:
        """The Ed25519 signature over `message` (RFC 8032, not prehashed), checked with
        `public_key` before it is returned. Raises KmsFault.
        """
        if len(message) > _MAX_MESSAGE:
            raise self._fault("Sign", f"what is to be signed is over {_MAX_MESSAGE} bytes")
        answer = self._ask(
            "Sign", {"Message": message, "MessageType": "RAW", "SigningAlgorithm": _ED25519}
        )
        signature: bytes = answer.get("Signature", b"")
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        except (InvalidSignature, ValueError, TypeError):
            raise self._fault("Sign", "the signature is not by the key that it should be") from None
        return signature

    # --- Sealing -------------------------------------------------------------------------

    def generate_data_key(self, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """A new data key of 32 bytes: in the clear, and wrapped. Raises KmsFault."""
        answer = self._ask(
            "GenerateDataKey", {"KeySpec": "AES_256", "EncryptionContext": dict(context)}
        )
        return self._data_key("GenerateDataKey", answer), self._wrapped("GenerateDataKey", answer)

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """An existing data key, wrapped. Raises KmsFault."""
        arguments = {"Plaintext": data_key, "EncryptionContext": dict(context)}
        return self._wrapped("Encrypt", self._ask("Encrypt", arguments))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key of 32 bytes. Raises KmsFault."""
        arguments = {"CiphertextBlob": wrapped, "EncryptionContext": dict(context)}
        return self._data_key("Decrypt", self._ask("Decrypt", arguments))

    def _data_key(self, operation: str, answer: Mapping[str, Any]) -> bytes:
        key = answer.get("Plaintext")
        if not isinstance(key, bytes) or len(key) != DATA_KEY_BYTES:
            raise self._fault(operation, f"it gave no data key of {DATA_KEY_BYTES} bytes")
        return key

    def _wrapped(self, operation: str, answer: Mapping[str, Any]) -> bytes:
        wrapped = answer.get("CiphertextBlob")
        if not isinstance(wrapped, bytes) or not 0 < len(wrapped) <= 6144:
            raise self._fault(operation, "it gave no wrapped key")
        return wrapped

    # --- Asking --------------------------------------------------------------------------

    def _ask(self, operation: str, arguments: Mapping[str, object]) -> Mapping[str, Any]:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        with _as_fault(operation, self.reference.arn):
            answer: dict[str, Any] = getattr(self._client, method)(
                KeyId=self.reference.arn, **arguments
            )
        if answer.get("KeyId") != self.reference.arn:
            raise self._fault(operation, f"the answer is of another key ({answer.get('KeyId')})")
        return answer

    def _fault(self, operation: str, what: str) -> KmsFault:
        return KmsFault(f"KMS {operation} on {self.reference.arn}: {what}")


@contextmanager
def _as_fault(operation: str, arn: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as fault:
        raise KmsFault(f"KMS {operation} on {arn}: {fault}") from fault
