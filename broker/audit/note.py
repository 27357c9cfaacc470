"""Signed notes, and the keys that sign them (C2SP signed-note, Ed25519 alone).

Owns the text form of a note and of a verifier key. Does not own what a note
says (`checkpoint`), nor private keys (`adapters/signing`).

    example.com/log                                  the text: one or more lines
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
                                                     an empty line
    — example.com/log Az3grlgtzPICa5OS8npVmf1M...     key name, base64(key id || signature)

A verifier key (vkey) is `NAME+KEYID+BASE64`, the key id as eight hex digits and
the base64 of 0x01 and the public key, as other tools for such logs write it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from broker.audit import ed25519

MAX_NOTE_BYTES = 64 * 1024
_MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class BadNote(ValueError):
    """A text that is no signed note, or is not signed by a key that is trusted. Says which."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a key that signs notes, under the name it signs with."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public_key) != ed25519.KEY_BYTES:
            raise BadNote("a key needs a name without spaces or `+`, and 32 bytes")

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """From `NAME+KEYID+BASE64`. Raises BadNote."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _unbase64(encoded)
        if key is None or key[:1] != _ED25519:
            raise BadNote("not the verifier key of an Ed25519 signer (NAME+KEYID+BASE64)")
        parsed = cls(name, key[1:])
        if parsed.key_id.hex() != key_id:
            raise BadNote("the key id does not belong to the name and key: mistyped?")
        return parsed

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || LF || 0x01 || public key)[:4]."""
        text = self.name.encode("utf-8") + b"\n" + _ED25519 + self.public_key
        return sha256(text).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = base64.b64encode(_ED25519 + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


class CannotSign(Exception):
    """The private half can't be used now: it is out of reach, refused, or past its time. Says
    which.
    """


class Signer(Protocol):
    """The private half. Implemented by `adapters/signing` and `adapters/kms_signing`."""

    @property
    def key(self) -> VerifierKey: ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes). Raises CannotSign; a key far away blocks."""
        ...


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note's text, the line feed at its end included, and signatures not yet looked at."""

    text: str
    signatures: tuple[_Signature, ...]

    @classmethod
    def parse(cls, data: str) -> Note:
        """Raises BadNote."""
        if len(data) > MAX_NOTE_BYTES or _CONTROL.search(data):
            raise BadNote("not a signed note: too long, or control characters in it")
        text, separator, rest = data.rpartition("\n\n")
        lines = rest.split("\n")
        if not separator or not text or lines.pop() != "" or not 0 < len(lines) <= _MAX_SIGNATURES:
            raise BadNote("not a signed note: no signatures after an empty line")
        return cls(f"{text}\n", tuple(_parse_signature(line) for line in lines))

    def signed_by(self, keys: Iterable[VerifierKey]) -> VerifierKey:
        """The first key of `keys` that signed it. Raises BadNote where none did, and where a
        signature of a known key is false, whatever else is there.
        """
        known = {(key.name, key.key_id): key for key in keys}
        found: VerifierKey | None = None
        for one in self.signatures:
            key = known.get((one.name, one.key_id))
            if key is None:
                continue
            if not ed25519.verify(key.public_key, self.text.encode("utf-8"), one.signature):
                raise BadNote(f"the signature of {one.name} ({one.key_id.hex()}) is false")
            found = found or key
        if found is None:
            raise BadNote("no key that is trusted has signed it")
        return found


def sign(text: str, *signers: Signer) -> str:
    """The signed note. `text` ends in a line feed."""
    message = text.encode("utf-8")
    lines = []
    for signer in signers:
        blob = base64.b64encode(signer.key.key_id + signer.sign(message)).decode("ascii")
        lines.append(f"— {signer.key.name} {blob}\n")
    return f"{text}\n{''.join(lines)}"


def _parse_signature(line: str) -> _Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    blob = _unbase64(encoded)
    if dash != "—" or not _NAME.fullmatch(name) or blob is None or len(blob) <= _KEY_ID_BYTES:
        raise BadNote("not a signed note: a signature line is malformed")
    return _Signature(name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])


def _unbase64(text: str) -> bytes | None:
    """None unless it is base64 in the one way it is written, padding included."""
    try:
        decoded = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return decoded if base64.b64encode(decoded).decode("ascii") == text else None
