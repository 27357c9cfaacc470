"""Cosignatures: a witness's word that it saw a log's head, and only consistent ones before it.

Owns C2SP tlog-cosignature, `cosignature/v1` with Ed25519: the witness's verifier
key, and the check of its line on a checkpoint's note. Does not own how a witness is
asked (`adapters/witness`).

A witness signs `cosignature/v1`, `time SECONDS` and the checkpoint's text, so that
what it signs is no note of any log. Its line in the note holds the time (64 bits)
before the signature. A key is written `NAME+KEYID+BASE64` like a log's, with 0x04
for 0x01.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from broker.audit import ed25519
from broker.audit.note import BadNote, Note, VerifierKey

_COSIGNER = b"\x04"
_TIME_BYTES = 8
_LATEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """The public half of a witness's key, under the witness's name."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        VerifierKey(self.name, self.public_key)  # the same names and lengths are refused

    @classmethod
    def parse(cls, vkey: str) -> CosignerKey:
        """From `NAME+KEYID+BASE64`. Raises BadNote."""
        name, _, rest = vkey.partition("+")
        _, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            data = b""
        if data[:1] != _COSIGNER:
            raise BadNote("not the verifier key of a witness (NAME+KEYID+BASE64, type 0x04)")
        parsed = cls(name, data[1:])
        if str(parsed) != vkey:  # which holds the key id too
            raise BadNote("the key id does not belong to the name and key: mistyped?")
        return parsed

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || LF || 0x04 || public key)[:4]."""
        return sha256(self.name.encode("utf-8") + b"\n" + _COSIGNER + self.public_key).digest()[:4]

    def __str__(self) -> str:
        encoded = base64.b64encode(_COSIGNER + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A good one: who saw the checkpoint and when (seconds since the epoch); `line` is as it
    stands in the note, its line feed included.
    """

    key: CosignerKey
    seconds: int
    line: str


def message(text: str, seconds: int) -> bytes:
    """What a witness signs of a checkpoint's text at that time."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosigned_by(note: str, key: CosignerKey) -> Cosignature:
    """The witness's first cosignature in the note. Raises BadNote where there is none, and where
    any of its is false.
    """
    parsed = Note.parse(note)
    found: Cosignature | None = None
    for one in parsed.signatures:
        if (one.name, one.key_id) != (key.name, key.key_id):
            continue
        seconds = int.from_bytes(one.signature[:_TIME_BYTES], "big")
        signature = one.signature[_TIME_BYTES:]
        signed = message(parsed.text, seconds)
        if seconds > _LATEST or not ed25519.verify(key.public_key, signed, signature):
            raise BadNote(f"the cosignature of {one.name} ({one.key_id.hex()}) is false")
        blob = base64.b64encode(one.key_id + one.signature).decode("ascii")
        found = found or Cosignature(key, seconds, f"— {one.name} {blob}\n")
    if found is None:
        raise BadNote(f"the witness {key.name} ({key.key_id.hex()}) has not cosigned it")
    return found


def require_cosigned(notes: Iterable[str], witnesses: Sequence[CosignerKey]) -> None:
    """Raises BadNote unless every witness has cosigned every note."""
    for note in notes:
        for witness in witnesses:
            cosigned_by(note, witness)
