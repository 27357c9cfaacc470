"""The key that signs the log, in a file of mode 0600, with the history of its predecessors.

Owns the file's format, its rotation, and signing. Does not own what is signed
(`broker.audit.checkpoint`), nor how a key file is written (`key_file`).

The file is one JSON object:

    {"version": 1, "origin": "broker.example.com", "seed": base64 of 32 bytes,
     "keys": [VKEY, ...], "successions": [SIGNED NOTE, ...]}

`keys` are the log's verifier keys, oldest first; the last one's private half is
`seed`. Rotation erases the old private half and keeps its verifier key, and the
note by which it named its successor: old checkpoints verify for ever, and who
trusts any key of the log can follow to the newest. The origin is the log's name
for good, whatever address the broker moves to.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.key_file import KeyFile
from broker.audit.checkpoint import LogKeys, follow, succession
from broker.audit.note import BadNote, Signer, VerifierKey

_FORMAT = 1
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class FileSigner:
    """Implements `note.Signer`."""

    key: VerifierKey
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of_seed(cls, origin: str, seed: bytes) -> FileSigner:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(VerifierKey(origin, private.public_key().public_bytes_raw()), private)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes)."""
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """`signer` is of the newest of `log.keys`. The methods are of those that a file holds."""

    signer: Signer
    log: LogKeys

    @classmethod
    def create(cls, path: Path, origin: str) -> SigningKeys:
        """A first key for the log of that name. Raises StartupError where the file is there."""
        seed = secrets.token_bytes(_SEED_BYTES)
        key = FileSigner.of_seed(origin, seed).key
        _file(path).create(_encode(seed, LogKeys(origin, (key,), ())))
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> SigningKeys:
        """Raises StartupError, which names the cure, for a file that is absent, readable by
        others or not the log's keys.
        """
        file = _file(path)
        return _read(file, file.read())

    @classmethod
    def rotate(cls, path: Path) -> SigningKeys:
        """Put a new key in the old one's place: all or nothing, even if the host dies meanwhile.

        Raises StartupError as `load`, or while another rotation is under way.
        """
        file = _file(path)

        def replace(content: bytes) -> bytes:
            old = _read(file, content)
            seed = secrets.token_bytes(_SEED_BYTES)
            new = FileSigner.of_seed(old.log.origin, seed)
            note = succession(old.log.origin, old.signer, new)
            keys = LogKeys(old.log.origin, (*old.log.keys, new.key), (*old.log.successions, note))
            return _encode(seed, keys)

        file.rewrite(replace)
        return cls.load(path)


def _file(path: Path) -> KeyFile:
    return KeyFile(
        path,
        "signing key file",
        "For a new installation, `broker migrate` creates it; else restore it from your backup:"
        " clients that know the log's key trust no other that it did not name.",
    )


def _encode(seed: bytes, log: LogKeys) -> bytes:
    document = {
        "version": _FORMAT,
        "origin": log.origin,
        "seed": base64.b64encode(seed).decode("ascii"),
        "keys": [str(key) for key in log.keys],
        "successions": list(log.successions),
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"


def _read(file: KeyFile, content: bytes) -> SigningKeys:
    try:
        return _decode(content)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise file.damaged() from None


def _decode(content: bytes) -> SigningKeys:
    document = json.loads(content)
    if document["version"] != _FORMAT:
        raise ValueError("unknown version")
    origin = document["origin"]
    seed = base64.b64decode(document["seed"], validate=True)
    keys = tuple(VerifierKey.parse(vkey) for vkey in document["keys"])
    signer = FileSigner.of_seed(origin, seed)
    log = LogKeys(origin, keys, tuple(document["successions"]))
    if keys[-1:] != (signer.key,) or follow(origin, keys[:1], log.successions) != list(keys):
        raise BadNote("the keys do not follow each other")
    return SigningKeys(signer, log)
